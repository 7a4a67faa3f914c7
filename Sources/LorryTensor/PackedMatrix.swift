import CKernels
import Synchronization

/// A source holds what its format cannot: NaN or an infinity, for int4 also a number of 2^60 or
/// more.
public struct UnquantizableSource: Error, Equatable {
    /// The source's place among those given.
    public let index: Int

    public init(index: Int) { self.index = index }
}

/// A source matrix `[outFeatures, inFeatures]`, row-major, in memory that outlives its packing.
public struct MatrixSource {
    /// `outFeatures * inFeatures` elements, at any address.
    public var bytes: UnsafeRawBufferPointer
    public var elementType: ElementType
    public var outFeatures: Int
    /// Whether the elements are stored as `[inFeatures, outFeatures]` instead.
    public var transposed: Bool

    public init(
        bytes: UnsafeRawBufferPointer, elementType: ElementType, outFeatures: Int,
        transposed: Bool = false
    ) {
        self.bytes = bytes
        self.elementType = elementType
        self.outFeatures = outFeatures
        self.transposed = transposed
    }
}

/// A frozen weight in the layout that `matmul` streams. Immutable.
///
/// Outputs lie in panels of 16, the last one zero-padded:
/// ```
/// f32    [panel][k][16]            64 bytes per input
/// bf16   [panel][k / 2][16][2]     64 bytes per two inputs; an odd last one beside a zero
/// int8   [panel][k / 64]{ [16][16][4] numbers, [2][16] scales }    1088 bytes per 64 inputs
/// int4   [panel][k / 64]{ [8][16][4] pairs of numbers, [2][16] scales }    576 bytes
/// ```
/// A number of int8 or int4 times the bf16 scale of its output and 32 inputs is the weight; ckernels.h
/// draws these blocks. Of int4, 32 inputs below 2^-50 count as zero.
public final class PackedMatrix: Sendable {
    public let outFeatures: Int
    public let inFeatures: Int
    public let format: WeightFormat

    /// Columns of a panel.
    static let panelWidth = Int(CK_LANES)

    // Safe because it is written only in init and `memory` keeps it valid.
    nonisolated(unsafe) let panels: UnsafeRawPointer
    private let memory: PackedMemory

    /// Packs `sources`, stacked along the outputs in their order, in parallel.
    ///
    /// f16 and bf16 sources widen exactly to f32; f32 and f16 sources round to bf16 to nearest,
    /// ties to even. For int8 a scale is the group's largest size / 127, rounded up to bf16; for
    /// int4 the one of least squared error among nine. Traps when a source's bytes do not match its
    /// shape, or when the system refuses the memory: shapes of files are checked before.
    ///
    /// - Parameter place: zeroed memory to pack into; nil allocates it.
    /// - Throws: for int8 and int4, whose scales have no place for what is not finite.
    public init(
        sources: [MatrixSource], inFeatures: Int, format: WeightFormat, pool: WorkerPool,
        place: PackedPlace? = nil
    ) throws(UnquantizableSource) {
        precondition(inFeatures > 0, "a matrix needs inputs")
        for source in sources {
            precondition(
                source.outFeatures > 0
                    && source.bytes.count
                        == source.outFeatures * inFeatures * source.elementType.byteCount,
                "a source's bytes do not match [\(source.outFeatures), \(inFeatures)]")
        }
        let outFeatures = sources.reduce(0) { $0 + $1.outFeatures }
        precondition(outFeatures > 0, "a matrix needs outputs")
        let panelCount = Self.panelCount(outFeatures)
        let panelByteCount = ck_panel_byte_count(inFeatures, format.native)
        let place =
            place ?? PackedPlace(memory: PackedMemory(byteCount: panelCount * panelByteCount))
        let memory = place.pointer(byteCount: panelCount * panelByteCount)
        self.outFeatures = outFeatures
        self.inFeatures = inFeatures
        self.format = format
        self.panels = UnsafeRawPointer(memory)
        self.memory = place.memory
        let refused = Mutex<Int?>(nil)
        pool.run(taskCount: panelCount) { panel in
            let source = Self.pack(
                panel, of: sources, inFeatures: inFeatures, format: format,
                into: memory + panel * panelByteCount)
            guard let source else { return }
            refused.withLock { $0 = min($0 ?? source, source) }
        }
        if let index = refused.withLock({ $0 }) { throw UnquantizableSource(index: index) }
    }

    /// Takes panels that are packed already, as `init(sources:)` left them at `place`.
    public init(packedAt place: PackedPlace, shape: PackedShape) {
        precondition(shape.outFeatures > 0 && shape.inFeatures > 0, "a matrix has no elements")
        outFeatures = shape.outFeatures
        inFeatures = shape.inFeatures
        format = shape.format
        memory = place.memory
        panels = UnsafeRawPointer(place.pointer(byteCount: shape.byteCount))
    }

    /// Bytes held, padding included.
    public var byteCount: Int { panelCount * panelByteCount }

    var panelCount: Int { Self.panelCount(outFeatures) }
    private var panelByteCount: Int { ck_panel_byte_count(inFeatures, format.native) }

    static func panelCount(_ outFeatures: Int) -> Int {
        (outFeatures + panelWidth - 1) / panelWidth
    }

    /// Copies row `row` of the matrix, widened to f32, to `inFeatures` floats: the embedding of a
    /// token where the head is tied to it.
    public func copyRow(_ row: Int, to destination: UnsafeMutablePointer<Float>) {
        precondition(row >= 0 && row < outFeatures, "row \(row) of \(outFeatures)")
        let panel = panels + row / Self.panelWidth * panelByteCount
        ck_unpack_lane(panel, format.native, inFeatures, row % Self.panelWidth, destination)
    }

    /// Fills one panel from the rows of all sources that fall into it.
    ///
    /// - Returns: the first source with numbers that the format cannot hold, or nil.
    private static func pack(
        _ panel: Int, of sources: [MatrixSource], inFeatures: Int, format: WeightFormat,
        into destination: UnsafeMutableRawPointer
    ) -> Int? {
        var refused: Int?
        let wanted = panel * panelWidth..<(panel + 1) * panelWidth
        var start = 0
        for (index, source) in sources.enumerated() {
            let rows = (start..<start + source.outFeatures).clamped(to: wanted)
            defer { start += source.outFeatures }
            guard !rows.isEmpty, let base = source.bytes.baseAddress else { continue }
            let rowStride = source.transposed ? 1 : inFeatures
            let offset = (rows.lowerBound - start) * rowStride * source.elementType.byteCount
            var taken = ck_panel_source(
                bytes: base + offset, element: source.elementType.native, row_stride: rowStride,
                column_stride: source.transposed ? source.outFeatures : 1, row_count: rows.count,
                lane: rows.lowerBound - wanted.lowerBound)
            if !ck_pack_panel(destination, format.native, inFeatures, &taken) {
                refused = refused ?? index
            }
        }
        return refused
    }
}
