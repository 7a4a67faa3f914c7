import LorryTensor

/// Bottleneck adapters as AdapterHub's library saves them: serial (Houlsby et al., arXiv 1902.00751;
/// Pfeiffer et al., arXiv 2005.00247) and parallel (He et al., arXiv 2110.04366). With a sublayer's
/// output h and the residual stream r before it:
///
///     r ← r + h + s · up(f(down(x))),  x = h, h + r (original_ln_before) or r (is_parallel)
///
/// `s` is a number, or learned: one for all channels or one for each. Tensors, where `<place>` is
/// `attention_adapters` (mh_adapter) or `output_adapters` (output_adapter):
///
///     model.layers.<i>.<place>.adapters.<name>.adapter_down.0.weight  [bottleneck, hiddenSize]
///                                              adapter_down.0.bias    [bottleneck]
///                                              adapter_up.weight      [hiddenSize, bottleneck]
///                                              adapter_up.bias        [hiddenSize]
///                                              scaling                [1] or [hiddenSize]
struct BottleneckMethod: Sendable {
    /// Whether a configuration is in AdapterHub's schema.
    static func isConfiguration(_ configuration: StrictJSON.Object) -> Bool {
        configuration["peft_type"] == nil && configuration["config"]?.objectValue != nil
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        guard let fields = source.present("config")?.objectValue else {
            throw source.bad("config", "is not an object")
        }
        try checkModel(source, builder.configuration)
        let options = AdapterSource(
            configuration: fields, tensors: source.tensors, weightsName: source.weightsName)
        let shape = try BottleneckShape(
            options, layerCount: builder.configuration.layerCount)
        guard let name = try source.string("name") else { throw source.bad("name", "is missing") }
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        var count = 0
        for layer in 0..<builder.configuration.layerCount where !shape.leftOut.contains(layer) {
            for (group, place) in shape.places {
                let path = "layers.\(layer).\(place).adapters.\(name)."
                let prefix =
                    source.tensors.keys.contains { $0.hasPrefix("model.\(path)") }
                    ? "model." : ""
                builder.setBottleneck(
                    BottleneckPlace(layer: layer, group: group),
                    try shape.bottleneck(
                        from: &tensors, prefix + path, width: builder.configuration.hiddenSize))
                count += 1
            }
        }
        guard count > 0 else {
            throw options.bad("leave_out", "leaves no layer with an adapter")
        }
        try tensors.requireEmpty()
        return shape.isParallel ? "parallel_bottleneck" : "bottleneck"
    }

    /// The library has its own code for these families; others it hooks into from outside, which
    /// means something else.
    private func checkModel(
        _ source: AdapterSource, _ configuration: ModelConfiguration
    ) throws(AdapterError) {
        try source.refuseUnknownFields(known: [
            "config", "config_id", "hidden_size", "model_class", "model_name", "model_type", "name",
            "type", "version",
        ])
        let type = try source.string("model_type") ?? "none"
        guard ["llama", "mistral"].contains(type) else {
            throw source.unsupported(
                "model_type",
                "of AdapterHub's adapters only llama's and mistral's are served, "
                    + "not those of \(type)")
        }
        if let width = try source.integer("hidden_size"), width != configuration.hiddenSize {
            throw source.bad(
                "hidden_size", "is \(width), the base model's is \(configuration.hiddenSize)")
        }
    }
}

/// What all of an adapter's bottlenecks have in common.
private struct BottleneckShape {
    private enum Scaling {
        case fixed(Float)
        /// How many learned numbers there are; nil: one for each channel.
        case learned(Int?)
    }

    let isParallel: Bool
    let places: [(LinearGroup, String)]
    let leftOut: Set<Int>
    private let input: BottleneckInput
    private let activation: Activation
    private let scaling: Scaling

    /// - Parameter options: the object `config`.
    init(_ options: AdapterSource, layerCount: Int) throws(AdapterError) {
        try Self.refuseOthers(options)
        isParallel = try options.flag("is_parallel")
        let addsBefore = try options.flag("original_ln_before")
        input = isParallel ? .residual : addsBefore ? .sum : .output
        try Self.checkResidual(options, addsBefore: addsBefore, isParallel: isParallel)
        var places: [(LinearGroup, String)] = []
        if try options.flag("mh_adapter") {
            places.append((.attentionOutput, "attention_adapters"))
        }
        if try options.flag("output_adapter") {
            places.append((.feedForwardOutput, "output_adapters"))
        }
        self.places = places
        leftOut = try Self.leftOut(options, layerCount: layerCount)
        activation = try Self.activation(options)
        scaling = try Self.scaling(options)
    }

