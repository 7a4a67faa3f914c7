import LorryTensor

/// A mapped safetensors file, checked whole before any tensor is handed out.
///
/// Layout: 8 bytes little-endian header length, a JSON header naming each tensor's dtype, shape and
/// byte range, then the data. Source: the format description of huggingface/safetensors. Checks are
/// those of the reference library, and stricter where it is lax: duplicate names, gaps and overlaps
/// between tensors, trailing bytes, and names with control characters are refused.
public struct SafetensorsFile: Sendable {
    /// One tensor's place in the file.
    public struct Tensor: Sendable {
        public let name: String
        public let dtype: DType
        public let shape: [Int]
        /// Row-major, little-endian elements. Valid while the file is kept.
        public let bytes: UnsafeRawBuffer
        /// Where in the file they begin.
        let fileOffset: Int

        public var elementCount: Int { shape.reduce(1, *) }
        /// Nil where the elements are not floating-point numbers that weights may have.
        public var elementType: ElementType? { dtype.elementType }
    }

    /// Header bytes above this are refused, as by the reference library.
    static let maximumHeaderByteCount = 100_000_000

    public let path: String
    public let tensors: [String: Tensor]
    public let metadata: [String: String]
    let file: MappedFile

    /// - Throws: `SafetensorsError` naming the file and the tensor or field at fault.
    public init(path: String) throws(SafetensorsError) {
        let file: MappedFile
        do {
            file = try MappedFile(path: path)
        } catch {
            throw SafetensorsError(file: path, reason: error.reason)
        }
        try self.init(file)
    }

    init(_ file: MappedFile) throws(SafetensorsError) {
        self.file = file
        path = file.path
        (tensors, metadata) = try Self.parse(file.bytes, owner: file, path: path)
    }

    private static func parse(
        _ bytes: UnsafeRawBufferPointer, owner: MappedFile, path: String
    ) throws(SafetensorsError) -> ([String: Tensor], [String: String]) {
        func fail(_ reason: String) -> SafetensorsError {
            SafetensorsError(file: path, reason: reason)
        }
        guard bytes.count >= 8 else { throw fail("shorter than its 8-byte header length") }
        let declared = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard declared <= UInt64(min(maximumHeaderByteCount, bytes.count - 8)) else {
            throw fail("header length \(declared) exceeds the file")
        }
        let headerEnd = 8 + Int(declared)
        let header: StrictJSON
        do {
            header = try StrictJSON(parsing: bytes[8..<headerEnd], maximumDepth: 8)
        } catch {
            throw fail("header: \(error)")
        }
        guard let object = header.objectValue else { throw fail("header is not an object") }
        var tensors: [String: Tensor] = [:]
        var metadata: [String: String] = [:]
        var ranges: [(range: Range<Int>, name: String)] = []
        let data = UnsafeRawBufferPointer(rebasing: bytes[headerEnd...])
        for (name, value) in object.members {
            if name == "__metadata__" {
                metadata = try parseMetadata(value, fail)
                continue
            }
            let (tensor, range) = try parseTensor(name, value, data, owner, fail)
            tensors[name] = tensor
            ranges.append((range, name))
        }
        try checkCoverage(&ranges, dataCount: data.count, fail)
        return (tensors, metadata)
    }

    private static func parseMetadata(
        _ value: StrictJSON, _ fail: (String) -> SafetensorsError
    ) throws(SafetensorsError) -> [String: String] {
        guard let object = value.objectValue else { throw fail("__metadata__ is not an object") }
        var metadata: [String: String] = [:]
        for (key, value) in object.members {
            guard let text = value.stringValue else {
                throw fail("__metadata__.\(key) is not a string")
            }
            metadata[key] = text
        }
        return metadata
    }

