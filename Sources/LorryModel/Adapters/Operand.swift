import LorryTensor

/// Numbers of an adapter: as its file has them, or computed when the adapter is brought into memory.
///
/// A plan only knows where numbers come from, so that it holds for every adapter with an equal
/// configuration and header.
public enum Operand: Sendable {
    /// As they lie in the file.
    case stored(TensorPlace)
    /// The same for every file.
    case constant([Float])
    /// Computed from the file's numbers and the base's weights.
    case derived(count: Int, @Sendable (OperandReader) throws(AdapterError) -> [Float])

    /// A tensor of weights, row-major.
    public static func tensor(_ tensor: SafetensorsFile.Tensor) -> Operand {
        .stored(TensorPlace(tensor))
    }

    /// A tensor's numbers, each changed alike.
    static func map(
        _ tensor: SafetensorsFile.Tensor, _ change: @escaping @Sendable (Float) -> Float
    ) -> Operand {
        let place = TensorPlace(tensor)
        return .derived(count: place.count) { reader in reader.floats(place).map(change) }
    }

    /// The same operand where the adapter's file is one of several that a reader has.
    func reading(file: Int) -> Operand {
        switch self {
        case .constant: return self
        case .stored(var place):
            place.file = file
            return .stored(place)
        case .derived(let count, let compute):
            return .derived(count: count) { reader throws(AdapterError) in
                try compute(reader.reader(of: file))
            }
        }
    }

    /// All numbers, each times a factor.
    func scaled(by factor: Float) -> Operand {
        let operand = self
        return .derived(count: count) { reader throws(AdapterError) in
            try reader.floats(operand).map { $0 * factor }
        }
    }

    var isDerived: Bool { if case .derived = self { true } else { false } }

    /// Square blocks without their diagonal of ones, which narrower formats hold more exactly.
    func subtractingIdentity(blockSize: Int) -> Operand {
        .derived(count: count) { reader throws(AdapterError) in
            var floats = try reader.floats(self)
            for start in stride(from: 0, to: floats.count, by: blockSize * blockSize) {
                for index in 0..<blockSize { floats[start + index * (blockSize + 1)] -= 1 }
            }
            return floats
        }
    }

    public var count: Int {
        switch self {
        case .stored(let place): place.count
        case .constant(let floats): floats.count
        case .derived(let count, _): count
        }
    }
}

/// Where a tensor lies in an adapter's file.
public struct TensorPlace: Sendable {
    let name: String
    fileprivate(set) var offset: Int
    fileprivate(set) var shape: [Int]
    let dtype: SafetensorsFile.DType
    /// The file's name, for messages.
    private let fileName: String
    /// Which of the reader's files it lies in.
    var file = 0

    init(_ tensor: SafetensorsFile.Tensor) {
        name = tensor.name
        offset = tensor.fileOffset
        shape = tensor.shape
        dtype = tensor.dtype
        fileName = tensor.bytes.fileName
    }

    func bad(_ problem: String, _ kind: AdapterError.Kind = .invalid) -> AdapterError {
        AdapterError(kind, "\(fileName): tensor '\(name)' \(problem)", about: .tensor(name))
    }

    var count: Int { shape.reduce(1, *) }
    var byteRange: Range<Int> { offset..<offset + count * dtype.byteCount }
}

/// Reads an adapter's numbers while its program is made, beside the base's weights. A sum of
/// adapters has a file of each.
public final class OperandReader {
    private let files: [UnsafeRawBufferPointer]
    private var readers: [Int: OperandReader] = [:]
    /// The base's weights, as they are resident.
    let base: BaseWeights
    /// For whose requests the program is, where the adapter knows several tasks.
    let task: Int
    private let checksResults: Bool
    private var results: [String: (value: [[Float]], usesLeft: Int)] = [:]

    /// - Parameters:
    ///   - files: all bytes of each adapter's file.
    ///   - checksResults: whether what is computed must be finite.
    init(
        files: [UnsafeRawBufferPointer], base: BaseWeights, task: Int = 0,
        checksResults: Bool = false
    ) {
        self.files = files
        self.base = base
        self.task = task
        self.checksResults = checksResults
    }

    /// A reader of one of the files alone, always the same.
    func reader(of file: Int) -> OperandReader {
        if let known = readers[file] { return known }
        let reader = OperandReader(files: [files[file]], base: base, task: task)
        readers[file] = reader
        return reader
    }