    private static func refuseOthers(_ options: AdapterSource) throws(AdapterError) {
        try options.refuseUnknownFields(
            known: [
                // The tensors' shapes say what it does.
                "reduction_factor",
                "adapter_residual_before_ln", "dropout", "init_weights", "init_weights_seed",
                "inv_adapter_reduction_factor", "is_parallel", "leave_out", "mh_adapter",
                "non_linearity", "original_ln_after", "original_ln_before", "output_adapter",
                "residual_before_ln", "scaling", "stochastic_depth",
                // Of phm_layer, which is refused.
                "factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity", "learn_phm",
                "phm_bias", "phm_c_init", "phm_dim", "phm_init_range", "phm_rank", "shared_W_phm",
                "shared_phm_rule",
            ],
            reasons: [
                "architecture": "of AdapterHub's adapters only bottlenecks are served",
                "cross_adapter": "decoders have no cross attention",
                "inv_adapter": "invertible adapters of the embedding are not supported",
                "ln_after": "a norm inside the adapter is not supported",
                "ln_before": "a norm inside the adapter is not supported",
                "phm_layer": "Compacter's layers are not supported",
                "use_gating": "its gate is averaged over the whole sequence",
            ])
    }

    /// Checks that the stream of residuals goes on once, as it is.
    private static func checkResidual(
        _ options: AdapterSource, addsBefore: Bool, isParallel: Bool
    ) throws(AdapterError) {
        let addsAfter = try options.flag("original_ln_after", default: true)
        var count = addsAfter ? 1 : 0
        if !isParallel, let field = options.present("residual_before_ln") {
            guard let takesOutput = field.boolValue else {
                throw options.unsupported(
                    "residual_before_ln", "needs a norm after the sublayer, which decoders lack")
            }
            if !takesOutput && addsBefore { count += 1 }
        }
        guard count == 1 else {
            throw options.unsupported(
                "original_ln_after", "the residual stream would be added \(count) times")
        }
    }

    private static func leftOut(
        _ options: AdapterSource, layerCount: Int
    ) throws(AdapterError) -> Set<Int> {
        guard let field = options.present("leave_out") else { return [] }
        guard let values = field.arrayValue else { throw options.bad("leave_out", "is not a list") }
        let layers = values.compactMap(\.integerValue)
        guard layers.count == values.count else {
            throw options.bad("leave_out", "is not a list of layers")
        }
        if let other = layers.first(where: { !(0..<layerCount).contains($0) }) {
            throw options.bad(
                "leave_out", "has \(other), which is no layer of the base (0..<\(layerCount))")
        }
        return Set(layers)
    }

    private static func scaling(_ options: AdapterSource) throws(AdapterError) -> Scaling {
        switch options.present("scaling")?.stringValue {
        case "learned": return .learned(1)
        case "channel": return .learned(nil)
        case nil:
            return .fixed(try options.scale("scaling", try options.number("scaling") ?? 1))
        default: throw options.unsupported("scaling", "is not a number, learned or channel")
        }
    }

    private static func activation(_ options: AdapterSource) throws(AdapterError) -> Activation {
        guard let name = try options.string("non_linearity") else {
            throw options.bad("non_linearity", "is missing")
        }
        return switch name.lowercased() {
        case "linear": .identity
        case "relu": .relu
        case "relu6": .relu6
        case "relu2": .squaredReLU
        case "leakyrelu", "leaky_relu": .leakyReLU
        case "sigmoid": .sigmoid
        case "tanh": .tanh
        case "silu", "swish": .silu
        case "gelu", "gelu_python": .gelu
        case "gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh":
            .tanhGELU
        case "quick_gelu": .quickGELU
        case "mish": .mish
        default: throw options.unsupported("non_linearity", "'\(name)' is not supported")
        }
    }

    /// - Parameter path: what the tensors' names begin with.
    func bottleneck(
        from tensors: inout AdapterTensors, _ path: String, width: Int
    ) throws(AdapterError) -> Bottleneck {
        let down = try tensors.require(path + "adapter_down.0.weight", shape: [nil, width])
        let rank = down.shape[0]
        let downBias = try tensors.require(path + "adapter_down.0.bias", shape: [rank])
        let up = try tensors.require(path + "adapter_up.weight", shape: [width, rank])
        let upBias = try tensors.require(path + "adapter_up.bias", shape: [width])
        let factors: Operand
        switch scaling {
        case .fixed(let scale):
            factors = .constant([Float](repeating: scale, count: width))
        case .learned(let count):
            let place = TensorPlace(
                try tensors.require(path + "scaling", shape: [count ?? width]))
            factors = .derived(count: width) { reader in
                let floats = reader.floats(place)
                return floats.count == width
                    ? floats : [Float](repeating: floats[0], count: width)
            }
        }
        return Bottleneck(
            input: input, rank: rank, down: .tensor(down), downBias: .tensor(downBias),
            activation: activation,
            up: .scalingRows(.tensor(up), columns: rank, by: factors),
            upBias: .scalingRows(.tensor(upBias), columns: 1, by: factors))
    }
}
