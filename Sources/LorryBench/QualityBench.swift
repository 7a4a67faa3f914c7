import Foundation
import LorryModel
import LorryTensor

/// Compares what a model predicts in two ways of holding it, token by token over the same text.
///
/// Each window of tokens is computed by itself in one batch; position i predicts token i + 1.
public final class QualityBench {
    /// How predictions differ from the reference's. Natural logarithms; means over all positions.
    public struct Figures: Codable, Sendable, Equatable {
        /// Tokens predicted.
        public var tokens: Int
        /// |log p(next token) − log p_reference(next token)|.
        public var meanDifference: Double
        public var maximumDifference: Double
        /// KL(reference ‖ model) over the whole vocabulary, in nats.
        public var meanDivergence: Double
        /// Share of positions where both think the same token most probable.
        public var topAgreement: Double
        /// exp(−mean log p(next token)).
        public var perplexity: Double
        public var referencePerplexity: Double
    }

    private let reference: Side
    private let model: Side
    private let pool: WorkerPool

    /// - Parameters:
    ///   - reference: the model that counts as right, with f32 keys and values.
    ///   - model: the same model in another format.
    ///   - operands: how `model` holds keys and values; nil takes what its format is served with.
    ///   - windowTokenCount: most tokens of a window.
    /// - Throws: `BenchError` when the models have other vocabularies or too short a context.
    public init(
        reference: DecoderModel, model: DecoderModel, operands: OperandFormat? = nil,
        windowTokenCount: Int, pool: WorkerPool
    ) throws(BenchError) {
        guard
            reference.configuration.vocabularySize == model.configuration.vocabularySize,
            windowTokenCount <= min(reference.contextLength, model.contextLength)
        else { throw BenchError("the models' vocabularies differ, or a window is too long") }
        self.pool = pool
        self.reference = Side(reference, .f32, windowTokenCount, pool)
        self.model = Side(
            model, operands ?? model.format.operandFormat, windowTokenCount, pool)
    }

    /// Computes every window with both models.
    ///
    /// - Parameters:
    ///   - windows: of two tokens or more each, none longer than at init.
    ///   - progress: called with the share of windows done.
    /// - Throws: `BenchError` for a token outside the vocabulary or a window that is too short.
    public func compare(
        _ windows: [[Int32]], progress: (Double) -> Void = { _ in }
    ) throws(BenchError) -> Figures {
        let vocabularySize = reference.model.configuration.vocabularySize
        var total = Sums()
        for (index, window) in windows.enumerated() {
            guard window.count > 1, window.count <= reference.windowTokenCount,
                window.allSatisfy({ $0 >= 0 && $0 < vocabularySize })
            else { throw BenchError("window \(index) is too short, too long, or has no tokens") }
            progress(Double(index) / Double(windows.count))
            total.add(compare(window))
        }
        progress(1)
        guard total.count > 0 else { throw BenchError("the text has no tokens to predict") }
        return total.figures
    }

    /// Tokens that stand for a text where there is none; the same for the same seed.
    public static func randomTokens(count: Int, vocabularySize: Int, seed: UInt64) -> [Int32] {
        var numbers = SeededNumbers(seed: seed)
        return (0..<count).map { _ in
            Int32.random(in: 0..<Int32(vocabularySize), using: &numbers)
        }
    }

    private func compare(_ window: [Int32]) -> Sums {
        reference.run(window)
        model.run(window)
        var total = Sums()
        let rowCount = window.count - 1
        for start in stride(from: 0, to: rowCount, by: ForwardPass.logitTileRowCount) {
            let tile = start..<min(start + ForwardPass.logitTileRowCount, rowCount)
            var sums = [Sums](repeating: Sums(), count: tile.count)
            reference.forward.withLogits(of: tile) { right in
                model.forward.withLogits(of: tile) { other in
                    sums.withUnsafeMutableBufferPointer { sums in
                        // Safe because each task reads its own rows and writes its own sums.
                        nonisolated(unsafe) let sums = sums
                        pool.run(taskCount: sums.count) { row in
                            sums[row] = Sums(
                                reference: UnsafeBufferPointer(right.row(row)),
                                model: UnsafeBufferPointer(other.row(row)),
                                next: Int(window[start + row + 1]))
                        }
                    }
                }
            }
            for row in sums { total.add(row) }
        }
        return total
    }
}

