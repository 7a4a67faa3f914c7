/// Element types that are written.
public enum SynthElementType: String, Sendable, CaseIterable {
    case bf16, f32

    var byteCount: Int { self == .bf16 ? 2 : 4 }
    var safetensorsName: String { self == .bf16 ? "BF16" : "F32" }
}

/// A tensor that is computed while it is written.
package struct TensorSpec: Sendable {
    package enum Fill: Sendable {
        case constant(Float)
        /// Normally distributed around 0.
        case normal(deviation: Float)
        /// Normally distributed around a middle.
        case around(Float, deviation: Float)
        /// Evenly distributed in `-bound...bound`.
        case uniform(bound: Float)
    }

    let name: String
    let shape: [Int]
    let type: SynthElementType
    let fill: Fill

    package init(name: String, shape: [Int], type: SynthElementType, fill: Fill) {
        self.name = name
        self.shape = shape
        self.type = type
        self.fill = fill
    }

    var elementCount: Int { shape.reduce(1, *) }
    var byteCount: Int { elementCount * type.byteCount }

    /// The little-endian bytes of some of the elements. Element i depends on the seed, the tensor's
    /// name and i only, so that chunks can be made in any order and by any thread.
    package func bytes(of elements: Range<Int>, seed: UInt64) -> [UInt8] {
        switch fill {
        case .constant(let value):
            return encode(elements) { _ in value }
        case .normal(let deviation):
            return normal(elements, seed: seed, middle: 0, deviation)
        case .around(let middle, let deviation):
            return normal(elements, seed: seed, middle: middle, deviation)
        case .uniform(let bound):
            let random = CounterRandom(seed: seed, stream: name)
            let scale = bound / Float(1 << 23)
            return encode(elements) { index in
                Float(Int32(truncatingIfNeeded: random[index] >> 40) - (1 << 23)) * scale
            }
        }
    }

    private func normal(
        _ elements: Range<Int>, seed: UInt64, middle: Float, _ deviation: Float
    ) -> [UInt8] {
        // The sum of four independent 16-bit numbers (Irwin-Hall) has variance 4/12 · 2^32 and
        // is close to normal up to its ends at 3.5 standard deviations.
        let random = CounterRandom(seed: seed, stream: name)
        let scale = deviation / (65536 * (Float(1) / 3).squareRoot())
        return encode(elements) { index in
            let bits = random[index]
            let sum =
                (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48)
            return middle + Float(Int32(truncatingIfNeeded: sum) - 2 * 65535) * scale
        }
    }

    @inline(__always)
    private func encode(_ elements: Range<Int>, _ value: (Int) -> Float) -> [UInt8] {
        let byteCount = elements.count * type.byteCount
        // Safe because each branch stores exactly `byteCount` bytes into that capacity.
        return [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, initializedCount in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            switch type {
            case .bf16:
                for (position, index) in elements.enumerated() {
                    raw.storeBytes(
                        of: Self.bfloat16(value(index)).littleEndian, toByteOffset: position * 2,
                        as: UInt16.self)
                }
            case .f32:
                for (position, index) in elements.enumerated() {
                    raw.storeBytes(
                        of: value(index).bitPattern.littleEndian, toByteOffset: position * 4,
                        as: UInt32.self)
                }
            }
            initializedCount = byteCount
        }
    }

    /// Round to nearest, ties to even. Only finite values are made here.
    @inline(__always)
    private static func bfloat16(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ (bits >> 16 & 1)) >> 16)
    }
}

/// A stream of random numbers that is indexed instead of advanced: SplitMix64's output function
/// (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) over a counter.
struct CounterRandom {
    private let key: UInt64

    init(seed: UInt64, stream: String) {
        // FNV-1a of the name, so that a tensor's values do not depend on its neighbours.
        let hash = stream.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
        key = Self.mix(Self.mix(seed) ^ hash)
    }

    @inline(__always)
    subscript(index: Int) -> UInt64 {
        Self.mix(key &+ (UInt64(truncatingIfNeeded: index) &+ 1) &* 0x9e37_79b9_7f4a_7c15)
    }

    @inline(__always)
    private static func mix(_ value: UInt64) -> UInt64 {
        var bits = value
        bits = (bits ^ (bits >> 30)) &* 0xbf58_476d_1ce4_e5b9
        bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
        return bits ^ (bits >> 31)
    }
}
