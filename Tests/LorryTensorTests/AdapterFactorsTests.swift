import LorryTensor
import Testing

/// Packing against the layouts' drawings, written out element by element.
@Suite struct AdapterFactorsTests {
    /// A factor's numbers as a file has them, and as f32.
    private struct Stored {
        var bytes: [UInt8] = [0]
        var floats: [Float] = []
        let type: ElementType

        /// At an odd address. Numbers of all magnitudes that the type has, zeros and NaN among them
        /// where that is wanted.
        init(_ count: Int, _ type: ElementType, isWild: Bool, _ generator: inout SeededGenerator) {
            self.type = type
            for _ in 0..<count {
                switch type {
                case .f32:
                    let bits = UInt32.random(in: 0...(.max), using: &generator)
                    let value =
                        isWild ? Float(bitPattern: bits) : .random(in: -2...2, using: &generator)
                    withUnsafeBytes(of: value.bitPattern) { bytes += $0 }
                    floats.append(value)
                case .f16, .bf16:
                    var bits = UInt16.random(in: 0...(.max), using: &generator)
                    // Exponents around that of 1, unless any will do.
                    if !isWild { bits = bits & 0x83FF | (type == .f16 ? 0x3800 : 0x3F00) }
                    withUnsafeBytes(of: bits) { bytes += $0 }
                    floats.append(
                        type == .bf16
                            ? Float(bitPattern: UInt32(bits) << 16) : Self.float(half: bits))
                }
            }
        }

        func withSource(_ range: Range<Int>, _ body: (FactorSource) -> Void) {
            bytes.withUnsafeBytes { all in
                let size = type.byteCount
                let part = all[(1 + range.lowerBound * size)..<(1 + range.upperBound * size)]
                body(
                    FactorSource(
                        bytes: UnsafeRawBufferPointer(rebasing: part), elementType: type))
            }
        }

        private static func float(half bits: UInt16) -> Float {
            let sign: Float = bits & 0x8000 == 0 ? 1 : -1
            let fraction = Float(bits & 0x3FF) / 1024
            switch Int(bits >> 10 & 0x1F) {
            case 0: return sign * fraction * 0x1p-14
            case 31:
                let payload = UInt32(bits & 0x3FF) << 13
                return Float(
                    bitPattern: UInt32(bits & 0x8000) << 16 | 0x7F80_0000 | payload)
            case let exponent:
                return Float(sign: .plus, exponent: exponent - 15, significand: 1 + fraction) * sign
            }
        }
    }

    /// The bytes of one element as the format has it.
    private static func element(
        _ value: Float, _ format: OperandFormat, largest: Float
    ) -> [UInt8] {
        switch format {
        case .f32: return withUnsafeBytes(of: value.bitPattern) { Array($0) }
        case .bf16:
            let bits = value.bitPattern
            let rounded =
                value.isNaN
                ? UInt16(bits >> 16) | 0x40
                : UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
            return withUnsafeBytes(of: rounded) { Array($0) }
        case .int8:
            let multiple = largest > 0 ? value * (127 / largest) : 0
            return [UInt8(bitPattern: Int8(multiple.rounded(.toNearestOrEven)))]
        }
    }

    private static func largest(_ values: some Sequence<Float>) -> Float {
        values.reduce(0) { max($0, abs($1)) }
    }

    private static func scales(_ largest: [Float], _ format: OperandFormat) -> [UInt8] {
        guard format == .int8 else { return [] }
        return largest.flatMap { value in
            withUnsafeBytes(of: (value > 0 ? value / 127 : 0).bitPattern) { Array($0) }
        }
    }

    /// The last line is filled up with zeros; scales begin at the next.
    private static func withScales(_ factor: [UInt8], _ scales: [UInt8]) -> [UInt8] {
        factor + [UInt8](repeating: 0, count: (64 - factor.count % 64) % 64) + scales
    }

    private static func shrink(
        _ a: [Float], rank: Int, inFeatures: Int, _ format: OperandFormat
    ) -> [UInt8] {
        let step = format == .f32 ? 16 : 32
        let largest = (0..<rank).map { Self.largest(a[$0 * inFeatures..<($0 + 1) * inFeatures]) }
        var packed: [UInt8] = []
        for tile in stride(from: 0, to: rank, by: 8) {
            for start in stride(from: 0, to: inFeatures, by: step) {
                for j in tile..<min(tile + 8, rank) {
                    for i in start..<start + step {
                        let value = i < inFeatures ? a[j * inFeatures + i] : 0
                        packed += element(value, format, largest: largest[j])
                    }
                }
            }
        }
        return withScales(packed, scales(largest, format))
    }

