import CraftedArchives

extension Refusal {
    private static let name = CraftedUpload.configurationName

    /// The configuration as a text.
    static let configurations: [Refusal] = [
        .upload("no configuration", naming: "adapter_config.json is missing") {
            $0.configurationName = nil
        },
        .configuration("an empty configuration", naming: "unexpected end", text: []),
        .configuration(
            "a configuration that is a list", naming: "not a JSON object", text: [0x5B, 0x5D]),
        .configuration(
            "a key twice", naming: "duplicate key 'r'", text: Array(#"{"r":1,"r":2}"#.utf8)),
        .configuration(
            "a key twice, once escaped", naming: "duplicate key 'r'",
            text: Array(#"{"r":1,"\u0072":2}"#.utf8)),
        .configuration(
            "a key twice, deep inside", naming: "duplicate key 'a'",
            text: Array(#"{"runtime_config":{"x":[{"a":1,"a":2}]}}"#.utf8)),
        .configuration(
            "text that is no UTF-8", naming: "UTF-8",
            text: Array(#"{"r":""#.utf8) + [0xC3, 0x22, 0x7D]),
        .configuration("half of a pair", naming: "surrogate", text: Array(#"{"r":"\ud800"}"#.utf8)),
        .configuration(
            "a byte order mark", naming: "byte 0", text: [0xEF, 0xBB, 0xBF, 0x7B, 0x7D]),
        .configuration(
            "a comma too many", naming: "expected a key", text: Array(#"{"r":4,}"#.utf8)),
        .configuration(
            "a NUL behind the object", naming: "after the value", text: [0x7B, 0x7D, 0]),
        .configuration(
            "deep nesting", naming: "nested deeper",
            text: Array((#"{"r":"# + String(repeating: "[", count: 100_000)).utf8)),
        .configuration(
            "a number that is not finite", naming: "not finite", text: Array(#"{"r":NaN}"#.utf8)),
        .configuration(
            "a number of 1e999", naming: "not finite", text: Array(#"{"r":1e999}"#.utf8)),
        .upload("a configuration over its limit", 413, naming: name, "1048576") {
            $0.configuration = [UInt8](repeating: 0x20, count: (1 << 20) + 1)
        },
    ]

    /// Single fields of it.
    static let fields: [Refusal] = [
        .field("no method", naming: "missing", field: "peft_type", nil),
        .field("a method that is a number", field: "peft_type", "7"),
        .field("an unknown method", 422, naming: "NEW_ONE", field: "peft_type", #""NEW_ONE""#),
        .field("a method that is not served", 422, naming: "LILY", field: "peft_type", #""LILY""#),
        .field(
            "a method with a long name", 422, naming: "MMMM", field: "peft_type",
            "\"\(String(repeating: "M", count: 100_000))\""),
        .field("rank 0", field: "r", "0"),
        .field("a negative rank", field: "r", "-4"),
        .field("a rank with a fraction", field: "r", "4.5"),
        .field("a rank in quotes", field: "r", #""4""#),
        .field("a rank beyond 64 bits", field: "r", "18446744073709551620"),
        .upload("a huge rank", naming: CraftedUpload.first, "rank 4") {
            $0.fields["r"] = "1000000"
        },
        .field("an alpha in quotes", field: "lora_alpha", #""8""#),
        .field("an alpha that gives no scale", field: "lora_alpha", "1e300"),
        .field("targets that are a number", field: "target_modules", "1"),
        .field("a target that is a number", field: "target_modules", #"["q_proj", 1]"#),
        .upload("targets that are nothing", naming: "target_modules") {
            $0.fields["target_modules"] = #"["no_proj"]"#
        },
        .field("a pattern that is none", naming: "pattern", field: "target_modules", #""(q_proj""#),
        .field(
            "a pattern without end", naming: "too many steps", field: "target_modules",
            #""(.*)*(.*)*(.*)*[0-9]{9}""#),
        .field("ranks that are a list", field: "rank_pattern", "[1]"),
        .field("a negative rank of a module", field: "rank_pattern", #"{"q_proj": -1}"#),
        .field("a rank's pattern that is none", field: "rank_pattern", #"{"(": 1}"#),
        .field("layers that are not there", field: "layers_to_transform", "[0, 3]"),
        .field("an option that is not known", 422, field: "use_magic", "true"),
        .field("repeated layers", 422, field: "layer_replication", "[[0, 2], [1, 3]]"),
        .field("an option of GPUs", 422, field: "use_qalora", "true"),
        .field(
            "an initialization that is not served", 422, field: "init_lora_weights", #""loftq""#),
        .field("biases of another kind", field: "bias", #""some""#),
        .field("another task", 422, naming: "SEQ_CLS", field: "task_type", #""SEQ_CLS""#),
        .field("a flag that is a number", field: "use_rslora", "1"),
        .field("biases of B without tensors", field: "lora_bias", "true"),
        .upload("magnitudes without tensors", naming: "lora_magnitude_vector") {
            $0.fields["use_dora"] = "true"
        },
        .field(
            "a saved module without tensors", naming: "norm", field: "modules_to_save", #"["norm"]"#
        ),
        .field(
            "a token that is not there", naming: "trainable_tokens_delta",
            field: "trainable_token_indices", "[9999]"
        ).namingOnly("trainable_tokens_delta"),
        .upload("a bottleneck's layer that is not there", naming: name, "leave_out", "3") {
            $0.fields = [
                "config":
                    #"{"mh_adapter": true, "output_adapter": false, "original_ln_after": true, "residual_before_ln": true, "non_linearity": "relu", "leave_out": [3]}"#,
                "name": #""x""#, "model_type": #""llama""#,
            ]
        },
    ]

    private func namingOnly(_ culprits: String...) -> Refusal {
        Refusal(rule, status, naming: culprits, path: path, body)
    }

    /// Files that are no adapter's.
    static let files: [Refusal] =
        [
            ("a pickle", "adapter_model.bin"), ("a torch file", "weights.pt"),
            ("a torch file", "weights.pth"), ("a pickle", "weights.pkl"),
            ("a checkpoint", "last.ckpt"), ("a trainer's state", "optimizer.pt"),
            ("weights of another format", "adapter.gguf"), ("weights of another format", "a.npz"),
            ("weights that would not be read", "model.safetensors"),
            ("a packed file", "adapter.zip"),
        ].map { rule, file in
            .upload("\(rule): \(file)", 422, naming: file) { $0.further = [(file, [1])] }
        }
        + [
            .upload("a tokenizer that is none", naming: "tokenizer.json") {
                $0.further = [("tokenizer.json", Array("{}".utf8))]
            },
            .upload("a template that is none", naming: "chat_template.jinja") {
                $0.further = [("chat_template.jinja", Array("{% for".utf8))]
            },
            .upload("a template that is no UTF-8", naming: "chat_template.jinja", "UTF-8") {
                $0.further = [("chat_template.jinja", [0xFF])]
            },
            .upload("a template within a configuration", naming: "tokenizer_config.json") {
                $0.further = [("tokenizer_config.json", Array(#"{"chat_template": "{{"}"#.utf8))]
            },
            .upload("an unknown file", naming: "run.sh") { $0.further = [("run.sh", [1])] },
            .upload("weights twice", naming: "adapter.safetensors", "both") {
                $0.further = [("adapter.safetensors", $0.files[1].bytes)]
            },
            .upload("no weights", naming: "adapter_model.safetensors is missing") {
                $0.weightsName = nil
            },
            .upload("a pickle in the weights' place", 422, naming: "adapter_model.bin") {
                $0.weightsName = "adapter_model.bin"
            },
        ]
}
