/// Merges of a byte-pair model: (left id, right id) → (rank, merged id), with open addressing.
struct MergeTable: Sendable {
    /// What `lookup` answers for a pair that is never merged.
    static let none = UInt64.max

    private var keys: [UInt64]
    private var values: [UInt64]

    init(expectedCount: Int) {
        var capacity = 16
        while capacity < expectedCount * 2 { capacity *= 2 }
        keys = [UInt64](repeating: .max, count: capacity)
        values = [UInt64](repeating: .max, count: capacity)
    }

    @inline(__always)
    private func slot(_ key: UInt64) -> Int {
        let mask = keys.count - 1
        var slot = Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
        while keys[slot] != key && keys[slot] != .max { slot = (slot + 1) & mask }
        return slot
    }

    /// A pair that is listed twice keeps its last rank, as the reference does.
    mutating func insert(left: Int32, right: Int32, rank: Int, merged: Int32) {
        let key = UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
        let slot = slot(key)
        keys[slot] = key
        values[slot] = UInt64(rank) << 32 | UInt64(UInt32(bitPattern: merged))
    }

    /// `rank << 32 | merged id`, or `none`.
    @inline(__always)
    func lookup(_ left: Int32, _ right: Int32) -> UInt64 {
        values[slot(UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right)))]
    }
}
