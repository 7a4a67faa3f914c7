import CKernels

/// How adapter factors and KV blocks are held in memory.
public enum OperandFormat: String, Sendable, CaseIterable {
    case f32
    case bf16
    /// 8 bits, with a scale per rank of a factor, or per token and head of a KV block.
    case int8

    /// Bytes of one element, without scales.
    public var byteCount: Int {
        switch self {
        case .f32: 4
        case .bf16: 2
        case .int8: 1
        }
    }

    var native: ck_format {
        switch self {
        case .f32: .CK_FORMAT_F32
        case .bf16: .CK_FORMAT_BF16
        case .int8: .CK_FORMAT_INT8
        }
    }
}

/// Rounds `count` elements to bf16: to nearest, ties to even. The source may lie at any address.
public func narrow(
    _ source: UnsafeRawPointer, _ elementType: ElementType, count: Int,
    to destination: UnsafeMutablePointer<UInt16>
) {
    precondition(count >= 0, "negative element count")
    ck_narrow(source, elementType.native, count, destination)
}
