import Foundation
import LorryTensor

/// An adapter that goes into a merge.
public struct MergeInput: Sendable {
    /// For messages.
    public let name: String
    public let directory: URL
    public let checksums: AdapterChecksums?
    public let weight: Double

    public init(name: String, directory: URL, checksums: AdapterChecksums?, weight: Double) {
        self.name = name
        self.directory = directory
        self.checksums = checksums
        self.weight = weight
    }
}

/// Merges LoRA adapters to one, as peft's `LoraModel.add_weighted_adapter` does (0.21), module by
/// module.
///
/// Differences: modules that only some adapters change are merged wherever they are, also where
/// the first adapter's `layers_to_transform` leaves them out; and the result's scale is always 1,
/// where peft keeps `use_rslora` of the first adapter and with it a scale of √r.
public struct AdapterMerge: Sendable {
    private let sources: [LoRAFactorFile]
    private let options: MergeOptions
    private let rank: Int
    /// In the order in which they are merged, each with its rank in the result.
    private let targets: [(module: BaseModule, rank: Int)]
    private let configuration: ModelConfiguration
    private var position = 0
    private var arithmetic: TaskArithmetic

    /// - Throws: `AdapterError` naming the adapter, module or option at fault.
    public init(
        _ inputs: [MergeInput], options: MergeOptions, configuration: ModelConfiguration
    ) throws(AdapterError) {
        guard !inputs.isEmpty else { throw AdapterError(.invalid, "there is nothing to merge") }
        var options = options
        // As peft has it: of one adapter there is nothing to agree on.
        if inputs.count == 1 { options.combination = .linear }
        try options.check()
        var sources: [LoRAFactorFile] = []
        for input in inputs { sources.append(try LoRAFactorFile(input, configuration)) }
        self.sources = sources
        self.options = options
        self.configuration = configuration
        rank = try Self.rank(sources, options)
        let modules = Set(sources.flatMap(\.factors.keys)).sorted { $0.order < $1.order }
        var targets: [(BaseModule, Int)] = []
        for module in modules {
            targets.append(
                (module, try Self.rank(of: module, sources, options, rank, configuration)))
        }
        self.targets = targets
        arithmetic = TaskArithmetic(
            kind: options.combination.arithmetic ?? .sum, density: options.density ?? 1,
            majoritySign: options.majoritySign, random: TorchGenerator(seed: options.seed))
        if arithmetic.kind.isRandom {
            for _ in 0..<initialDrawCount { _ = arithmetic.random.draw() }
        }
    }

    private static func rank(
        _ sources: [LoRAFactorFile], _ options: MergeOptions
    ) throws(AdapterError) -> Int {
        let ranks = sources.map(\.rank)
        let largest = ranks.max() ?? 1
        if options.combination == .cat { return ranks.reduce(0, +) }
        if options.combination.isOfProducts { return options.svdRank ?? largest }
        guard ranks.allSatisfy({ $0 == largest }) else {
            let found = zip(sources, ranks).map { "\($0.name) has \($1)" }
            throw AdapterError(
                .invalid,
                "\(options.combination.rawValue) needs adapters of equal rank: "
                    + found.joined(separator: ", "))
        }
        return largest
    }

    private static func rank(
        of module: BaseModule, _ sources: [LoRAFactorFile], _ options: MergeOptions, _ rank: Int,
        _ configuration: ModelConfiguration
    ) throws(AdapterError) -> Int {
        if options.combination == .cat { return rank }
        if options.combination.isOfProducts {
            let (outFeatures, inFeatures) = configuration.dimensions(of: module)
            guard rank <= min(outFeatures, inFeatures) else {
                throw AdapterError(
                    .invalid,
                    "svd_rank \(rank) is more than \(module.path) has, "
                        + "\(min(outFeatures, inFeatures))")
            }
            return rank
        }
        let ranks = Set(sources.compactMap { $0.factors[module]?.rank })
        guard ranks.count == 1, let own = ranks.first else {
            throw AdapterError(
                .invalid,
                "\(options.combination.rawValue) needs adapters of equal rank, which at "
                    + "\(module.path) is \(ranks.sorted().map(String.init).joined(separator: " or "))"
            )
        }
        return own
    }

    /// How many random numbers peft draws to initialize the new adapter before it merges: A twice
    /// and B once, in the embedding B twice.
    private var initialDrawCount: Int {
        targets.reduce(0) { count, target in
            let (outFeatures, inFeatures) = configuration.dimensions(of: target.module)
            if target.module != .embedding { return count + rank * (2 * inFeatures + outFeatures) }
            return [inFeatures, outFeatures, outFeatures].reduce(count) {
                // Normal numbers come in blocks of 16, of which the last is drawn anew.
                $0 + rank * $1 + (rank * $1 % 16 == 0 ? 0 : 16)
            }
        }
    }

    // MARK: - Files

