import Foundation
import LorryTensor

/// A model folder that cannot be served, with the file, field or tensor at fault.
public struct ModelError: Error, CustomStringConvertible, Sendable, Equatable {
    public let message: String
    public var description: String { message }
    public init(_ message: String) { self.message = message }
}

extension ModelConfiguration {
    /// Reads `config.json`, and `generation_config.json` where it is there, of a model folder.
    ///
    /// Takes both the form of transformers 5 (`rope_parameters`, `dtype`) and the older one
    /// (`rope_theta`, `rope_scaling`, `torch_dtype`). What the decoder would compute wrongly is
    /// refused by name.
    public init(directory: URL) throws(ModelError) {
        let config = try ConfigurationFile(directory.appending(path: "config.json"))
        self = try Self.parse(config)
        let generation = directory.appending(path: "generation_config.json")
        if FileManager.default.fileExists(atPath: generation.path) {
            let file = try ConfigurationFile(generation)
            endTokenIDs.formUnion(try file.tokenIDs("eos_token_id"))
        }
        for token in endTokenIDs where token < 0 || Int(token) >= vocabularySize {
            throw ModelError("eos_token_id \(token) is outside the vocabulary (\(vocabularySize))")
        }
    }

    /// Far above any model; bounds what a damaged file makes us allocate.
    private static let maximumLayerCount = 10_000

    private static func parse(_ file: ConfigurationFile) throws(ModelError) -> Self {
        let architecture = try parseArchitecture(file)
        try refuseUnsupported(file)
        let hiddenSize = try file.size("hidden_size")
        let headCount = try file.size("num_attention_heads")
        let kvHeadCount =
            try file.optionalSize("num_key_value_heads") ?? defaultKVHeads(architecture, headCount)
        guard headCount % kvHeadCount == 0 else {
            throw file.bad("num_key_value_heads", "\(kvHeadCount) does not divide \(headCount)")
        }
        let explicitHeadDim = try file.optionalSize("head_dim")
        guard explicitHeadDim != nil || hiddenSize % headCount == 0 else {
            throw file.bad("num_attention_heads", "\(headCount) does not divide \(hiddenSize)")
        }
        let headDim = explicitHeadDim ?? hiddenSize / headCount
        guard headDim % 2 == 0 else { throw file.bad("head_dim", "\(headDim) is odd") }
        guard headDim <= KVLayout.maximumHeadDim else {
            throw file.bad("head_dim", "\(headDim) is above \(KVLayout.maximumHeadDim)")
        }
        let layerCount = try file.size("num_hidden_layers")
        guard layerCount <= maximumLayerCount else {
            throw file.bad("num_hidden_layers", "is above \(maximumLayerCount)")
        }
        let epsilon = try file.number("rms_norm_eps") ?? 1e-6
        guard epsilon >= 0 else { throw file.bad("rms_norm_eps", "must not be below 0") }
        return ModelConfiguration(
            architecture: architecture,
            vocabularySize: try file.size("vocab_size"),
            hiddenSize: hiddenSize,
            intermediateSize: try file.size("intermediate_size"),
            layerCount: layerCount,
            headCount: headCount,
            kvHeadCount: kvHeadCount,
            headDim: headDim,
            normEpsilon: Float(epsilon),
            maximumPositions: try file.optionalSize("max_position_embeddings")
                ?? defaultMaximumPositions(architecture),
            rope: try parseRope(file),
            tiesEmbeddings: try file.flag("tie_word_embeddings") ?? false,
            biasedSites: try parseBiases(file, architecture),
            slidingWindows: try parseWindows(file, architecture, layerCount),
            endTokenIDs: try file.tokenIDs("eos_token_id"),
            beginTokenID: try file.tokenIDs("bos_token_id").first)
    }

    private static func parseArchitecture(_ file: ConfigurationFile) throws(ModelError)
        -> Architecture
    {
        let supported = Architecture.allCases.map(\.rawValue).joined(separator: ", ")
        guard let type = try file.string("model_type") else {
            throw file.bad("model_type", "is missing; supported are \(supported)")
        }
        guard let architecture = Architecture(rawValue: type) else {
            throw file.bad("model_type", "'\(type)' is not supported; supported are \(supported)")
        }
        if let names = file["architectures"]?.arrayValue, !names.isEmpty,
            !names.contains(.string(architecture.className))
        {
            let found = names.compactMap(\.stringValue).joined(separator: ", ")
            throw file.bad("architectures", "\(found) is not \(architecture.className)")
        }
        return architecture
    }

    private static func refuseUnsupported(_ file: ConfigurationFile) throws(ModelError) {
        if let activation = try file.string("hidden_act"), !["silu", "swish"].contains(activation) {
            throw file.bad("hidden_act", "'\(activation)' is not supported, only silu")
        }
        if let quantization = file["quantization_config"], !quantization.isNull {
            throw file.bad("quantization_config", "quantized checkpoints are not supported")
        }
        if let factor = try file.number("partial_rotary_factor"), factor != 1 {
            throw file.bad("partial_rotary_factor", "\(factor) is not supported, only 1")
        }
    }