    private static func expand(
        _ b: [Float], rank: Int, outFeatures: Int, _ format: OperandFormat
    ) -> [UInt8] {
        let depth = format == .f32 ? 1 : 2
        let largest = (0..<rank).map { j in
            Self.largest((0..<outFeatures).map { b[$0 * rank + j] })
        }
        var packed: [UInt8] = []
        for panel in stride(from: 0, to: outFeatures, by: 16) {
            for start in stride(from: 0, to: rank, by: depth) {
                for o in panel..<panel + 16 {
                    for j in start..<start + depth {
                        let isThere = o < outFeatures && j < rank
                        packed += element(
                            isThere ? b[o * rank + j] : 0, format,
                            largest: j < rank ? largest[j] : 0)
                    }
                }
            }
        }
        return withScales(packed, scales(largest, format))
    }

    private static let ranks = [1, 2, 7, 8, 9, 15, 16, 17, 33, 64]
    private static let features = [1, 15, 16, 17, 31, 32, 33, 64, 70]

    private func expectSame(
        _ found: AlignedBuffer<UInt8>, _ expected: [UInt8], _ label: String
    ) {
        #expect(Array(found.elements) == expected, "\(label)")
    }

    @Test(arguments: ElementType.allCases, OperandFormat.allCases)
    func shrinkFactorsLieAsDrawn(type: ElementType, format: OperandFormat) {
        var generator = SeededGenerator(seed: 11)
        for rank in Self.ranks {
            for count in Self.features {
                let stored = Stored(
                    rank * count, type, isWild: format != .int8, &generator)
                let expected = Self.shrink(
                    stored.floats, rank: rank, inFeatures: count, format)
                let size = ShrinkFactor.byteCount(rank: rank, inFeatures: count, format: format)
                for cut in Set([0, rank / 3]) {
                    let packed = AlignedBuffer<UInt8>(count: size)
                    packed.elements.update(repeating: 0xEE)
                    for part in [0..<cut, cut..<rank] where !part.isEmpty {
                        stored.withSource(part.lowerBound * count..<part.upperBound * count) {
                            ShrinkFactor.pack(
                                $0, ranks: part, of: rank, inFeatures: count, format: format,
                                to: packed.pointer)
                        }
                    }
                    expectSame(packed, expected, "rank \(rank), \(count) inputs, cut \(cut)")
                }
            }
        }
    }

    @Test(arguments: ElementType.allCases, OperandFormat.allCases)
    func expandFactorsLieAsDrawn(type: ElementType, format: OperandFormat) {
        var generator = SeededGenerator(seed: 12)
        for rank in Self.ranks {
            for count in Self.features {
                let stored = Stored(
                    rank * count, type, isWild: format != .int8, &generator)
                let expected = Self.expand(
                    stored.floats, rank: rank, outFeatures: count, format)
                let packed = AlignedBuffer<UInt8>(
                    count: ExpandFactor.byteCount(
                        rank: rank, outFeatures: count, format: format))
                packed.elements.update(repeating: 0xEE)
                stored.withSource(0..<rank * count) {
                    ExpandFactor.pack(
                        $0, rank: rank, outFeatures: count, format: format, to: packed.pointer)
                }
                expectSame(packed, expected, "rank \(rank), \(count) outputs")
            }
        }
    }

    /// The largest rank that is served, in each format.
    @Test(arguments: OperandFormat.allCases)
    func rank512(format: OperandFormat) {
        var generator = SeededGenerator(seed: 13)
        let stored = Stored(512 * 40, .bf16, isWild: false, &generator)
        let packed = AlignedBuffer<UInt8>(
            count: ExpandFactor.byteCount(rank: 512, outFeatures: 40, format: format))
        stored.withSource(0..<512 * 40) {
            ExpandFactor.pack(
                $0, rank: 512, outFeatures: 40, format: format, to: packed.pointer)
        }
        expectSame(
            packed, Self.expand(stored.floats, rank: 512, outFeatures: 40, format), "\(format)")
    }

    @Test(arguments: ElementType.allCases) func findsWhatIsNoNumber(type: ElementType) {
        var generator = SeededGenerator(seed: 14)
        let count = 70
        let fine = Stored(count, type, isWild: false, &generator)
        fine.withSource(0..<count) { #expect($0.isFinite) }
        fine.withSource(0..<0) { #expect($0.isFinite) }
        let infinity: [UInt8] =
            switch type {
            case .f32: [0, 0, 0x80, 0x7F]
            case .f16: [0, 0xFC]
            case .bf16: [0xC1, 0x7F]
            }
        for index in 0..<count {
            var bad = fine
            let start = 1 + index * type.byteCount
            bad.bytes.replaceSubrange(start..<start + type.byteCount, with: infinity)
            bad.withSource(0..<count) { #expect(!$0.isFinite, "element \(index)") }
        }
    }
}
