import CKernels

/// How frozen weights are held in memory.
public enum WeightFormat: String, Sendable, CaseIterable {
    case f32
    case bf16
    /// 8 bits and a bf16 scale per output and 32 inputs.
    case int8
    /// 4 bits and a bf16 scale per output and 32 inputs.
    case int4

    var native: ck_format {
        switch self {
        case .f32: .CK_FORMAT_F32
        case .bf16: .CK_FORMAT_BF16
        case .int8: .CK_FORMAT_INT8
        case .int4: .CK_FORMAT_INT4
        }
    }

    /// The format that adapter factors and KV blocks have unless told otherwise.
    public var operandFormat: OperandFormat {
        switch self {
        case .f32: .f32
        case .bf16, .int8, .int4: .bf16
        }
    }
}

/// An element type of tensors in files.
public enum ElementType: String, Sendable, CaseIterable {
    case f32
    case f16
    case bf16

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .f32: 4
        case .f16, .bf16: 2
        }
    }

    var native: ck_element {
        switch self {
        case .f32: .CK_ELEMENT_F32
        case .f16: .CK_ELEMENT_F16
        case .bf16: .CK_ELEMENT_BF16
        }
    }
}

/// Converts `count` elements to f32, exactly. The source may lie at any address.
public func widen(
    _ source: UnsafeRawPointer, _ elementType: ElementType, count: Int,
    to destination: UnsafeMutablePointer<Float>
) {
    precondition(count >= 0, "negative element count")
    ck_widen(source, elementType.native, count, destination)
}
