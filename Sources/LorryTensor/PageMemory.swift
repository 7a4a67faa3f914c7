import CKernels
import Synchronization

/// Whole pages of the system's, which go back to it, or to spare memory, when the last reference
/// goes.
///
/// Safe because whoever fills it does so before it is shared, and it is freed only in `deinit`.
public final class PageMemory: @unchecked Sendable {
    public let byteCount: Int
    public let start: UnsafeMutableRawPointer
    private let spares: SparePages?

    /// Allocates memory with whatever bytes it has; on huge pages where it fills some.
    ///
    /// - Parameters:
    ///   - byteCount: above 0.
    ///   - spares: where memory of this size may be left, and where it goes in the end.
    /// - Throws: `MemoryRefusal`.
    public init(byteCount: Int, spares: SparePages? = nil) throws(MemoryRefusal) {
        precondition(byteCount > 0, "no bytes")
        self.byteCount = byteCount
        self.spares = spares
        if let spare = spares?.take(byteCount) {
            start = spare
            return
        }
        guard let fresh = ck_allocate_pages(byteCount) else {
            throw MemoryRefusal(byteCount: byteCount)
        }
        start = fresh
    }

    deinit {
        if let spares { spares.put(start, byteCount) } else { ck_free_pages(start, byteCount) }
    }
}

/// The system refused to give memory.
public struct MemoryRefusal: Error, CustomStringConvertible, Sendable, Equatable {
    public let byteCount: Int
    public var description: String { "the system refused \(byteCount) bytes of memory" }
}

/// Memory that was let go and has its pages still: the system takes longer to give cleared pages
/// than an adapter takes to be packed into used ones.
///
/// A piece is used again for the same number of bytes only, so that nothing takes more memory than
/// it is counted for. What exceeds the limit goes back to the system, oldest first.
public final class SparePages: Sendable {
    private struct Piece {
        // Safe because a piece is in nobody else's hands while it is here.
        nonisolated(unsafe) let start: UnsafeMutableRawPointer
        let byteCount: Int
    }

    private let limit: Int
    /// In the order in which they came.
    private let pieces = Mutex<[Piece]>([])

    /// - Parameter limit: the most bytes that are kept.
    public init(limit: Int) { self.limit = limit }

    deinit {
        pieces.withLock { pieces in
            for piece in pieces { ck_free_pages(piece.start, piece.byteCount) }
        }
    }

    /// Bytes that are kept now.
    public var byteCount: Int { pieces.withLock { $0.reduce(0) { $0 + $1.byteCount } } }

    fileprivate func take(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        let piece = pieces.withLock { pieces in
            pieces.lastIndex { $0.byteCount == byteCount }.map { pieces.remove(at: $0) }
        }
        return piece?.start
    }

    fileprivate func put(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        let new = Piece(start: start, byteCount: byteCount)
        let surplus = pieces.withLock { pieces in
            pieces.append(new)
            var total = pieces.reduce(0) { $0 + $1.byteCount }
            let first = pieces.firstIndex { piece in
                if total <= limit { return true }
                total -= piece.byteCount
                return false
            }
            let surplus = Array(pieces[..<(first ?? pieces.count)])
            pieces.removeFirst(surplus.count)
            return surplus
        }
        for piece in surplus { ck_free_pages(piece.start, piece.byteCount) }
    }
}
