import Foundation
import LorryModel
import Testing

/// Embeddings, heads and whole modules in adapters' files, as resized, tied and wrapped bases have
/// them.
@Suite struct WholeModuleTests {
    private static let prefix = "base_model.model."
    private static let embedding = "\(prefix)model.embed_tokens"
    private static let head = "\(prefix)lm_head"
    private static let hidden = TinyModel.hiddenSize
    private static let vocabulary = TinyModel.vocabularySize

    @Test func containersAreSavedWhole() throws {
        var adapter = CraftedAdapter()
        adapter.set("modules_to_save", ["1.mlp"])
        for module in ["gate_proj", "up_proj", "down_proj"] {
            let (out, into) = TinyModel.dimensions(module)
            adapter.file.add("\(CraftedAdapter.prefix)1.mlp.\(module).weight", [out, into])
        }
        #expect(try adapter.inspect().targets.contains("gate_proj"))
        adapter.set("modules_to_save", ["0.mlp"])
        #expect(throws: AdapterError.self) { try adapter.inspect() }
    }

    @Test func grownTablesMayBeWrapped() throws {
        let rows = Self.vocabulary + 3
        var tokens = CraftedAdapter()
        tokens.set("trainable_token_indices", [Self.vocabulary, rows - 1])
        for path in [Self.embedding, Self.head] {
            tokens.file.add("\(path).token_adapter.base_layer.weight", [rows, Self.hidden])
            tokens.file.add("\(path).token_adapter.trainable_tokens_delta", [2, Self.hidden])
        }
        let tied = ["tie_word_embeddings": true]
        #expect(try tokens.inspect(tied).traits.vocabularySize == rows)

        var saved = CraftedAdapter()
        saved.set("modules_to_save", ["embed_tokens", "lm_head"])
        for path in [Self.embedding, Self.head] {
            for part in ["", ".modules_to_save", ".original_module"] {
                saved.file.add("\(path)\(part).weight", [rows, Self.hidden])
            }
        }
        #expect(try saved.inspect().traits.vocabularySize == rows)

        // Of a tied base the head alone may be there, of one that is not it says too little.
        var half = CraftedAdapter()
        half.file.add("\(Self.head).weight", [rows, Self.hidden])
        #expect(try half.inspect(tied).traits.vocabularySize == rows)
        #expect(throws: AdapterError.self) { try half.inspect() }

        var prompt = CraftedAdapter(modules: [])
        prompt.configuration = [
            "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2,
        ]
        prompt.file.add("prompt_embeddings", [2, Self.hidden])
        prompt.file.add("base_model.model.embed_tokens.weight", [rows, Self.hidden])
        prompt.file.add("base_model.lm_head.weight", [rows, Self.hidden])
        #expect(try prompt.inspect().traits.vocabularySize == rows)
    }

    @Test func tiedHeadsFollowTheEmbedding() throws {
        var adapter = CraftedAdapter()
        adapter.set("target_modules", ["q_proj", "v_proj", "model.embed_tokens"])
        adapter.set("ensure_weight_tying", true)
        adapter.file.add("\(Self.embedding).lora_embedding_A", [2, Self.vocabulary])
        adapter.file.add("\(Self.embedding).lora_embedding_B", [Self.hidden, 2])
        adapter.file.add("\(Self.head).lora_A.weight", [2, Self.hidden])
        adapter.file.add("\(Self.head).lora_B.weight", [Self.vocabulary, 2])
        let tied = ["tie_word_embeddings": true]
        #expect(try adapter.inspect(tied).targets.contains("lm_head"))
        #expect(throws: AdapterError.self) { try adapter.inspect() }
    }

