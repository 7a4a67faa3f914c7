import Foundation

/// A folder for one test's files, removed with it.
final class TestFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "lorry-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func write(_ data: Data, _ name: String) throws {
        try data.write(to: url.appending(path: name))
    }

    func write(_ object: [String: Any], _ name: String) throws {
        try write(JSONSerialization.data(withJSONObject: object, options: .sortedKeys), name)
    }

    func path(_ name: String) -> String { url.appending(path: name).path }
}

/// A safetensors file, put together by hand.
struct CraftedTensors {
    struct Tensor {
        var shape: [Int]
        var floats: [Float]
        var dtype = "F32"
    }

    var tensors: [String: Tensor] = [:]

    mutating func add(_ name: String, _ shape: [Int], dtype: String = "F32", value: Float? = nil) {
        let count = shape.reduce(1, *)
        let seed = name.utf8.reduce(UInt32(7)) { $0 &* 31 &+ UInt32($1) }
        let floats = (0..<count).map { index -> Float in
            if let value { return value }
            let bits = (seed &+ UInt32(index)) &* 2_654_435_761
            return Float(bits >> 8) / Float(1 << 24) * 0.4 - 0.2
        }
        tensors[name] = Tensor(shape: shape, floats: floats, dtype: dtype)
    }

    /// The file's bytes: header length, header, elements in the order of names.
    func data() throws -> Data {
        var header: [String: Any] = [:]
        var elements = Data()
        for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
            let start = elements.count
            for float in tensor.floats {
                switch tensor.dtype {
                case "F32":
                    withUnsafeBytes(of: float.bitPattern.littleEndian) {
                        elements.append(contentsOf: $0)
                    }
                case "BF16":
                    withUnsafeBytes(of: UInt16(float.bitPattern >> 16).littleEndian) {
                        elements.append(contentsOf: $0)
                    }
                case "F16":
                    withUnsafeBytes(of: Self.halfBits(float).littleEndian) {
                        elements.append(contentsOf: $0)
                    }
                case "I64":
                    withUnsafeBytes(of: Int64(float).littleEndian) {
                        elements.append(contentsOf: $0)
                    }
                default:
                    elements.append(contentsOf: [UInt8](repeating: 0, count: 8))
                }
            }
            header[name] = [
                "dtype": tensor.dtype, "shape": tensor.shape,
                "data_offsets": [start, elements.count],
            ]
        }
        return Self.file(
            header: try JSONSerialization.data(withJSONObject: header, options: .sortedKeys),
            elements: elements)
    }

    /// Of normal numbers only; the fraction is cut off.
    private static func halfBits(_ float: Float) -> UInt16 {
        guard float != 0 else { return 0 }
        let sign = UInt16(float.sign == .minus ? 0x8000 : 0)
        let fraction = UInt16((float.bitPattern >> 13) & 0x3FF)
        return sign | UInt16(Int(float.exponent) + 15) << 10 | fraction
    }

    static func file(header: Data, elements: Data, declaring length: UInt64? = nil) -> Data {
        var data = Data()
        withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) {
            data.append(contentsOf: $0)
        }
        return data + header + elements
    }
}

/// The shape of the smallest model that these tests use, and its tensors.
enum TinyModel {
    static let layerCount = 2
    static let hiddenSize = 16
    static let intermediateSize = 24
    static let vocabularySize = 32
    /// Four heads of four, two of keys and values.
    static let kvWidth = 8

    static func configuration(_ changes: [String: Any?] = [:]) -> [String: Any] {
        var object: [String: Any] = [
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hiddenSize,
            "intermediate_size": intermediateSize, "num_hidden_layers": layerCount,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocabularySize,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "rope_theta": 10_000.0, "tie_word_embeddings": false, "eos_token_id": 1,
        ]
        for (key, value) in changes { object[key] = value }
        return object
    }

    static func dimensions(_ name: String) -> (out: Int, in: Int) {
        switch name {
        case "q_proj", "o_proj": (hiddenSize, hiddenSize)
        case "k_proj", "v_proj": (kvWidth, hiddenSize)
        case "gate_proj", "up_proj": (intermediateSize, hiddenSize)
        default: (hiddenSize, intermediateSize)
        }
    }

    static let modules = [
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ]

    /// - Parameter biases: modules that have one.
    static func tensors(biases: Set<String> = [], hasHead: Bool = true) -> CraftedTensors {
        var file = CraftedTensors()
        file.add("model.embed_tokens.weight", [vocabularySize, hiddenSize])
        if hasHead { file.add("lm_head.weight", [vocabularySize, hiddenSize]) }
        file.add("model.norm.weight", [hiddenSize], value: 1)
        for layer in 0..<layerCount {
            let path = "model.layers.\(layer)"
            file.add("\(path).input_layernorm.weight", [hiddenSize], value: 1)
            file.add("\(path).post_attention_layernorm.weight", [hiddenSize], value: 1)
            for module in modules {
                let (out, into) = dimensions(String(module.split(separator: ".")[1]))
                file.add("\(path).\(module).weight", [out, into])
                if biases.contains(module) { file.add("\(path).\(module).bias", [out]) }
            }
        }
        return file
    }

    static func write(
        to folder: TestFolder, _ tensors: CraftedTensors = tensors(),
        _ changes: [String: Any?] = [:]
    ) throws {
        try folder.write(configuration(changes), "config.json")
        try folder.write(tensors.data(), "model.safetensors")
    }
}
