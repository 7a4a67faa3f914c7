/// Tokens of a model as bytes, with their ids: an open-addressing hash table over one byte arena.
///
/// Swift's `String` compares by canonical equivalence, which would confuse tokens that differ in
/// normalization only; bytes do not.
struct Vocabulary: Sendable {
    /// Larger ids are refused: the id table is dense.
    static let maximumID = 1 << 24

    private var arena: [UInt8] = []
    private var ends: [Int32] = []
    private var ids: [Int32] = []
    private var slots: [Int32] = [Int32](repeating: -1, count: 1024)
    private var entryOfID: [Int32] = []

    /// The number of distinct tokens.
    var count: Int { ids.count }
    /// One more than the largest id.
    var idLimit: Int { entryOfID.count }

    @inline(__always)
    static func hash(_ bytes: [UInt8], _ start: Int, _ end: Int) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        var index = start
        while index < end {
            hash = (hash ^ UInt64(bytes[index])) &* 0x0000_0100_0000_01B3
            index += 1
        }
        hash ^= hash >> 32
        return hash &* 0x9E37_79B9_7F4A_7C15
    }

    /// The slot that holds the token, or the free slot where it belongs.
    private func slot(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Int {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: Self.hash(bytes, start, end) >> 24) & mask
        while true {
            let entry = Int(slots[slot])
            if entry < 0 { return slot }
            let low = entry == 0 ? 0 : Int(ends[entry - 1])
            if Int(ends[entry]) - low == end - start {
                var offset = 0
                while offset < end - start, arena[low + offset] == bytes[start + offset] {
                    offset += 1
                }
                if offset == end - start { return slot }
            }
            slot = (slot + 1) & mask
        }
    }

    /// Adds a token, or gives an existing one another id.
    mutating func insert(_ token: [UInt8], id: Int) throws(TokenizerError) {
        guard id >= 0, id < Self.maximumID, arena.count < Int(Int32.max) - token.count else {
            throw .invalid("tokenizer.json: token id \(id) is out of range")
        }
        if ids.count * 2 >= slots.count { grow() }
        let slot = slot(token, 0, token.count)
        let entry: Int
        if slots[slot] >= 0 {
            entry = Int(slots[slot])
            ids[entry] = Int32(id)
        } else {
            entry = ids.count
            arena.append(contentsOf: token)
            ends.append(Int32(arena.count))
            ids.append(Int32(id))
            slots[slot] = Int32(entry)
        }
        while entryOfID.count <= id { entryOfID.append(-1) }
        entryOfID[id] = Int32(entry)
    }

    private mutating func grow() {
        slots = [Int32](repeating: -1, count: slots.count * 4)
        for entry in ids.indices {
            let low = entry == 0 ? 0 : Int(ends[entry - 1])
            let mask = slots.count - 1
            let hash = Self.hash(arena, low, Int(ends[entry]))
            var slot = Int(truncatingIfNeeded: hash >> 24) & mask
            while slots[slot] >= 0 { slot = (slot + 1) & mask }
            slots[slot] = Int32(entry)
        }
    }

    /// The id of `bytes[start..<end]`, or -1.
    @inline(__always)
    func id(of bytes: [UInt8], _ start: Int, _ end: Int) -> Int32 {
        let entry = slots[slot(bytes, start, end)]
        return entry < 0 ? -1 : ids[Int(entry)]
    }

    func id(of bytes: [UInt8]) -> Int32? {
        let id = id(of: bytes, 0, bytes.count)
        return id < 0 ? nil : id
    }

    func bytes(of id: Int) -> ArraySlice<UInt8>? {
        guard id >= 0, id < entryOfID.count, entryOfID[id] >= 0 else { return nil }
        let entry = Int(entryOfID[id])
        return arena[(entry == 0 ? 0 : Int(ends[entry - 1]))..<Int(ends[entry])]
    }
}