    private static func defaultKVHeads(_ architecture: Architecture, _ headCount: Int) -> Int {
        switch architecture {
        case .llama: headCount
        case .mistral: 8
        case .qwen2: 32
        }
    }

    private static func defaultMaximumPositions(_ architecture: Architecture) -> Int {
        switch architecture {
        case .llama: 2048
        case .mistral: 131_072
        case .qwen2: 32_768
        }
    }

    private static func parseBiases(
        _ file: ConfigurationFile, _ architecture: Architecture
    ) throws(ModelError) -> Set<LinearSite> {
        switch architecture {
        case .llama:
            var sites: Set<LinearSite> = []
            if try file.flag("attention_bias") ?? false {
                sites.formUnion([.query, .key, .value, .output])
            }
            if try file.flag("mlp_bias") ?? false { sites.formUnion([.gate, .up, .down]) }
            return sites
        case .mistral:
            return []
        case .qwen2:
            return [.query, .key, .value]
        }
    }

    private static func parseRope(_ file: ConfigurationFile) throws(ModelError) -> RopeConfiguration
    {
        let field =
            file["rope_parameters"].map { $0.isNull } == false ? "rope_parameters" : "rope_scaling"
        let defaultTheta = try file.number("rope_theta") ?? 10_000
        guard let value = file[field], !value.isNull else {
            guard defaultTheta > 0 else { throw file.bad("rope_theta", "must be above 0") }
            return RopeConfiguration(theta: Float(defaultTheta))
        }
        guard let object = value.objectValue else { throw file.bad(field, "is not an object") }
        let parameters = ConfigurationFile(name: "\(file.name): \(field)", object: object)
        let theta = Float(try parameters.number("rope_theta") ?? defaultTheta)
        guard theta > 0 else { throw parameters.bad("rope_theta", "must be above 0") }
        if let partial = try parameters.number("partial_rotary_factor"), partial != 1 {
            throw parameters.bad("partial_rotary_factor", "\(partial) is not supported, only 1")
        }
        var type = try parameters.string("rope_type")
        if type == nil { type = try parameters.string("type") }
        switch type ?? "default" {
        case "default":
            return RopeConfiguration(theta: theta)
        case "linear":
            let factor = Float(try parameters.positiveNumber("factor"))
            return RopeConfiguration(theta: theta, scaling: .linear(factor: factor))
        case "llama3":
            let low = Float(try parameters.positiveNumber("low_freq_factor"))
            let high = Float(try parameters.positiveNumber("high_freq_factor"))
            guard high > low else {
                throw parameters.bad("high_freq_factor", "must be above low_freq_factor")
            }
            return RopeConfiguration(
                theta: theta,
                scaling: .llama3(
                    factor: Float(try parameters.positiveNumber("factor")),
                    lowFrequencyFactor: low,
                    highFrequencyFactor: high,
                    originalMaximumPositions: Float(
                        try parameters.positiveNumber("original_max_position_embeddings"))))
        case let type:
            throw parameters.bad(
                "rope_type", "'\(type)' is not supported; supported are default, linear, llama3")
        }
    }

    private static func parseWindows(
        _ file: ConfigurationFile, _ architecture: Architecture, _ layerCount: Int
    ) throws(ModelError) -> [Int?] {
        let everywhere = [Int?](repeating: nil, count: layerCount)
        switch architecture {
        case .llama:
            return everywhere
        case .mistral:
            // transformers' MistralConfig means 4096 where the field is missing, none where null.
            let window =
                file["sliding_window"] == nil ? 4096 : try file.optionalSize("sliding_window")
            return [Int?](repeating: window, count: layerCount)
        case .qwen2:
            guard try file.flag("use_sliding_window") ?? false else { return everywhere }
            let window =
                file["sliding_window"] == nil ? 4096 : try file.optionalSize("sliding_window")
            if let types = file["layer_types"]?.arrayValue {
                return try windows(types, window, layerCount, file)
            }
            let firstSliding = try file.optionalSize("max_window_layers") ?? 28
            return (0..<layerCount).map { $0 >= firstSliding ? window : nil }
        }
    }

    private static func windows(
        _ types: [StrictJSON], _ window: Int?, _ layerCount: Int, _ file: ConfigurationFile
    ) throws(ModelError) -> [Int?] {
        guard types.count == layerCount else {
            throw file.bad("layer_types", "has \(types.count) entries for \(layerCount) layers")
        }
        var windows: [Int?] = []
        for type in types {
            switch type.stringValue {
            case "full_attention": windows.append(nil)
            case "sliding_attention": windows.append(window)
            default: throw file.bad("layer_types", "has an attention type that is not supported")
            }
        }
        return windows
    }
}
