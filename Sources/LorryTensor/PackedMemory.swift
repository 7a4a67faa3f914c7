import CKernels

/// One allocation that holds packed matrices; on huge pages where the kernel gives them.
///
/// A model's matrices share one, in the order in which a step reads them, so that small matrices
/// lie on huge pages too. Freed with its last reference.
public final class PackedMemory: Sendable {
    public let byteCount: Int

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
    }

    deinit {
        ck_free(start, byteCount)
    }

    /// All bytes. Valid as long as the memory lives.
    public var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: start, count: byteCount)
    }

    /// All bytes, to be written before a matrix is made of them.
    public var mutableBytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: start, count: byteCount)
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
    public var packedLayout: String { "\(rawValue), panels of 16, 1" }
}
