import CKernels

/// Memory that holds packed matrices: allocated, on huge pages where the kernel gives them, or a
/// part of a mapped file.
///
/// A model's matrices share one, in the order in which a step reads them, so that small matrices
/// lie on huge pages too. Freed with its last reference.
public final class PackedMemory: Sendable {
    public let byteCount: Int
    /// Whether the bytes are those of a file.
    public let isMapped: Bool

    // Safe because whoever fills the memory does so before any other thread gets to know it, and
    // it is freed only in deinit.
    nonisolated(unsafe) fileprivate let start: UnsafeMutableRawPointer

    /// Allocates zeroed memory. Traps when the system refuses it.
    public init(byteCount: Int) {
        precondition(byteCount >= 0, "negative byte count")
        guard let start = ck_allocate(byteCount) else {
            preconditionFailure("the system refused \(byteCount) bytes")
        }
        self.byteCount = byteCount
        self.start = start
        isMapped = false
    }

    /// Maps bytes of a file that nobody changes or cuts off while the memory is in use.
    ///
    /// - Parameter offset: a multiple of the system's page size.
    /// - Returns: nil when the system refuses.
    public init?(mapping descriptor: Int32, offset: Int, byteCount: Int) {
        precondition(offset >= 0 && byteCount >= 0, "negative offset or byte count")
        guard let start = ck_map_file(descriptor, offset, byteCount) else { return nil }
        self.byteCount = byteCount
        self.start = start
        isMapped = true
    }

    deinit {
        if isMapped { ck_unmap_file(start, byteCount) } else { ck_free(start, byteCount) }
    }

    /// Brings mapped bytes into the page tables, to be read soon.
    ///
    /// - Parameter range: begins at a multiple of the system's page size.
    public func populate(_ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "outside the memory")
        if isMapped { ck_populate(start + range.lowerBound, range.count) }
    }

    /// Moves mapped bytes to huge pages at the same address, a piece at a time, while other threads
    /// read them. Afterwards the file may go, and the system cannot take the pages away.
    ///
    /// - Parameter isCancelled: asked before each piece.
    /// - Returns: false when the system refused or the move was cancelled; the rest stays mapped.
    public func moveToHugePages(isCancelled: () -> Bool) -> Bool {
        guard isMapped else { return true }
        for offset in stride(from: 0, to: byteCount, by: Self.movedByteCount) {
            let count = min(Self.movedByteCount, byteCount - offset)
            guard !isCancelled(), ck_move_to_huge_pages(start + offset, count) else {
                return false
            }
        }
        return true
    }

    /// Bytes that move at a time.
    private static let movedByteCount = 16 << 20

    /// All bytes. Valid as long as the memory lives.
    public var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: start, count: byteCount)
    }

}

/// Where in a `PackedMemory` a matrix begins.
public struct PackedPlace: Sendable {
    public let memory: PackedMemory
    public let offset: Int

    /// Offsets of matrices are multiples of this: a system page.
    public static let alignment = 4096

    /// - Parameter offset: a multiple of `alignment`.
    public init(memory: PackedMemory, offset: Int = 0) {
        precondition(offset % Self.alignment == 0, "offset \(offset) is not aligned")
        self.memory = memory
        self.offset = offset
    }

    func pointer(byteCount: Int) -> UnsafeMutableRawPointer {
        precondition(
            offset >= 0 && byteCount <= memory.byteCount - offset,
            "\(byteCount) bytes at \(offset) of \(memory.byteCount)")
        return memory.start + offset
    }
}

/// The shape of a packed matrix, from which its bytes follow.
public struct PackedShape: Sendable, Equatable {
    public var outFeatures: Int
    public var inFeatures: Int
    public var format: WeightFormat

    public init(outFeatures: Int, inFeatures: Int, format: WeightFormat) {
        self.outFeatures = outFeatures
        self.inFeatures = inFeatures
        self.format = format
    }

    /// Outputs of a panel; the last one is padded with zeros.
    public static let panelWidth = PackedMatrix.panelWidth

    /// Bytes of all panels, padding included.
    public var byteCount: Int { panelCount * panelByteCount }

    public var panelCount: Int { PackedMatrix.panelCount(outFeatures) }

    /// Bytes of one panel.
    public var panelByteCount: Int { ck_panel_byte_count(inFeatures, format.native) }
}

extension WeightFormat {
    /// Names the packed layout. Whoever changes which bytes packing makes changes the number, so
    /// that bytes which an earlier version kept on disk are not taken for the new ones.
    ///
    /// Panels are packed by code that all kernel levels share, so the level is not part of it.
    public var packedLayout: String {
        let version =
            switch self {
            case .f32, .bf16: 1
            // 2: no scale is NaN, and for int4 none is 0.
            case .int8, .int4: 2
            }
        return "\(rawValue), panels of 16, \(version)"
    }
}
