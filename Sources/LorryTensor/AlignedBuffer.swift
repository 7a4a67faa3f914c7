import CKernels

/// Zero-initialised memory, aligned to 64 bytes; large buffers lie on huge pages where the kernel
/// gives them. Freed with its last reference.
public final class AlignedBuffer<Element: BitwiseCopyable> {
    /// Number of elements.
    public let count: Int
    /// The first element; valid as long as the buffer lives.
    public let pointer: UnsafeMutablePointer<Element>

    private let memory: UnsafeMutableRawPointer

    /// Allocates `count` elements, all bits zero. Traps when the system refuses the memory.
    public init(count: Int) {
        precondition(count >= 0, "negative element count")
        let (byteCount, overflow) = count.multipliedReportingOverflow(
            by: MemoryLayout<Element>.stride)
        precondition(!overflow, "\(count) elements do not fit the address space")
        guard let memory = ck_allocate(byteCount) else {
            preconditionFailure("the system refused \(byteCount) bytes")
        }
        self.count = count
        self.memory = memory
        self.pointer = memory.bindMemory(to: Element.self, capacity: count)
    }

    deinit {
        ck_free(memory, byteCount)
    }

    /// Bytes of all elements.
    public var byteCount: Int { count * MemoryLayout<Element>.stride }

    /// All elements.
    public var elements: UnsafeMutableBufferPointer<Element> {
        UnsafeMutableBufferPointer(start: pointer, count: count)
    }
}
