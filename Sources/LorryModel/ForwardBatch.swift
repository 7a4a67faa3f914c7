import LorryTensor

/// The rows of one step: tokens of several sequences, those of one adapter side by side. Kept from
/// step to step and refilled, so that its arrays keep their memory.
public struct ForwardBatch: Sendable {
    /// Consecutive rows that are consecutive positions of one sequence.
    public struct Span: Sendable {
        public var rows: Range<Int>
        /// Position of the first row within its sequence.
        public var startPosition: Int
        /// Where `blockTables` has the sequence's KV blocks in the order of positions; they cover
        /// all rows.
        public var blocks: Range<Int>
    }

    /// Consecutive rows that share an adapter. Rows of the base alone are in no segment.
    public struct Segment: Sendable {
        public var rows: Range<Int>
        public var program: AdapterProgram
    }

    public private(set) var tokens: [Int32] = []
    public private(set) var positions: [Int32] = []
    public private(set) var spans: [Span] = []
    /// The block tables of all spans, one after another.
    public private(set) var blockTables: [Int32] = []
    public private(set) var segments: [Segment] = []
    /// Rows whose logits are wanted, ascending.
    public private(set) var logitRows: [Int] = []

    public init() {}

    public var rowCount: Int { tokens.count }

    /// Removes all rows, and lets go of their adapter programs.
    public mutating func clear() {
        tokens.removeAll(keepingCapacity: true)
        positions.removeAll(keepingCapacity: true)
        spans.removeAll(keepingCapacity: true)
        blockTables.removeAll(keepingCapacity: true)
        segments.removeAll(keepingCapacity: true)
        logitRows.removeAll(keepingCapacity: true)
    }

    /// Appends rows of one sequence. Sequences with the same adapter must be appended one after the
    /// other, so that they share a segment.
    ///
    /// - Parameters:
    ///   - tokens: at consecutive positions from `startPosition` on.
    ///   - logits: which of these tokens' logits are wanted, as offsets from the first.
    public mutating func append(
        tokens: ArraySlice<Int32>, startPosition: Int, blockTable: [Int32],
        program: AdapterProgram?, logits: Range<Int>
    ) {
        let rows = rowCount..<rowCount + tokens.count
        precondition(!tokens.isEmpty)
        precondition(
            blockTable.count * KVLayout.blockSize >= startPosition + tokens.count,
            "the block table does not cover the rows")
        precondition(
            logits.lowerBound >= 0 && logits.upperBound <= tokens.count, "logits of no row")
        self.tokens.append(contentsOf: tokens)
        for position in startPosition..<startPosition + tokens.count {
            positions.append(Int32(position))
        }
        let blocks = blockTables.count..<blockTables.count + blockTable.count
        blockTables.append(contentsOf: blockTable)
        spans.append(Span(rows: rows, startPosition: startPosition, blocks: blocks))
        if let program {
            if let last = segments.last, last.program === program,
                last.rows.upperBound == rows.lowerBound
            {
                segments[segments.count - 1].rows = last.rows.lowerBound..<rows.upperBound
            } else {
                segments.append(Segment(rows: rows, program: program))
            }
        }
        for offset in logits { logitRows.append(rows.lowerBound + offset) }
    }
}