/// One model with its activations and keys and values for one window.
private final class Side {
    let model: DecoderModel
    let forward: ForwardPass
    let windowTokenCount: Int
    private let arena: AlignedBuffer<UInt8>
    private let blockTable: [Int32]

    init(
        _ model: DecoderModel, _ operands: OperandFormat, _ windowTokenCount: Int,
        _ pool: WorkerPool
    ) {
        let configuration = model.configuration
        let layout = KVLayout(
            layerCount: configuration.layerCount, kvHeadCount: configuration.kvHeadCount,
            headDim: configuration.headDim, format: operands)
        self.model = model
        self.windowTokenCount = windowTokenCount
        forward = ForwardPass(
            model: model, kvLayout: layout, maximumRowCount: windowTokenCount, pool: pool)
        let blockCount = (windowTokenCount + KVLayout.blockSize - 1) / KVLayout.blockSize
        arena = AlignedBuffer(count: blockCount * layout.blockByteCount)
        blockTable = (0..<blockCount).map { Int32($0) }
    }

    func run(_ window: [Int32]) {
        var batch = ForwardBatch()
        batch.append(
            tokens: window[...], startPosition: 0, blockTable: blockTable, program: nil,
            logits: window.indices)
        forward.run(batch, arena: UnsafeMutableRawPointer(arena.pointer))
    }
}

/// What adds up to the figures.
private struct Sums {
    var count = 0
    private var difference = 0.0
    private var maximum = 0.0
    private var divergence = 0.0
    private var agreements = 0
    private var logprob = 0.0
    private var referenceLogprob = 0.0

    init() {}

    /// Of one position.
    ///
    /// - Parameter next: the token that follows in the text.
    init(
        reference: UnsafeBufferPointer<Float>, model: UnsafeBufferPointer<Float>, next: Int
    ) {
        let (top, normalizer) = Self.topAndNormalizer(reference)
        let (otherTop, otherNormalizer) = Self.topAndNormalizer(model)
        count = 1
        for index in reference.indices {
            let right = Double(reference[index]) - normalizer
            divergence += exp(right) * (right - (Double(model[index]) - otherNormalizer))
        }
        referenceLogprob = Double(reference[next]) - normalizer
        logprob = Double(model[next]) - otherNormalizer
        difference = abs(logprob - referenceLogprob)
        maximum = difference
        agreements = top == otherTop ? 1 : 0
    }

    mutating func add(_ other: Sums) {
        count += other.count
        difference += other.difference
        maximum = max(maximum, other.maximum)
        divergence += other.divergence
        agreements += other.agreements
        logprob += other.logprob
        referenceLogprob += other.referenceLogprob
    }

    var figures: QualityBench.Figures {
        let count = Double(self.count)
        return QualityBench.Figures(
            tokens: self.count, meanDifference: difference / count, maximumDifference: maximum,
            meanDivergence: divergence / count, topAgreement: Double(agreements) / count,
            perplexity: exp(-logprob / count),
            referencePerplexity: exp(-referenceLogprob / count))
    }

    /// The most probable token, the first of equals, and log Σ exp of the logits.
    private static func topAndNormalizer(
        _ logits: UnsafeBufferPointer<Float>
    ) -> (top: Int, normalizer: Double) {
        var top = 0
        for index in logits.indices where logits[index] > logits[top] { top = index }
        let greatest = Double(logits[top])
        var sum = 0.0
        for logit in logits { sum += exp(Double(logit) - greatest) }
        return (top, greatest + log(sum))
    }
}
