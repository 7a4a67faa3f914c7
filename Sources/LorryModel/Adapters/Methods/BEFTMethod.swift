import LorryTensor

/// BEFT (arXiv 2509.15974): `y = W x + b + β`. Tensors, as peft 0.21 saves them:
///
///     base_model.model.<module>.beft_bias  [1, outFeatures]
struct BEFTMethod: PEFTMethod {
    let peftTypes = ["BEFT"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["init_weights"])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try tensors.linearTargets(having: "beft_bias") {
            let outFeatures = builder.dimensions(of: module).outFeatures
            let bias = try tensors.require(module, "beft_bias", shape: [1, outFeatures])
            builder.addBias(at: module, vector: .tensor(bias))
        }
        try tensors.requireEmpty()
        return "beft"
    }
}
