/// Candidates for eviction, the one of least priority first; of equal ones the one that entered
/// first. Candidates are small numbers.
///
/// - Complexity: O(log n) per change.
package struct EvictionQueue {
    package struct Rank: Comparable {
        package var priority: Double
        package var stamp: UInt64

        package init(priority: Double, stamp: UInt64) {
            self.priority = priority
            self.stamp = stamp
        }

        package static func < (a: Rank, b: Rank) -> Bool {
            a.priority == b.priority ? a.stamp < b.stamp : a.priority < b.priority
        }
    }

    private struct Entry {
        var rank: Rank
        var candidate: Int32
    }

    private var heap: [Entry] = []
    /// By candidate: its place in the heap, counted from 1; 0 for none.
    private var places: [Int32]

    package init(candidateCount: Int) { places = [Int32](repeating: 0, count: candidateCount) }

    package var count: Int { heap.count }
    package var first: (candidate: Int, rank: Rank)? {
        heap.first.map { (Int($0.candidate), $0.rank) }
    }

    package func contains(_ candidate: Int) -> Bool {
        candidate < places.count && places[candidate] != 0
    }

    package mutating func insert(_ candidate: Int, _ rank: Rank) {
        if candidate >= places.count {
            places.append(contentsOf: repeatElement(0, count: candidate + 1 - places.count))
        }
        precondition(places[candidate] == 0, "a candidate enters twice")
        heap.append(Entry(rank: rank, candidate: Int32(candidate)))
        siftUp(heap.count - 1)
    }

    /// - Returns: false where it is not in the queue.
    @discardableResult
    package mutating func remove(_ candidate: Int) -> Bool {
        guard contains(candidate) else { return false }
        let place = Int(places[candidate]) - 1
        places[candidate] = 0
        let last = heap.removeLast()
        guard place < heap.count else { return true }
        let removed = heap[place]
        heap[place] = last
        if last.rank < removed.rank { siftUp(place) } else { siftDown(place) }
        return true
    }

    private mutating func siftUp(_ start: Int) {
        let entry = heap[start]
        var place = start
        while place > 0, entry.rank < heap[(place - 1) / 2].rank {
            put(heap[(place - 1) / 2], at: place)
            place = (place - 1) / 2
        }
        put(entry, at: place)
    }

    private mutating func siftDown(_ start: Int) {
        let entry = heap[start]
        var place = start
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].rank < heap[child].rank { child += 1 }
            guard heap[child].rank < entry.rank else { break }
            put(heap[child], at: place)
            place = child
        }
        put(entry, at: place)
    }

    private mutating func put(_ entry: Entry, at place: Int) {
        heap[place] = entry
        places[Int(entry.candidate)] = Int32(place + 1)
    }

    /// - Returns: what is wrong, if anything.
    package func findFault() -> String? {
        for (place, entry) in heap.enumerated() {
            guard places[Int(entry.candidate)] == place + 1 else {
                return "candidate \(entry.candidate) is not where it is noted"
            }
            guard place == 0 || !(entry.rank < heap[(place - 1) / 2].rank) else {
                return "candidate \(entry.candidate) goes before the one above it"
            }
        }
        let noted = places.reduce(0) { $0 + ($1 == 0 ? 0 : 1) }
        return noted == heap.count ? nil : "\(heap.count) candidates, \(noted) noted"
    }
}