    @Test func tokensOfTheHead() throws {
        var adapter = CraftedAdapter()
        adapter.set("trainable_token_indices", ["embed_tokens": [3, 4], "lm_head": [5]])
        let rows = "token_adapter.trainable_tokens_delta"
        adapter.file.add("\(Self.embedding).\(rows)", [2, Self.hidden])
        #expect(throws: AdapterError.self) { try adapter.inspect() }
        adapter.file.add("\(Self.head).\(rows)", [1, Self.hidden])
        #expect(try adapter.inspect().targets.contains("lm_head"))
        #expect(try adapter.inspect(["tie_word_embeddings": true]).targets.contains("lm_head"))
        adapter.set("trainable_token_indices", ["norm": [3]])
        #expect(throws: AdapterError.self) { try adapter.inspect() }
    }

    @Test func activatedAdaptersChangeNothingBefore() throws {
        var adapter = CraftedAdapter()
        adapter.set("alora_invocation_tokens", [4])
        #expect(try adapter.inspect().method == "alora")
        adapter.set("modules_to_save", ["model.norm"])
        adapter.file.add("\(Self.prefix)model.norm.weight", [Self.hidden])
        let error = #expect(throws: AdapterError.self) { try adapter.inspect() }
        #expect(error?.message.contains("modules_to_save") == true)
    }

    @Test func decompositionsAreCutToTheWeight() throws {
        var adapter = CraftedAdapter(modules: ["v_proj"], rank: TinyModel.kvWidth)
        adapter.set("target_modules", ["v_proj"])
        adapter.set("r", 64)
        #expect(throws: AdapterError.self) { try adapter.inspect() }
        adapter.set("init_lora_weights", "pissa")
        #expect(try adapter.inspect().method == "pissa")
    }

    /// PiSSA of full rank takes the whole weight away, so that DoRA's norms are those of `s B A`.
    @Test func magnitudesAreOfTheChangedBase() throws {
        let (rank, scale) = (16, Float(0.25))
        for initialization in ["pissa", "olora"] {
            var folded = FoldedAdapter(
                "LORA", ["q_proj"],
                [
                    "r": rank, "lora_alpha": 4, "use_dora": true,
                    "init_lora_weights": initialization,
                ])
            folded.add("lora_A.weight") { [rank, $1] }
            folded.add("lora_B.weight") { out, _ in [out, rank] }
            folded.add("lora_magnitude_vector") { out, _ in [out] }
            // OLoRA takes `s Q R` away, which is the weight where s is 1.
            let factor = initialization == "olora" ? Float(1) : scale
            if initialization == "olora" { folded.adapter.set("lora_alpha", rank) }
            try folded.check(initialization) { path, weight in
                let (out, into) = FoldedAdapter.dimensions(path)
                let product = plainProduct(
                    folded.floats(path, "lora_B.weight"), folded.floats(path, "lora_A.weight"),
                    out, into, rank
                ).map { $0 * factor }
                let magnitudes = folded.floats(path, "lora_magnitude_vector")
                return product.indices.map { index in
                    let row = index / into
                    let square = product[row * into..<(row + 1) * into].reduce(0) { $0 + $1 * $1 }
                    return magnitudes[row] / square.squareRoot() * product[index] - weight[index]
                }
            }
        }
    }

    @Test func headsHaveInputsAndSingleNumbersToo() throws {
        var scaled = FoldedAdapter("IA3", ["lm_head"], ["feedforward_modules": ["lm_head"]])
        scaled.add("ia3_l") { [1, $1] }
        try scaled.check("ia3") { path, weight in
            let factors = scaled.floats(path, "ia3_l")
            return weight.indices.map { weight[$0] * (factors[$0 % factors.count] - 1) }
        }
        var sparse = FoldedAdapter("SHIRA", ["lm_head"])
        sparse.add("shira_weight") { _, _ in [3] }
        sparse.adapter.file.tensors["\(Self.head).shira_indices"] = .init(
            shape: [2, 3], floats: [0, 7, 31, 2, 15, 0], dtype: "I64")
        try sparse.check("shira") { path, weight in
            var delta = weight.map { _ in Float(0) }
            let values = sparse.floats(path, "shira_weight")
            for (index, place) in [(0, 2), (7, 15), (31, 0)].enumerated() {
                delta[place.0 * Self.hidden + place.1] = values[index]
            }
            return delta
        }
    }
}
