/// Which deadlines come first. Sequences that have ended stay until their deadline passes.
struct DeadlineQueue {
    private struct Entry {
        let id: SequenceID
        let deadline: ContinuousClock.Instant
    }

    /// A binary heap.
    private var entries: [Entry] = []

    /// - Complexity: O(log n).
    mutating func insert(_ id: SequenceID, _ deadline: ContinuousClock.Instant) {
        entries.append(Entry(id: id, deadline: deadline))
        var index = entries.count - 1
        while index > 0, Self.precedes(entries[index], entries[(index - 1) / 2]) {
            entries.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    /// Takes out a sequence whose deadline is not after `now`.
    ///
    /// - Complexity: O(log n).
    mutating func popFirst(upTo now: ContinuousClock.Instant) -> SequenceID? {
        guard let first = entries.first, first.deadline <= now else { return nil }
        entries.swapAt(0, entries.count - 1)
        entries.removeLast()
        entries.siftDown(from: 0, end: entries.count, by: Self.precedes)
        return first.id
    }

    private static func precedes(_ a: Entry, _ b: Entry) -> Bool {
        a.deadline == b.deadline ? a.id < b.id : a.deadline < b.deadline
    }
}
