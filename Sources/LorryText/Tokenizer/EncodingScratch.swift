/// Working memory of one encoding call, reused by later calls.
struct EncodingScratch: Sendable {
    static let removed: Int32 = -1

    var symbols: [Int32] = []
    var pairs: [UInt64] = []
    var next: [Int32] = []
    var previous: [Int32] = []
    var cache = WordCache()
    private var heap: [UInt64] = []

    mutating func prepareLinks(_ count: Int) {
        pairs.removeAll(keepingCapacity: true)
        next.removeAll(keepingCapacity: true)
        previous.removeAll(keepingCapacity: true)
        heap.removeAll(keepingCapacity: true)
        for index in 0..<count {
            pairs.append(MergeTable.none)
            next.append(Int32(index + 1))
            previous.append(Int32(index - 1))
        }
    }

    /// Gives back the memory of an unusually long text.
    mutating func trim() {
        let limit = 1 << 16
        if symbols.capacity > limit { symbols = [] }
        if pairs.capacity > limit {
            (pairs, next, previous, heap) = ([], [], [], [])
        }
    }

    mutating func push(_ entry: UInt64) {
        heap.append(entry)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            if heap[parent] <= entry { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = entry
    }

    mutating func pop() -> UInt64? {
        guard let top = heap.first, let last = heap.popLast() else { return nil }
        if heap.isEmpty { return top }
        var parent = 0
        while true {
            var child = parent * 2 + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
            if heap[child] >= last { break }
            heap[parent] = heap[child]
            parent = child
        }
        heap[parent] = last
        return top
    }
}

/// Remembers the ids of short words. Direct-mapped and of fixed size: a word that falls on a taken
/// place evicts it, so text cannot make it grow or degrade it below one comparison.
struct WordCache: Sendable {
    private static let placeCount = 1 << 14
    private static let keyLimit = 32
    private static let idLimit = 8

    private var keys: [UInt8] = []
    private var keyLengths: [UInt8] = []
    private var ids: [Int32] = []
    private var idCounts: [UInt8] = []

    @inline(__always)
    private static func place(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int {
        Int(truncatingIfNeeded: Vocabulary.hash(bytes, start, end) >> 24) & (placeCount - 1)
    }

    /// Appends the remembered ids; false when the word is not here.
    @inline(__always)
    func append(_ bytes: [UInt8], _ start: Int, _ end: Int, to output: inout [Int32]) -> Bool {
        let length = end - start
        guard length <= Self.keyLimit, !keys.isEmpty else { return false }
        let place = Self.place(bytes, start, end)
        guard Int(keyLengths[place]) == length else { return false }
        let key = place * Self.keyLimit
        for offset in 0..<length where keys[key + offset] != bytes[start + offset] { return false }
        for offset in 0..<Int(idCounts[place]) {
            output.append(ids[place * Self.idLimit + offset])
        }
        return true
    }

    mutating func store(
        _ bytes: [UInt8], _ start: Int, _ end: Int, ids newIDs: [Int32], from first: Int
    ) {
        let length = end - start
        let count = newIDs.count - first
        guard length <= Self.keyLimit, count <= Self.idLimit else { return }
        if keys.isEmpty {
            keys = [UInt8](repeating: 0, count: Self.placeCount * Self.keyLimit)
            keyLengths = [UInt8](repeating: 0, count: Self.placeCount)
            ids = [Int32](repeating: 0, count: Self.placeCount * Self.idLimit)
            idCounts = [UInt8](repeating: 0, count: Self.placeCount)
        }
        let place = Self.place(bytes, start, end)
        for offset in 0..<length { keys[place * Self.keyLimit + offset] = bytes[start + offset] }
        for offset in 0..<count { ids[place * Self.idLimit + offset] = newIDs[first + offset] }
        keyLengths[place] = UInt8(length)
        idCounts[place] = UInt8(count)
    }
}
