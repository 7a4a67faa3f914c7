import LorryTensor

/// LLaMA-Adapter (arXiv 2303.16199): in the last layers, attention to prompts of the adapter's own,
/// with a softmax of its own, times a gate, is added to the attention's output. Tensors:
///
///     base_model.model.model.layers.<L>.self_attn.adaption_prompt  [1, prompts, hiddenSize]
///     base_model.model.model.layers.<L>.self_attn.adaption_gate    [1]
///
/// The prompts' keys and values come from the base's projections, without a rotation.
struct AdaptionPromptMethod: PEFTMethod {
    let peftTypes = ["ADAPTION_PROMPT"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["adapter_layers", "adapter_len"])
        let configuration = builder.configuration
        var tensors = AdapterTensors(source, configuration: configuration)
        guard let layerCount = try source.integer("adapter_layers"),
            layerCount <= configuration.layerCount
        else {
            throw source.bad("adapter_layers", "is not a number of the base's layers")
        }
        for layer in configuration.layerCount - layerCount..<configuration.layerCount {
            let path = "\(AdapterTensors.prefix)model.layers.\(layer).self_attn"
            let prompt = try tensors.require(
                "\(path).adaption_prompt",
                shape: [1, try source.integer("adapter_len"), configuration.hiddenSize])
            let gate = try tensors.require("\(path).adaption_gate", shape: [1])
            let count = prompt.shape[1]
            builder.addPromptAttention(
                layer: layer, count: count,
                keys: projection(of: prompt, .linear(layer: layer, .key), configuration),
                values: projection(of: prompt, .linear(layer: layer, .value), configuration),
                gate: .tensor(gate))
            // Each of the two attentions goes through the output projection, bias included.
            let output = BaseModule.linear(layer: layer, .output)
            if configuration.hasBias(output) {
                builder.addBias(
                    at: output,
                    vector: .derived(count: configuration.hiddenSize) { $0.base.bias(output) })
            }
        }
        try tensors.requireEmpty()
        return "adaption_prompt"
    }

    /// What a linear layer of the base makes of the prompts. `[prompts, outFeatures]`
    private func projection(
        of prompt: SafetensorsFile.Tensor, _ module: BaseModule,
        _ configuration: ModelConfiguration
    ) -> Operand {
        let (place, count) = (TensorPlace(prompt), prompt.shape[1])
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        return .derived(count: count * outFeatures) { reader in
            let products = DenseAlgebra.product(
                .init(reader.floats(place)), .init(reader.base.weight(module), .transposed),
                m: count, n: outFeatures, k: inFeatures)
            let bias = reader.base.bias(module)
            return products.indices.map { products[$0] + bias[$0 % outFeatures] }
        }
    }
}
