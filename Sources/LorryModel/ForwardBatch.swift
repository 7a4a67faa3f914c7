import LorryTensor

/// The rows of one step: tokens of several sequences, those of one adapter side by side.
public struct ForwardBatch: Sendable {
    /// Consecutive rows that are consecutive positions of one sequence.
    public struct Span: Sendable {
        public var rows: Range<Int>
        /// Position of the first row within its sequence.
        public var startPosition: Int
        /// The sequence's KV blocks in the order of positions; they cover all rows.
        public var blockTable: [Int32]
    }

    /// Consecutive rows that share an adapter. Rows of the base alone are in no segment.
    public struct Segment: Sendable {
        public var rows: Range<Int>
        public var program: AdapterProgram
    }

    public private(set) var tokens: [Int32] = []
    public private(set) var positions: [Int32] = []
    public private(set) var spans: [Span] = []
    public private(set) var segments: [Segment] = []
    /// Rows whose logits are wanted, ascending.
    public private(set) var logitRows: [Int] = []

    public init() {}

    public var rowCount: Int { tokens.count }

    /// Appends rows of one sequence. Sequences with the same adapter must be appended one after the
    /// other, so that they share a segment.
    ///
    /// - Parameters:
    ///   - tokens: at consecutive positions from `startPosition` on.
    ///   - logits: which of these tokens' logits are wanted, as ascending offsets into `tokens`.
    public mutating func append(
        tokens: some Collection<Int32>, startPosition: Int, blockTable: [Int32],
        program: AdapterProgram?, logits: some Sequence<Int>
    ) {
        let rows = rowCount..<rowCount + tokens.count
        precondition(!tokens.isEmpty)
        precondition(
            blockTable.count * KVLayout.blockSize >= startPosition + tokens.count,
            "the block table does not cover the rows")
        self.tokens.append(contentsOf: tokens)
        positions.append(
            contentsOf: (startPosition..<startPosition + tokens.count).map { Int32($0) })
        spans.append(Span(rows: rows, startPosition: startPosition, blockTable: blockTable))
        if let program {
            if let last = segments.last, last.program === program,
                last.rows.upperBound == rows.lowerBound
            {
                segments[segments.count - 1].rows = last.rows.lowerBound..<rows.upperBound
            } else {
                segments.append(Segment(rows: rows, program: program))
            }
        }
        logitRows.append(contentsOf: logits.map { rows.lowerBound + $0 })
    }
}