    private static func parseTensor(
        _ name: String, _ value: StrictJSON, _ data: UnsafeRawBufferPointer, _ owner: MappedFile,
        _ fail: (String) -> SafetensorsError
    ) throws(SafetensorsError) -> (Tensor, Range<Int>) {
        guard !name.isEmpty,
            name.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
        else { throw fail("a tensor's name is empty or has control characters") }
        guard let fields = value.objectValue else { throw fail("tensor '\(name)' is no object") }
        for (key, _) in fields.members where !["dtype", "shape", "data_offsets"].contains(key) {
            throw fail("tensor '\(name)' has the unknown field '\(key)'")
        }
        guard let dtypeName = fields["dtype"]?.stringValue else {
            throw fail("tensor '\(name)' has no dtype")
        }
        guard let dtype = DType(rawValue: dtypeName) else {
            throw fail("tensor '\(name)' has the unknown dtype '\(dtypeName)'")
        }
        guard let dimensions = fields["shape"]?.arrayValue else {
            throw fail("tensor '\(name)' has no shape")
        }
        var shape: [Int] = []
        var byteCount = dtype.byteCount
        for dimension in dimensions {
            guard let size = dimension.integerValue, size >= 0 else {
                throw fail("tensor '\(name)' has a shape that is not made of whole numbers")
            }
            let (product, overflow) = byteCount.multipliedReportingOverflow(by: size)
            guard !overflow else { throw fail("tensor '\(name)' has an impossible shape") }
            byteCount = product
            shape.append(size)
        }
        guard let offsets = fields["data_offsets"]?.arrayValue, offsets.count == 2,
            let start = offsets[0].integerValue, let end = offsets[1].integerValue,
            start >= 0, start <= end, end <= data.count
        else { throw fail("tensor '\(name)' lies outside the file") }
        guard end - start == byteCount else {
            throw fail(
                "tensor '\(name)' has \(end - start) bytes, its shape \(shape) needs \(byteCount)")
        }
        let bytes = UnsafeRawBuffer(
            bytes: UnsafeRawBufferPointer(rebasing: data[start..<end]), owner: owner)
        return (
            Tensor(
                name: name, dtype: dtype, shape: shape, bytes: bytes,
                fileOffset: owner.bytes.count - data.count + start), start..<end
        )
    }

    /// Every data byte belongs to exactly one tensor.
    private static func checkCoverage(
        _ ranges: inout [(range: Range<Int>, name: String)], dataCount: Int,
        _ fail: (String) -> SafetensorsError
    ) throws(SafetensorsError) {
        ranges.sort {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }
        var end = 0
        for (range, name) in ranges {
            guard range.lowerBound == end else {
                throw fail(
                    "tensor '\(name)' starts at byte \(range.lowerBound), expected \(end): "
                        + (range.lowerBound < end ? "it overlaps another" : "there is a gap"))
            }
            end = range.upperBound
        }
        guard end == dataCount else {
            throw fail("\(dataCount - end) bytes after the last tensor")
        }
    }
}

/// Read-only bytes together with the mapping that keeps them valid.
public struct UnsafeRawBuffer: @unchecked Sendable {
    // Safe because the bytes are never written and `owner` outlives every use of them.
    public let bytes: UnsafeRawBufferPointer
    let owner: MappedFile

    init(bytes: UnsafeRawBufferPointer, owner: MappedFile) {
        self.bytes = bytes
        self.owner = owner
    }

    public var count: Int { bytes.count }
}

/// A safetensors file that is damaged or not what it should be.
public struct SafetensorsError: Error, CustomStringConvertible, Sendable {
    public let file: String
    public let reason: String
    public var description: String { "\(file): \(reason)" }
}

extension SafetensorsFile {
    /// The element types of the format, by their names in the header.
    public enum DType: String, Sendable {
        case f64 = "F64"
        case f32 = "F32"
        case f16 = "F16"
        case bf16 = "BF16"
        case i64 = "I64"
        case i32 = "I32"
        case i16 = "I16"
        case i8 = "I8"
        case u64 = "U64"
        case u32 = "U32"
        case u16 = "U16"
        case u8 = "U8"
        case bool = "BOOL"

        var byteCount: Int {
            switch self {
            case .f64, .i64, .u64: 8
            case .f32, .i32, .u32: 4
            case .f16, .bf16, .i16, .u16: 2
            case .i8, .u8, .bool: 1
            }
        }

        var elementType: ElementType? {
            switch self {
            case .f32: .f32
            case .f16: .f16
            case .bf16: .bf16
            default: nil
            }
        }
    }
}
