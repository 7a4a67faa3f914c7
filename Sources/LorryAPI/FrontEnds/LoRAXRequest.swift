import LorryEngine
import LorryModel

/// The body of LoRAX's generation routes, read and checked.
struct LoRAXRequest: Sendable {
    enum Route: Sendable {
        case generate
        case generateStream
        /// `POST /`, whose answer stands in an array.
        case compatible
    }

    var fields: GenerationFields
    let route: Route
    let inputs: String
    var showsDetails = false
    /// The prompt's tokens among the details.
    var showsPrefill = false
    /// The prompt goes before the text.
    var showsPrompt = false
    var alternativeCount = 0
    var keptTokenCount: Int?
    /// Nil where the likeliest tokens are taken.
    var seed: Int?

    var logprobCount: Int? {
        let needsLogprobs = showsDetails || fields.streams || fields.candidateCount > 1
        return needsLogprobs ? alternativeCount : nil
    }

    init(
        _ reader: FieldReader, _ parameters: FieldReader, _ route: Route, vocabularySize: Int
    ) throws(APIError) {
        self.route = route
        guard let inputs = try reader.string("inputs"), !inputs.isEmpty else {
            throw .invalid("inputs", "`inputs` cannot be empty")
        }
        self.inputs = inputs
        try parameters.refuse(["watermark"], zeroIsOff: true)
        try Self.check(parameters)
        fields = try GenerationFields(parameters, vocabularySize: vocabularySize)
        fields.includesStopString = true
        fields.streams = route == .generateStream
        fields.maximumTokenCount = try parameters.integer(
            "max_new_tokens", in: 1...Int.max, "strictly positive")
        fields.ignoresEndTokens = try parameters.bool("ignore_eos_token") ?? false
        keptTokenCount = try parameters.integer("truncate", in: 1...Int.max, "strictly positive")
        let alternatives = 1...GenerationFields.maximumLogprobCount
        alternativeCount =
            try parameters.integer(
                "return_k_alternatives", in: alternatives,
                "between 1 and \(alternatives.upperBound)") ?? 0
        showsPrefill = try parameters.bool("decoder_input_details") ?? false
        showsDetails = try parameters.bool("details") ?? false || showsPrefill
        showsPrompt = try parameters.bool("return_full_text") ?? false
        try chooseSampling(parameters)
        try checkStream()
        // All candidates are told, the best first: the answer sorts them.
        fields.answerCount = fields.candidateCount
    }

    /// LoRAX's own bounds, where they are narrower.
    private static func check(_ parameters: FieldReader) throws(APIError) {
        _ = try parameters.integer("top_k", in: 1...Int.max, "strictly positive")
        _ = try parameters.integer("seed", in: 0...Int.max, "at least 0")
        _ = try parameters.string("adapter_source")
        _ = try parameters.string("api_token")
    }

    /// The likeliest token is taken unless the request asks for sampling, by whichever field.
    private mutating func chooseSampling(_ parameters: FieldReader) throws(APIError) {
        let temperature = fields.sampling.temperature
        let filters =
            fields.sampling.topK > 0 || fields.sampling.topP < 1 || fields.sampling.typicalP < 1
        let wanted = try parameters.bool("do_sample") ?? false
        let samples = (wanted || filters || temperature != 1) && temperature != 0
        guard fields.candidateCount == 1 || samples else {
            throw .invalid("parameters.best_of", "you must use sampling when `best_of` is > 1")
        }
        guard samples else {
            fields.sampling.temperature = 0
            return
        }
        guard fields.candidateCount == 1 || fields.sampling.seed == nil else {
            throw .invalid("parameters.seed", "`seed` must not be set when `best_of` > 1")
        }
        // Drawn here, so that the answer can tell it.
        let drawn = Int.random(in: 0...Int.max - GenerationFields.maximumAnswerCount)
        let seed = try parameters.integer("seed") ?? drawn
        fields.sampling.seed = UInt64(seed)
        self.seed = seed
    }

    private func checkStream() throws(APIError) {
        guard fields.streams else { return }
        guard fields.candidateCount == 1 else {
            throw .invalid(
                "parameters.best_of", "`best_of` != 1 is not supported when streaming tokens")
        }
        guard !showsPrefill else {
            throw .invalid(
                "parameters.decoder_input_details",
                "`decoder_input_details` == true is not supported when streaming tokens")
        }
    }
}

// MARK: - Adapters

extension LoRAXRequest {
    /// What LoRAX calls the base model where an adapter is asked for.
    private static let baseModelID = "__base_model__"

    static func choice(_ parameters: FieldReader) throws(APIError) -> ModelSelection.Choice {
        let adapter = try parameters.string("adapter_id")
        guard let merged = try parameters.fields("merged_adapters") else {
            guard let adapter, !adapter.isEmpty, adapter != baseModelID else { return .base }
            return .adapter(adapter)
        }
        guard adapter == nil else {
            throw .invalid(
                "parameters.adapter_id",
                "at most one of `adapter_id` or `merged_adapters` may be provided")
        }
        return .sum(try summands(merged))
    }

    /// A weighted sum of the adapters' updates.
    private static func summands(
        _ merged: FieldReader
    ) throws(APIError) -> [ModelSelection.Summand] {
        let strategy = try merged.string("merge_strategy") ?? "linear"
        guard strategy == "linear" else {
            throw merged.fail("merge_strategy", "'\(strategy)' is not supported: only 'linear' is.")
        }
        var names: [String] = []
        for value in try merged.array("ids") ?? [] {
            guard let name = value.stringValue, !name.isEmpty else {
                throw merged.fail("ids", "must be an array of names.")
            }
            names.append(name)
        }
        guard !names.isEmpty else { throw merged.fail("ids", "must name at least one adapter.") }
        var scales: [Float] = []
        for value in try merged.array("weights") ?? names.map({ _ in .integer(1) }) {
            let largest = ModelSelection.Summand.largestScale
            guard let scale = value.numberValue, abs(scale) <= largest else {
                throw merged.fail(
                    "weights",
                    "must be an array of numbers from \(-Int(largest)) to \(Int(largest)).")
            }
            scales.append(Float(scale))
        }
        guard names.count == scales.count else {
            throw merged.fail("weights", "must be as many as ids, got \(scales.count).")
        }
        let summands = zip(names, scales).map {
            ModelSelection.Summand(adapter: .named($0), scale: $1)
        }
        try ModelSelection.checkCount(of: summands, "parameters.merged_adapters")
        return summands
    }
}
