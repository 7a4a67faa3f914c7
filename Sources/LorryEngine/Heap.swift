/// A binary heap at the start of an array: sorting and selecting in the array's own memory.
///
/// `precedes` says which of two elements is nearer to the root; it must be a total order where
/// results are to depend on it.
extension Array {
    /// Makes a heap of all elements.
    ///
    /// - Complexity: O(n).
    mutating func makeHeap(by precedes: (Element, Element) -> Bool) {
        for start in stride(from: count / 2 - 1, through: 0, by: -1) {
            siftDown(from: start, end: count, by: precedes)
        }
    }

    /// Restores the heap of the first `end` elements after the one at `start` has changed.
    mutating func siftDown(
        from start: Int, end: Int, by precedes: (Element, Element) -> Bool
    ) {
        var parent = start
        while true {
            var child = 2 * parent + 1
            guard child < end else { return }
            if child + 1 < end, precedes(self[child + 1], self[child]) { child += 1 }
            guard precedes(self[child], self[parent]) else { return }
            swapAt(parent, child)
            parent = child
        }
    }

    /// Turns a heap into a sorted array, its root the last.
    ///
    /// - Complexity: O(n log n).
    mutating func sortHeap(by precedes: (Element, Element) -> Bool) {
        for end in stride(from: count - 1, to: 0, by: -1) {
            swapAt(0, end)
            siftDown(from: 0, end: end, by: precedes)
        }
    }
}
