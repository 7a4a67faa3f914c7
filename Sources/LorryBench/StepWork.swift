import LorryModel
import LorryTensor

/// What a step of a model must read and compute at least.
public struct StepWork: Sendable {
    /// Consecutive positions of one sequence that a step computes.
    public struct Span: Sendable, Equatable {
        /// The sequence's place in the batch.
        public var sequence: Int
        public var start: Int
        public var count: Int
        /// The last of these whose logits are computed.
        public var logitCount: Int

        public init(sequence: Int, start: Int, count: Int, logitCount: Int) {
            self.sequence = sequence
            self.start = start
            self.count = count
            self.logitCount = logitCount
        }
    }

    /// An adapter's operands.
    public struct Adapter: Sendable, Equatable {
        public var byteCount: Int
        public var parameterCount: Int

        public init(byteCount: Int, parameterCount: Int) {
            self.byteCount = byteCount
            self.parameterCount = parameterCount
        }
    }

    public var layerByteCount: Int
    public var headByteCount: Int
    /// Of the layers' bytes, those that only rows with logits meet.
    public var tailByteCount: Int
    public var layerParameterCount: Int
    public var headParameterCount: Int
    public var tailParameterCount: Int
    public var weightArithmetic: Arithmetic
    public var adapterArithmetic: Arithmetic
    public var attentionArithmetic: Arithmetic
    /// Bytes of one position's keys and values in one layer.
    public var positionByteCount: Int
    /// Width of all query heads side by side.
    public var queryWidth: Int
    /// Per layer, how many positions a row sees, itself included; nil sees all.
    public var windows: [Int?]

    public init(
        layerByteCount: Int, headByteCount: Int, tailByteCount: Int, layerParameterCount: Int,
        headParameterCount: Int, tailParameterCount: Int, weightArithmetic: Arithmetic,
        adapterArithmetic: Arithmetic, attentionArithmetic: Arithmetic, positionByteCount: Int,
        queryWidth: Int, windows: [Int?]
    ) {
        self.layerByteCount = layerByteCount
        self.headByteCount = headByteCount
        self.tailByteCount = tailByteCount
        self.layerParameterCount = layerParameterCount
        self.headParameterCount = headParameterCount
        self.tailParameterCount = tailParameterCount
        self.weightArithmetic = weightArithmetic
        self.adapterArithmetic = adapterArithmetic
        self.attentionArithmetic = attentionArithmetic
        self.positionByteCount = positionByteCount
        self.queryWidth = queryWidth
        self.windows = windows
    }

    /// - Parameter formats: how adapters, keys and values are held.
    public init(model: DecoderModel, formats: EngineBench.OperandFormats) {
        let configuration = model.configuration
        self.init(
            layerByteCount: model.layerByteCount, headByteCount: model.headByteCount,
            tailByteCount: model.tailByteCount, layerParameterCount: model.layerParameterCount,
            headParameterCount: model.headParameterCount,
            tailParameterCount: model.tailParameterCount,
            weightArithmetic: model.format.arithmetic,
            adapterArithmetic: formats.adapters.arithmetic,
            attentionArithmetic: formats.kv.arithmetic,
            positionByteCount: 2 * configuration.kvWidth * formats.kv.byteCount
                + 2 * configuration.kvHeadCount * formats.kv.scaleByteCount,
            queryWidth: configuration.queryWidth, windows: configuration.slidingWindows)
    }

    /// The work of one step. An adapter's parameters are taken to be spread over the layers as the
    /// base's.
    ///
    /// - Parameters:
    ///   - assignment: which of `adapters` each sequence has; nil, or none at its place, for the
    ///     base alone. Spans with equal numbers share an adapter, whose bytes are read once.
    public func work(_ spans: [Span], assignment: [Int?] = [], adapters: [Adapter] = []) -> Work {
        let rowCount = spans.reduce(0) { $0 + $1.count }
        let logitCount = spans.reduce(0) { $0 + $1.logitCount }
        let endByteCount = logitCount > 0 ? headByteCount : -tailByteCount
        var work = Work(byteCount: Double(layerByteCount + endByteCount))
        let bodyParameterCount = layerParameterCount - tailParameterCount
        work.add(
            2 * Double(bodyParameterCount) * Double(rowCount)
                + 2 * Double(tailParameterCount + headParameterCount) * Double(logitCount),
            weightArithmetic)
        var (pairCount, seenCount) = (0, 0)
        for (layer, window) in windows.enumerated() {
            for span in spans {
                let attention = attention(of: span, window: window, layer: layer)
                pairCount += attention.pairCount
                seenCount += attention.seenCount
            }
        }
        // q · k and p · v, two operations per element each.
        work.add(4 * Double(queryWidth) * Double(pairCount), attentionArithmetic)
        work.byteCount += Double(seenCount * positionByteCount)
        let tailShare = Double(tailParameterCount) / Double(max(layerParameterCount, 1))
        var read: Set<Int> = []
        for span in spans where span.sequence < assignment.count {
            guard let number = assignment[span.sequence] else { continue }
            let adapter = adapters[number]
            let rows = Double(span.count) - tailShare * Double(span.count - span.logitCount)
            work.add(2 * Double(adapter.parameterCount) * rows, adapterArithmetic)
            if read.insert(number).inserted {
                work.byteCount += Double(adapter.byteCount)
            }
        }
        return work
    }

    /// One layer's attention: pairs of a row and a position that it sees, and the positions that
    /// any row sees.
    private func attention(
        of span: Span, window: Int?, layer: Int
    ) -> (pairCount: Int, seenCount: Int) {
        let end = span.start + span.count
        let count = layer == windows.count - 1 ? span.logitCount : span.count
        guard count > 0 else { return (0, 0) }
        let start = end - count
        let window = window ?? Int.max
        // The rows that see all positions before them, then those that see a full window.
        let growing = max(0, min(end, window) - start)
        let first = start + 1
        let pairs =
            growing * (first + first + growing - 1) / 2
            + (growing < count ? (count - growing) * window : 0)
        let seen = end - max(0, window == Int.max ? 0 : first - window)
        return (pairs, seen)
    }

    /// Cuts prompts of equal length, computed one after the other, into the spans of each step.
    ///
    /// - Parameter tokenCounts: prompt tokens that each step computed.
    /// - Returns: the spans of each step; where a prompt ends, its last token has logits.
    public static func prefillSpans(
        tokenCounts: [Int], promptTokenCount: Int, sequenceCount: Int
    ) -> [[Span]] {
        var sequence = 0
        var position = 0
        return tokenCounts.map { tokenCount in
            var remaining = tokenCount
            var spans: [Span] = []
            while remaining > 0, sequence < sequenceCount {
                let count = min(remaining, promptTokenCount - position)
                let ends = position + count == promptTokenCount
                spans.append(
                    Span(
                        sequence: sequence, start: position, count: count,
                        logitCount: ends ? 1 : 0))
                remaining -= count
                position = ends ? 0 : position + count
                if ends { sequence += 1 }
            }
            return spans
        }
    }
}
