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

        public init(sequence: Int, start: Int, count: Int) {
            self.sequence = sequence
            self.start = start
            self.count = count
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
    public var layerParameterCount: Int
    public var headParameterCount: Int
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
        layerByteCount: Int, headByteCount: Int, layerParameterCount: Int,
        headParameterCount: Int, weightArithmetic: Arithmetic, adapterArithmetic: Arithmetic,
        attentionArithmetic: Arithmetic, positionByteCount: Int, queryWidth: Int, windows: [Int?]
    ) {
        self.layerByteCount = layerByteCount
        self.headByteCount = headByteCount
        self.layerParameterCount = layerParameterCount
        self.headParameterCount = headParameterCount
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
            layerParameterCount: model.layerParameterCount,
            headParameterCount: model.headParameterCount,
            weightArithmetic: model.format.arithmetic,
            adapterArithmetic: formats.adapters.arithmetic,
            attentionArithmetic: formats.kv.arithmetic,
            positionByteCount: 2 * configuration.kvWidth * formats.kv.byteCount
                + 2 * configuration.kvHeadCount * formats.kv.scaleByteCount,
            queryWidth: configuration.queryWidth, windows: configuration.slidingWindows)
    }

    /// The work of one step.
    ///
    /// - Parameters:
    ///   - logitRowCount: rows whose logits are computed.
    ///   - assignment: which of `adapters` each span has; empty for the base alone. Spans with equal
    ///     numbers share an adapter, whose bytes are read once.
    public func work(
        _ spans: [Span], logitRowCount: Int, assignment: [Int] = [], adapters: [Adapter] = []
    ) -> Work {
        let rowCount = spans.reduce(0) { $0 + $1.count }
        var work = Work(byteCount: Double(layerByteCount + (logitRowCount > 0 ? headByteCount : 0)))
        work.add(
            2 * Double(layerParameterCount) * Double(rowCount)
                + 2 * Double(headParameterCount) * Double(logitRowCount), weightArithmetic)
        for window in windows {
            for span in spans { add(span, window: window, to: &work) }
        }
        var read: Set<Int> = []
        for span in spans where span.sequence < assignment.count {
            let adapter = adapters[assignment[span.sequence]]
            work.add(2 * Double(adapter.parameterCount) * Double(span.count), adapterArithmetic)
            if read.insert(assignment[span.sequence]).inserted {
                work.byteCount += Double(adapter.byteCount)
            }
        }
        return work
    }

    /// One layer's attention: q · k and p · v, two operations per element each, for every pair of a
    /// row and a position that it sees.
    private func add(_ span: Span, window: Int?, to work: inout Work) {
        let end = span.start + span.count
        let window = window ?? Int.max
        // The rows that see all positions before them, then those that see a full window.
        let growing = max(0, min(end, window) - span.start)
        let first = span.start + 1
        let pairs =
            growing * (first + first + growing - 1) / 2
            + (growing < span.count ? (span.count - growing) * window : 0)
        let seen = end - max(0, window == Int.max ? 0 : first - window)
        work.add(4 * Double(queryWidth) * Double(pairs), attentionArithmetic)
        work.byteCount += Double(seen * positionByteCount)
    }

    /// Cuts prompts of equal length, computed one after the other, into the spans of each step.
    ///
    /// - Parameter tokenCounts: prompt tokens that each step computed.
    /// - Returns: per step its spans, and how many prompts end in it.
    public static func prefillSpans(
        tokenCounts: [Int], promptTokenCount: Int, sequenceCount: Int
    ) -> [(spans: [Span], endCount: Int)] {
        var sequence = 0
        var position = 0
        return tokenCounts.map { tokenCount in
            var remaining = tokenCount
            var spans: [Span] = []
            var endCount = 0
            while remaining > 0, sequence < sequenceCount {
                let count = min(remaining, promptTokenCount - position)
                spans.append(Span(sequence: sequence, start: position, count: count))
                remaining -= count
                position += count
                if position == promptTokenCount {
                    endCount += 1
                    sequence += 1
                    position = 0
                }
            }
            return (spans, endCount)
        }
    }
}
