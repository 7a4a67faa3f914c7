import LorryTensor

/// Finds a row's greatest logits in one pass, without sorting the row. Keeps its memory from one row
/// to the next.
package struct GreatestLogits {
    package struct Entry: Equatable {
        package var logit: Float
        package var id: Int32
    }

    /// What was found, greatest first; equals in the order of their ids.
    package private(set) var entries: [Entry] = []

    package init() {}

    /// Finds the `count` greatest. Infinitely small ones and NaN are never among them.
    ///
    /// - Complexity: O(n + m log count), m being how often a logit exceeds all but `count` of those
    ///   before it: some `count · ln(n / count)` where they are in no order.
    package mutating func find(
        _ count: Int, in row: UnsafeBufferPointer<Float>, level: KernelLevel
    ) {
        entries.removeAll(keepingCapacity: true)
        guard count > 0 else { return }
        var next = 0
        while entries.count < count,
            let index = firstIndex(above: -.infinity, in: row, from: next, level: level)
        {
            entries.append(Entry(logit: row[index], id: Int32(index)))
            next = index + 1
        }
        // The least of them is at the root. A later one that equals it has a greater id.
        entries.makeHeap(by: Self.isLess)
        while entries.count == count,
            let index = firstIndex(above: entries[0].logit, in: row, from: next, level: level)
        {
            entries[0] = Entry(logit: row[index], id: Int32(index))
            entries.siftDown(from: 0, end: count, by: Self.isLess)
            next = index + 1
        }
        entries.sortHeap(by: Self.isLess)
    }

    /// Finds all from `low` up to below `high`.
    package mutating func find(_ range: Range<Float>, in row: UnsafeBufferPointer<Float>) {
        entries.removeAll(keepingCapacity: true)
        for index in row.indices where range.contains(row[index]) {
            entries.append(Entry(logit: row[index], id: Int32(index)))
        }
        entries.makeHeap(by: Self.isLess)
        entries.sortHeap(by: Self.isLess)
    }

    private static func isLess(_ a: Entry, _ b: Entry) -> Bool {
        a.logit == b.logit ? a.id > b.id : a.logit < b.logit
    }
}
