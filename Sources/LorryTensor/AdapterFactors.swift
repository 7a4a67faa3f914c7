import CKernels

/// A factor's numbers as files have them, row-major, in memory that outlives its packing.
public struct FactorSource {
    /// At any address.
    public var bytes: UnsafeRawBufferPointer
    public var elementType: ElementType

    public init(bytes: UnsafeRawBufferPointer, elementType: ElementType) {
        self.bytes = bytes
        self.elementType = elementType
    }

    /// Whether no element is NaN or infinite.
    public var isFinite: Bool {
        guard let start = bytes.baseAddress else { return true }
        return ck_is_finite(start, elementType.native, bytes.count / elementType.byteCount)
    }

    fileprivate func native(
        rowCount: Int, rowLength: Int, rank: Int, features: Int, _ format: OperandFormat
    ) -> ck_factor {
        precondition(
            bytes.count == rowCount * rowLength * elementType.byteCount,
            "a factor's bytes do not match [\(rowCount), \(rowLength)]")
        guard let start = bytes.baseAddress else { preconditionFailure("a factor without numbers") }
        return ck_factor(
            bytes: start, element: elementType.native, format: format.native, rank: rank,
            features: features)
    }
}

/// A LoRA-like A as `segmentedShrink` reads it: one stream over all inputs for eight ranks at a
/// time.
/// ```
/// [tile of 8 ranks][step][rank of the tile][16 f32 | 32 bf16 | 32 int8 inputs] | int8: [rank] f32
/// ```
/// The last tile has the ranks that are left, the last step is padded with zeros. int8 are
/// multiples of a rank's scale, which makes its largest magnitude 127.
public enum ShrinkFactor {
    public static func byteCount(rank: Int, inFeatures: Int, format: OperandFormat) -> Int {
        scalesOffset(rank: rank, inFeatures: inFeatures, format: format)
            + format.scaleByteCount(rank: rank)
    }

    /// Packs a row-major f32 `[rank, inFeatures]` into `byteCount` bytes aligned to a cache line.
    public static func pack(
        _ values: [Float], rank: Int, inFeatures: Int, format: OperandFormat,
        to target: UnsafeMutableRawPointer
    ) {
        values.withUnsafeBytes { bytes in
            pack(
                FactorSource(bytes: bytes, elementType: .f32), ranks: 0..<rank, of: rank,
                inFeatures: inFeatures, format: format, to: target)
        }
    }

    /// Packs some ranks of a factor, `[ranks.count, inFeatures]`: several matrices may be stacked
    /// to one factor. All its ranks together write all bytes.
    ///
    /// - Parameter target: the factor's first byte.
    public static func pack(
        _ source: FactorSource, ranks: Range<Int>, of rank: Int, inFeatures: Int,
        format: OperandFormat, to target: UnsafeMutableRawPointer
    ) {
        precondition(inFeatures > 0 && ranks.lowerBound >= 0 && ranks.upperBound <= rank)
        var factor = source.native(
            rowCount: ranks.count, rowLength: inFeatures, rank: rank, features: inFeatures, format)
        let offset = scalesOffset(rank: rank, inFeatures: inFeatures, format: format)
        clear(target, ck_shrink_byte_count(rank, inFeatures, format.native)..<offset)
        ck_pack_shrink(
            &factor, ranks.lowerBound, ranks.count, target, format.scales(target, offset))
    }

    static func scalesOffset(rank: Int, inFeatures: Int, format: OperandFormat) -> Int {
        roundedToLines(ck_shrink_byte_count(rank, inFeatures, format.native))
    }
}

/// A LoRA-like B as `segmentedExpand` reads it: panels of 16 outputs, each one stream over the
/// ranks.
/// ```
/// f32          [panel][rank][16]
/// bf16, int8   [panel][rank / 2][16][2] | int8: [rank] f32
/// ```
/// The last panel and an odd rank are padded with zeros. int8 are multiples of a rank's scale.
public enum ExpandFactor {
    /// The largest rank that one expand can have.
    public static let maximumRank = Int(CK_MAX_RANK)

    public static func byteCount(rank: Int, outFeatures: Int, format: OperandFormat) -> Int {
        scalesOffset(rank: rank, outFeatures: outFeatures, format: format)
            + format.scaleByteCount(rank: rank)
    }

    /// Packs a row-major f32 `[outFeatures, rank]` into `byteCount` bytes aligned to a cache line.
    public static func pack(
        _ values: [Float], rank: Int, outFeatures: Int, format: OperandFormat,
        to target: UnsafeMutableRawPointer
    ) {
        values.withUnsafeBytes { bytes in
            pack(
                FactorSource(bytes: bytes, elementType: .f32), rank: rank,
                outFeatures: outFeatures, format: format, to: target)
        }
    }

    /// Packs a whole factor, `[outFeatures, rank]`.
    public static func pack(
        _ source: FactorSource, rank: Int, outFeatures: Int, format: OperandFormat,
        to target: UnsafeMutableRawPointer
    ) {
        precondition(rank > 0 && rank <= maximumRank && outFeatures > 0, "rank \(rank)")
        var factor = source.native(
            rowCount: outFeatures, rowLength: rank, rank: rank, features: outFeatures, format)
        let offset = scalesOffset(rank: rank, outFeatures: outFeatures, format: format)
        clear(target, ck_expand_byte_count(rank, outFeatures, format.native)..<offset)
        ck_pack_expand(&factor, target, format.scales(target, offset))
    }

    static func scalesOffset(rank: Int, outFeatures: Int, format: OperandFormat) -> Int {
        roundedToLines(ck_expand_byte_count(rank, outFeatures, format.native))
    }
}

/// What a factor leaves of its last line is zeros, whatever the memory held before.
private func clear(_ target: UnsafeMutableRawPointer, _ range: Range<Int>) {
    (target + range.lowerBound).initializeMemory(as: UInt8.self, repeating: 0, count: range.count)
}

private func roundedToLines(_ byteCount: Int) -> Int { (byteCount + 63) / 64 * 64 }

extension OperandFormat {
    fileprivate func scaleByteCount(rank: Int) -> Int {
        self == .int8 ? rank * MemoryLayout<Float>.size : 0
    }

    fileprivate func scales(
        _ factor: UnsafeMutableRawPointer, _ offset: Int
    ) -> UnsafeMutablePointer<Float>? {
        self == .int8 ? (factor + offset).assumingMemoryBound(to: Float.self) : nil
    }

    /// The scales of a packed factor, where the format has them.
    func scales(_ factor: UnsafeRawPointer, _ offset: Int) -> UnsafePointer<Float>? {
        self == .int8 ? (factor + offset).assumingMemoryBound(to: Float.self) : nil
    }
}