    /// A tensor's bytes, for packing.
    func factor(_ place: TensorPlace) -> FactorSource {
        guard let type = place.dtype.elementType else {
            preconditionFailure("tensor '\(place.name)' is not of weights")
        }
        return FactorSource(
            bytes: UnsafeRawBufferPointer(rebasing: files[place.file][place.byteRange]),
            elementType: type)
    }

    /// A tensor's numbers in single precision.
    func floats(_ place: TensorPlace) -> [Float] {
        let factor = factor(place)
        var floats = [Float](repeating: 0, count: place.count)
        floats.withUnsafeMutableBufferPointer { destination in
            if let from = factor.bytes.baseAddress, let to = destination.baseAddress {
                widen(from, factor.elementType, count: destination.count, to: to)
            }
        }
        return floats
    }

    /// The part of a tensor `[tasks, …]` that belongs to the program's task.
    func floatsOfTask(_ place: TensorPlace) -> [Float] {
        var part = place
        part.offset += task * (place.byteRange.count / place.shape[0])
        part.shape.removeFirst()
        return floats(part)
    }

    /// A tensor's whole numbers: of an integer type.
    func integers(_ place: TensorPlace) -> [Int] {
        place.dtype.integers(UnsafeRawBufferPointer(rebasing: files[place.file][place.byteRange]))
    }

    func floats(_ operand: Operand) throws(AdapterError) -> [Float] {
        switch operand {
        case .stored(let place): return floats(place)
        case .constant(let floats): return floats
        case .derived(let count, let compute):
            let floats = try compute(self)
            precondition(floats.count == count, "a derived operand of another size")
            guard !checksResults || floats.allSatisfy(\.isFinite) else {
                throw AdapterError(
                    .invalid,
                    "what is computed of its numbers and the base's is not finite: they are too large"
                )
            }
            return floats
        }
    }

    /// The results of one computation that several operands use. Kept until all have.
    ///
    /// - Parameter uses: how many operands ask for it.
    func shared(
        _ key: String, uses: Int, _ compute: () throws(AdapterError) -> [[Float]]
    ) throws(AdapterError) -> [[Float]] {
        if let known = results[key] {
            results[key] = known.usesLeft > 1 ? (known.value, known.usesLeft - 1) : nil
            return known.value
        }
        let value = try compute()
        if uses > 1 { results[key] = (value, uses - 1) }
        return value
    }
}

extension OperandReader {
    /// See `DenseAlgebra.singularParts`.
    func singularParts(
        of operand: Operand, rows: Int, columns: Int
    ) throws(AdapterError) -> DenseAlgebra.SingularParts {
        try parts(of: operand) { matrix throws(DenseAlgebra.Failure) in
            try DenseAlgebra.singularParts(matrix, rows: rows, columns: columns)
        }
    }

    /// See `DenseAlgebra.orthogonalParts`.
    func orthogonalParts(
        of operand: Operand, rows: Int, columns: Int
    ) throws(AdapterError) -> DenseAlgebra.OrthogonalParts {
        try parts(of: operand) { matrix throws(DenseAlgebra.Failure) in
            try DenseAlgebra.orthogonalParts(matrix, rows: rows, columns: columns)
        }
    }

    private func parts<Parts>(
        of operand: Operand, _ decompose: ([Float]) throws(DenseAlgebra.Failure) -> Parts
    ) throws(AdapterError) -> Parts {
        let matrix = try floats(operand)
        do throws(DenseAlgebra.Failure) {
            return try decompose(matrix)
        } catch {
            throw AdapterError(.invalid, error.description)
        }
    }
}

extension SafetensorsFile.DType {
    /// Whether the elements are whole numbers.
    var isInteger: Bool {
        switch self {
        case .i64, .i32, .i16, .i8, .u64, .u32, .u16, .u8: true
        case .f64, .f32, .f16, .bf16, .bool: false
        }
    }

    /// The elements of an integer type; what does not fit an Int is its largest value.
    func integers(_ bytes: UnsafeRawBufferPointer) -> [Int] {
        func read<T: FixedWidthInteger & BitwiseCopyable>(_: T.Type) -> [Int] {
            stride(from: 0, to: bytes.count, by: MemoryLayout<T>.size).map {
                Int(clamping: T(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: T.self)))
            }
        }
        return switch self {
        case .i64: read(Int64.self)
        case .i32: read(Int32.self)
        case .i16: read(Int16.self)
        case .i8: read(Int8.self)
        case .u64: read(UInt64.self)
        case .u32: read(UInt32.self)
        case .u16: read(UInt16.self)
        case .u8: read(UInt8.self)
        case .f64, .f32, .f16, .bf16, .bool: preconditionFailure("not an integer type")
        }
    }
}