    /// `adapter_config.json`
    public func configurationFile() throws -> Data {
        let deviating = targets.filter { $0.rank != rank }
        let pattern = Dictionary(uniqueKeysWithValues: deviating.map { ($0.module.path, $0.rank) })
        let object: [String: Any] = [
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank,
            "rank_pattern": pattern, "alpha_pattern": pattern, "target_modules": targetNames,
            "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "init_lora_weights": true, "lora_bias": false, "lora_dropout": 0.0,
            "use_dora": false, "use_rslora": false,
            "base_model_name_or_path": sources[0].baseModelName ?? NSNull() as Any,
        ]
        var json = try JSONSerialization.data(
            withJSONObject: object, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
        json.append(UInt8(ascii: "\n"))
        return json
    }

    /// Short where all layers have the module, else paths.
    private var targetNames: [String] {
        Dictionary(grouping: targets.map(\.module), by: \.name).flatMap { name, modules in
            let isEverywhere = modules.count == configuration.layerCount || !modules[0].isLayer
            return isEverywhere ? [name] : modules.map(\.path)
        }.sorted()
    }

    /// What `adapter_model.safetensors` begins with; what `next` gives follows.
    public func weightsHeader() throws -> Data {
        try SafetensorsHeader(
            targets.flatMap { module, rank in
                let (outFeatures, inFeatures) = configuration.dimensions(of: module)
                let names = LoRAFactorFile.names(of: module)
                return [
                    Self.entry(names.down, [rank, inFeatures]),
                    Self.entry(names.up, [outFeatures, rank]),
                ]
            }
        ).encoded()
    }

    private static func entry(_ name: String, _ shape: [Int]) -> SafetensorsHeader.Entry {
        .init(
            name: name, type: "F32", shape: shape,
            byteCount: shape.reduce(MemoryLayout<Float>.size, *))
    }

    /// Merges the next module.
    ///
    /// - Returns: the bytes of its A and B; nil when there is none left.
    public mutating func next() throws(AdapterError) -> [UInt8]? {
        guard position < targets.count else { return nil }
        let (module, rank) = targets[position]
        position += 1
        let factors = try merged(module, rank)
        guard factors.down.allSatisfy(\.isFinite), factors.up.allSatisfy(\.isFinite) else {
            throw AdapterError(
                .invalid, "\(module.path): the merged numbers are not finite: weights are too large"
            )
        }
        return (factors.down + factors.up).withUnsafeBytes { Array($0) }
    }

    // MARK: - Arithmetic

    private mutating func merged(
        _ module: BaseModule, _ rank: Int
    ) throws(AdapterError) -> (down: [Float], up: [Float]) {
        let parts = sources.compactMap { source in
            source.factors[module].map { (factors: $0, weight: source.weight) }
        }
        if options.combination == .cat { return stacked(parts, module) }
        guard options.combination.isOfProducts else {
            let scales = parts.map { $0.weight * Double($0.factors.scale) }
            let roots = scales.map { Float($0.magnitude.squareRoot()) }
            let signed = zip(roots, scales).map { $1 >= 0 ? $0 : -$0 }
            let down = arithmetic.merge(parts.map { $0.factors.down.floats() }, weights: signed)
            let up = arithmetic.merge(parts.map { $0.factors.up.floats() }, weights: roots)
            return (down, up)
        }
        return try decomposed(parts, module, rank)
    }

    private typealias Part = (factors: LoRAFactorFile.Factors, weight: Double)

    /// A of all under each other, B side by side; zeros where not all adapters have the module.
    private func stacked(_ parts: [Part], _ module: BaseModule) -> (down: [Float], up: [Float]) {
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        var down: [Float] = []
        var up = [Float](repeating: 0, count: outFeatures * rank)
        var start = 0
        for (factors, weight) in parts {
            let scale = Float(weight * Double(factors.scale))
            down += factors.down.floats().map { $0 * scale }
            let floats = factors.up.floats()
            for row in 0..<outFeatures {
                for column in 0..<factors.rank {
                    up[row * rank + start + column] = floats[row * factors.rank + column]
                }
            }
            start += factors.rank
        }
        down += [Float](repeating: 0, count: rank * inFeatures - down.count)
        return (down, up)
    }

    /// The nearest product of the rank to the merged products.
    private mutating func decomposed(
        _ parts: [Part], _ module: BaseModule, _ rank: Int
    ) throws(AdapterError) -> (down: [Float], up: [Float]) {
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        let weights = parts.map { Float($0.weight) }
        let innerRank = parts.reduce(0) { $0 + $1.factors.rank }
        let decomposition = RankReduction(
            outFeatures: outFeatures, inFeatures: inFeatures, rank: rank, clamp: options.svdClamp)
        // A quantile would see the singular vectors of zeros, which a sum of factors lacks.
        let isSumOfFactors =
            options.combination == .svd && 2 * innerRank <= min(outFeatures, inFeatures)
            && (options.svdClamp == nil || rank <= innerRank)
        do throws(DenseAlgebra.Failure) {
            if isSumOfFactors {
                return try decomposition.factors(
                    of: parts.map {
                        .init(
                            rank: $0.factors.rank, down: $0.factors.down.floats(),
                            up: $0.factors.up.floats(),
                            scale: Float($0.weight) * $0.factors.scale)
                    })
            }
            let products = parts.map { part in
                DenseAlgebra.product(
                    .init(part.factors.up.floats()), .init(part.factors.down.floats()),
                    m: outFeatures, n: inFeatures, k: part.factors.rank
                ).map { $0 * part.factors.scale }
            }
            return try decomposition.factors(of: arithmetic.merge(products, weights: weights))
        } catch {
            throw AdapterError(.invalid, "\(module.path): \(error)")
        }
    }
}

extension BaseModule {
    fileprivate var isLayer: Bool {
        if case .linear = self { true } else { false }
    }
}
