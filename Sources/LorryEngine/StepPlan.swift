/// What the next step computes. Kept from step to step, so that its arrays keep their memory.
package struct StepPlan {
    package struct Entry {
        package let sequence: TokenSequence
        /// Which of the sequence's tokens.
        package let range: Range<Int>
        /// Whether they are its last, so that the next token can be sampled.
        package var reachesEnd: Bool { range.upperBound == sequence.tokens.count }
    }
    /// Entries with the same adapter side by side, those of the base first.
    package var entries: [Entry] = []
    /// Sequences that lost their blocks to others, and wait again.
    package var preempted: [TokenSequence] = []

    package init() {}

    package var tokenCount: Int { entries.reduce(0) { $0 + $1.range.count } }

    /// Forgets everything; what the sequences hold may be released.
    package mutating func clear() {
        entries.removeAll(keepingCapacity: true)
        preempted.removeAll(keepingCapacity: true)
    }

    /// Puts an entry in its place. Takes no memory beside the array's own, as a sort would.
    mutating func insert(_ entry: Entry) {
        var index = entries.count
        while index > 0, Self.precedes(entry.sequence, entries[index - 1].sequence) { index -= 1 }
        entries.insert(entry, at: index)
    }

    private static func precedes(_ a: TokenSequence, _ b: TokenSequence) -> Bool {
        let (x, y) = (a.adapterID?.digest ?? "", b.adapterID?.digest ?? "")
        return x == y ? a.id < b.id : x < y
    }

    /// - Returns: the tokens that were planned for the sequence.
    mutating func remove(_ sequence: TokenSequence) -> Int {
        guard let index = entries.firstIndex(where: { $0.sequence === sequence }) else { return 0 }
        return entries.remove(at: index).range.count
    }
}
