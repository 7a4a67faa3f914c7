/// IA3 (arXiv 2205.05638): `y = l ⊙ (W x + b)`, or `y = W (l ⊙ x) + b` for feed-forward modules.
/// Which of the two, the tensor's shape tells:
///
///     base_model.model.<module>.ia3_l  [outFeatures, 1] or, for feed-forward modules, [1, inFeatures]
struct IA3Method: PEFTMethod {
    let peftTypes = ["IA3"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(
            known: ["fan_in_fan_out", "feedforward_modules", "init_ia3_weights"])
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "ia3_l")
        for module in targets {
            let tensor = try tensors.require(module, "ia3_l", shape: [nil, nil])
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            switch tensor.shape {
            case [outFeatures, 1]: builder.setOutputScale(at: module, vector: .tensor(tensor))
            case [1, inFeatures]: builder.transformInput(of: module, [.scale(.tensor(tensor))])
            default:
                throw source.badTensor(
                    tensor.name,
                    "has shape \(tensor.shape), expected [\(outFeatures), 1] or [1, \(inFeatures)]")
            }
        }
        try tensors.requireEmpty()
        return "ia3"
    }
}
