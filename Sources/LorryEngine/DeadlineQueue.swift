/// Which deadlines come first. Sequences that have ended stay until their deadline passes, or until
/// they are most of the queue.
package struct DeadlineQueue {
    private struct Entry {
        let id: SequenceID
        let deadline: ContinuousClock.Instant
    }

    /// A binary heap.
    private var entries: [Entry] = []

    package init() {}

    package var count: Int { entries.count }
    package var first: ContinuousClock.Instant? { entries.first?.deadline }

    /// Forgets the sequences that have ended.
    ///
    /// - Complexity: O(n).
    package mutating func keep(_ isLive: (SequenceID) -> Bool) {
        let live = entries.filter { isLive($0.id) }
        entries.removeAll(keepingCapacity: true)
        for entry in live { insert(entry.id, entry.deadline) }
    }

    /// - Complexity: O(log n).
    package mutating func insert(_ id: SequenceID, _ deadline: ContinuousClock.Instant) {
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
    package mutating func popFirst(upTo now: ContinuousClock.Instant) -> SequenceID? {
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
