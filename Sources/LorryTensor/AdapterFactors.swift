import CKernels

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
        precondition(rank > 0 && inFeatures > 0 && values.count == rank * inFeatures)
        values.withUnsafeBufferPointer { values in
            guard let source = values.baseAddress else { return }
            let offset = scalesOffset(rank: rank, inFeatures: inFeatures, format: format)
            ck_pack_shrink(
                source, rank, inFeatures, format.native, target, format.scales(target, offset))
        }
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
        precondition(rank > 0 && outFeatures > 0 && values.count == rank * outFeatures)
        precondition(rank <= maximumRank, "rank \(rank)")
        values.withUnsafeBufferPointer { values in
            guard let source = values.baseAddress else { return }
            let offset = scalesOffset(rank: rank, outFeatures: outFeatures, format: format)
            ck_pack_expand(
                source, rank, outFeatures, format.native, target, format.scales(target, offset))
        }
    }

    static func scalesOffset(rank: Int, outFeatures: Int, format: OperandFormat) -> Int {
        roundedToLines(ck_expand_byte_count(rank, outFeatures, format.native))
    }
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
