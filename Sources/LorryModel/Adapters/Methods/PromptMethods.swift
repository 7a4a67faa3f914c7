import LorryTensor

/// Prompt tuning (arXiv 2104.08691), P-tuning (arXiv 2103.10385) and context-aware prompt tuning
/// (arXiv 2410.17222): virtual tokens whose embeddings come before every prompt's. The file has the
/// vectors that training ended with, whatever made them. Tensor:
///
///     prompt_embeddings  [virtual tokens, hiddenSize]
struct PromptTuningMethod: PEFTMethod {
    let peftTypes = ["PROMPT_TUNING", "P_TUNING", "CPT"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(
            known: PromptFields.known.union([
                "cpt_mask", "cpt_token_ids", "cpt_tokens_type_mask", "encoder_dropout",
                "encoder_hidden_size", "encoder_num_layers", "encoder_reparameterization_type",
                "opt_loss_decay_factor", "opt_projection_epsilon",
                "opt_projection_format_epsilon", "opt_weighted_loss_type", "prompt_tuning_init",
                "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path",
            ]))
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let embeddings = try tensors.require(
            PromptFields.tensorName,
            shape: [try source.integer("num_virtual_tokens"), builder.configuration.hiddenSize])
        builder.setVirtualTokens(embeddings: .tensor(embeddings))
        try tensors.requireEmpty()
        switch try source.string("peft_type") {
        case "P_TUNING": return "p_tuning"
        case "CPT": return "cpt"
        default: return "prompt_tuning"
        }
    }
}

/// Multitask prompt tuning (arXiv 2303.02861): virtual tokens `prompt ⊙ (cols[t] · rows[t])` for the
/// request's task t. Tensors:
///
///     prompt_embeddings  [virtual tokens, hiddenSize]
///     prefix_task_cols   [tasks, virtual tokens, ranks]
///     prefix_task_rows   [tasks, ranks, hiddenSize]
struct MultitaskPromptMethod: PEFTMethod {
    let peftTypes = ["MULTITASK_PROMPT_TUNING"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(
            known: PromptFields.known.union([
                "num_ranks", "num_tasks", "prompt_tuning_init",
                "prompt_tuning_init_state_dict_path",
                "prompt_tuning_init_task", "prompt_tuning_init_text", "tokenizer_kwargs",
                "tokenizer_name_or_path",
            ]))
        let width = builder.configuration.hiddenSize
        let taskCount = try source.integer("num_tasks") ?? 1
        let rank = try source.integer("num_ranks") ?? 1
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let shared = try tensors.require(
            PromptFields.tensorName, shape: [try source.integer("num_virtual_tokens"), width])
        let count = shared.shape[0]
        let columns = TensorPlace(
            try tensors.require("prefix_task_cols", shape: [taskCount, count, rank]))
        let rows = TensorPlace(
            try tensors.require("prefix_task_rows", shape: [taskCount, rank, width]))
        try tensors.requireEmpty()
        let place = TensorPlace(shared)
        builder.taskCount = taskCount
        builder.setVirtualTokens(
            embeddings: .derived(count: count * width) { reader throws(AdapterError) in
                let product = DenseAlgebra.product(
                    .init(reader.floatsOfTask(columns)), .init(reader.floatsOfTask(rows)),
                    m: count, n: width, k: rank)
                return zip(reader.floats(place), product).map { $0 * $1 }
            })
        return "multitask_prompt_tuning"
    }
}

/// Prefix tuning (arXiv 2101.00190) and cartridges (arXiv 2506.06266): keys and values of virtual
/// tokens, which are taken as they are, without a rotation. Tensor:
///
///     prompt_embeddings  [virtual tokens, layers · 2 · kvHeads · headDim]
struct PrefixTuningMethod: PEFTMethod {
    let peftTypes = ["PREFIX_TUNING", "CARTRIDGE"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(
            known: PromptFields.known.union([
                "encoder_hidden_size", "init_weights", "num_frozen_tokens", "prefix_projection",
            ]))
        let configuration = builder.configuration
        var tensors = AdapterTensors(source, configuration: configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let layerWidth = 2 * configuration.kvWidth
        let width = configuration.layerCount * layerWidth
        let tensor = try tensors.require(
            PromptFields.tensorName, shape: [try source.integer("num_virtual_tokens"), width])
        let (place, count) = (TensorPlace(tensor), tensor.shape[0])
        let byLayer = (0..<configuration.layerCount).map { layer in
            Operand.derived(count: count * layerWidth) { reader in
                let floats = reader.floats(place)
                return (0..<count).flatMap { token in
                    let start = token * width + layer * layerWidth
                    return floats[start..<start + layerWidth]
                }
            }
        }
        builder.setGivenKeysAndValues(count: count, byLayer: byLayer)
        try tensors.requireEmpty()
        return try source.string("peft_type") == "CARTRIDGE" ? "cartridge" : "prefix_tuning"
    }
}

/// What all methods with virtual tokens have in their configurations.
private enum PromptFields {
    static let tensorName = "prompt_embeddings"
    /// The shapes of the tensors say what these do.
    static let known: Set<String> = [
        "num_attention_heads", "num_layers", "num_transformer_submodules", "num_virtual_tokens",
        "token_dim",
    ]
}
