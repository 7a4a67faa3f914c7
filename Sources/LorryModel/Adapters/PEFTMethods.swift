/// The PEFT methods by their types.
package enum PEFTMethods {
    /// The types that are served, and those that are known and refused.
    package static var servedTypes: [String] { served.flatMap(\.peftTypes) }
    package static var refusedTypes: [String] { refused.keys.sorted() }

    static let served: [any PEFTMethod] = [
        AdaLoRAMethod(),
        AdaptionPromptMethod(),
        BEFTMethod(),
        BOFTMethod(),
        C3AMethod(),
        DEFTMethod(),
        DeLoRAMethod(),
        FRoDMethod(),
        FourierFTMethod(),
        GLoRAMethod(),
        GraLoRAMethod(),
        HRAMethod(),
        HiRAMethod(),
        IA3Method(),
        LNTuningMethod(),
        LoHaMethod(),
        LoKrMethod(),
        LoRAMethod(),
        MiSSMethod(),
        MultitaskPromptMethod(),
        OFTMethod(),
        OSFMethod(),
        PEANuTMethod(),
        PolyMethod(),
        PrefixTuningMethod(),
        PromptTuningMethod(),
        RandLoRAMethod(),
        RoAdMethod(),
        SHiRAMethod(),
        SuperTuningMethod(),
        TinyLoRAMethod(),
        TrainableTokensMethod(),
        UniLoRAMethod(),
        VBLoRAMethod(),
        VeRAMethod(),
        WaveFTMethod(),
    ]

    /// Types that are known and not served, with the reason.
    private static let refused: [String: String] = [
        "ADAMSS": "its file lacks the clusters of rows that its blocks act on",
        "LILY": "its router mixes over the whole batch, so that answers would depend on neighbours",
        "PSOFT": "its file lacks the signs of the singular vectors that it is relative to",
        "SHADOW": "it runs a network of its own beside the model's layers",
        "XLORA": "it mixes adapters by a first pass over the whole prompt for every token",
    ]

    /// Why an adapter of a type is not served.
    static func refusal(of type: String) -> String {
        if let reason = refused[type] { return "\(type) is not supported: \(reason)" }
        let types = servedTypes.sorted().joined(separator: ", ")
        return "\(type) is not supported; served are \(types)"
    }
}

/// One PEFT method: how its files become operations of an adapter program.
protocol PEFTMethod: Sendable {
    /// Values of `peft_type` in `adapter_config.json`.
    var peftTypes: [String] { get }

    /// Checks the files against the base model and adds their operations to the builder. Every
    /// tensor is used, every target has its tensors, and no option is ignored: else it throws.
    ///
    /// - Returns: the method's common name.
    func compile(_ source: AdapterSource, into builder: inout AdapterProgramBuilder)
        throws(AdapterError) -> String
}
