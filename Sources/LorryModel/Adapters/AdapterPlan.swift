import LorryTensor

/// Where an adapter's operands come from and where they go: all that its configuration and its
/// file's header decide. Adapters whose configurations and headers are equal share a plan.
struct AdapterPlan: Sendable {
    enum Bias: Sendable {
        case added(Operand, scale: Float)
        /// Takes the place of the base's bias.
        case replacing(Operand)
    }

    /// The places of a sparse matrix's numbers, in any order; numbers at the same place add up.
    struct Sparse: Sendable {
        let count: Int
        let outFeatures: Int
        let inFeatures: Int
        let entries: @Sendable (OperandReader) throws(AdapterError) -> [SparseEntry]
    }

    /// One operand's way into the program's memory.
    struct Copy: Sendable {
        enum Content {
            /// Stacked to one `[rank, inFeatures]`.
            case down([(Operand, rank: Int)], rank: Int, inFeatures: Int)
            /// `[outFeatures, rank]`
            case up(Operand, rank: Int, outFeatures: Int)
            /// `[outFeatures, inFeatures]`, as `up`s over parts of the inputs.
            case dense(Operand, outFeatures: Int, inFeatures: Int)
            case vector(Operand)
            case bias([Bias], BaseModule)
            /// Rows `[count, width]` in bf16.
            case narrowed(Operand)
            case indices([UInt32])
            /// Row starts, columns and values, each from a cache line on.
            case sparse(Sparse)
        }
        /// Of the program's memory, whole cache lines.
        var range: Range<Int>
        var content: Content
    }

    let description: AdapterDescription
    let format: OperandFormat
    let operations: AdapterOperations
    let copies: [Copy]

    /// Makes each operand that is more than a copy, and drops it again.
    ///
    /// - Parameter files: as of `program`.
    /// - Throws: `AdapterError` where the memory is refused or numbers do not do.
    func checkComputations(
        reading files: [UnsafeRawBufferPointer], model: DecoderModel
    ) throws(AdapterError) {
        let computed = copies.filter(\.isComputed)
        guard let largest = computed.map(\.range.count).max() else { return }
        let memory = try Self.memory(byteCount: largest, spares: nil)
        let writer = OperandWriter(
            reader: OperandReader(
                files: files, base: BaseWeights(model), checksResults: true), format: format)
        for copy in computed { try writer.write(copy, to: memory.start) }
    }

    /// Reads, converts, computes and lays out the operands.
    ///
    /// - Parameters:
    ///   - files: the whole file that the plan was made for, or one with an equal header and size;
    ///     of a sum of adapters, each one's.
    ///   - task: whose numbers are computed, where the adapter knows several.
    ///   - spares: where the program's memory may come from, and goes in the end.
    /// - Throws: `AdapterError` where the memory is refused or numbers do not do.
    func program(
        reading files: [UnsafeRawBufferPointer], model: DecoderModel, task: Int = 0,
        spares: SparePages? = nil
    ) throws(AdapterError) -> AdapterProgram {
        let taskCount = description.traits.taskCount ?? 1
        guard (0..<taskCount).contains(task) else {
            throw AdapterError(.invalid, "task \(task) is none of the adapter's \(taskCount)")
        }
        let memory = try Self.memory(byteCount: description.byteCount, spares: spares)
        let writer = OperandWriter(
            reader: OperandReader(files: files, base: BaseWeights(model), task: task),
            format: format)
        for copy in copies { try writer.write(copy, to: memory.start + copy.range.lowerBound) }
        return AdapterProgram(
            description: description, format: format, operands: memory, operations: operations)
    }

    private static func memory(
        byteCount: Int, spares: SparePages?
    ) throws(AdapterError) -> PageMemory {
        do throws(MemoryRefusal) {
            return try PageMemory(byteCount: max(byteCount, 64), spares: spares)
        } catch {
            throw AdapterError(.outOfMemory, error.description)
        }
    }

    /// Bytes of a matrix over the input, laid out in parts.
    static func denseByteCount(outFeatures: Int, inFeatures: Int, format: OperandFormat) -> Int {
        denseParts(inFeatures).reduce(0) {
            $0 + denseByteCount(part: $1, outFeatures: outFeatures, format: format)
        }
    }

    static func denseByteCount(
        part: Range<Int>, outFeatures: Int, format: OperandFormat
    ) -> Int {
        let size = ExpandFactor.byteCount(
            rank: part.count, outFeatures: outFeatures, format: format)
        return (size + 63) / 64 * 64
    }

    /// The inputs in parts that an expand can take.
    static func denseParts(_ inFeatures: Int) -> [Range<Int>] {
        stride(from: 0, to: inFeatures, by: ExpandFactor.maximumRank).map {
            $0..<min($0 + ExpandFactor.maximumRank, inFeatures)
        }
    }
}

extension AdapterPlan.Copy {
    /// Whether the operand is more than a copy.
    fileprivate var isComputed: Bool {
        switch content {
        case .down(let parts, _, _): parts.contains { $0.0.isDerived }
        case .up(let operand, _, _), .dense(let operand, _, _), .vector(let operand),
            .narrowed(let operand):
            operand.isDerived
        case .bias(let biases, _):
            biases.contains { bias in
                switch bias {
                case .added(let operand, _), .replacing(let operand): operand.isDerived
                }
            }
        case .sparse: true
        case .indices: false
        }
    }
}

/// A number of a sparse matrix.
struct SparseEntry: Sendable {
    var row: Int
    var column: Int
    var value: Float

    /// - Throws: `AdapterError` where the place lies outside of a matrix of this size.
    func check(outFeatures: Int, inFeatures: Int) throws(AdapterError) {
        guard (0..<outFeatures).contains(row), (0..<inFeatures).contains(column) else {
            throw AdapterError(
                .invalid,
                "an index [\(row), \(column)] lies outside [\(outFeatures), \(inFeatures)]")
        }
    }
}

/// Fills a program's memory.
private struct OperandWriter {
    let reader: OperandReader
    let format: OperandFormat

    /// - Parameter target: has room for the copy's range.
    func write(
        _ copy: AdapterPlan.Copy, to target: UnsafeMutableRawPointer
    ) throws(AdapterError) {
        let byteCount = copy.range.count
        switch copy.content {
        case .down(let parts, let rank, let inFeatures):
            var start = 0
            for (operand, count) in parts {
                try withFactor(operand) { factor in
                    ShrinkFactor.pack(
                        factor, ranks: start..<start + count, of: rank, inFeatures: inFeatures,
                        format: format, to: target)
                }
                start += count
            }
        case .up(let operand, let rank, let outFeatures):
            try withFactor(operand) { factor in
                ExpandFactor.pack(
                    factor, rank: rank, outFeatures: outFeatures, format: format, to: target)
            }
        case .dense(let operand, let outFeatures, let inFeatures):
            try writeDense(
                try reader.floats(operand), outFeatures: outFeatures, inFeatures: inFeatures,
                to: target)
        case .vector(let operand): store(try reader.floats(operand), to: target, byteCount)
        case .bias(let biases, let module):
            store(try sum(biases, at: module), to: target, byteCount)
        case .narrowed(let operand):
            try withFactor(operand) { factor in
                guard let start = factor.bytes.baseAddress else { return }
                let count = factor.bytes.count / factor.elementType.byteCount
                narrow(
                    start, factor.elementType, count: count,
                    to: target.assumingMemoryBound(to: UInt16.self))
            }
        case .indices(let indices): store(indices, to: target, byteCount)
        case .sparse(let sparse): try writeSparse(sparse, to: target)
        }
    }

    private func withFactor(
        _ operand: Operand, _ body: (FactorSource) -> Void
    ) throws(AdapterError) {
        if case .stored(let place) = operand { return body(reader.factor(place)) }
        let floats = try reader.floats(operand)
        floats.withUnsafeBytes { body(FactorSource(bytes: $0, elementType: .f32)) }
    }

    private func writeDense(
        _ matrix: [Float], outFeatures: Int, inFeatures: Int, to target: UnsafeMutableRawPointer
    ) throws(AdapterError) {
        var offset = 0
        for part in AdapterPlan.denseParts(inFeatures) {
            var columns: [Float] = []
            columns.reserveCapacity(outFeatures * part.count)
            for row in 0..<outFeatures {
                columns +=
                    matrix[row * inFeatures + part.lowerBound..<row * inFeatures + part.upperBound]
            }
            ExpandFactor.pack(
                columns, rank: part.count, outFeatures: outFeatures, format: format,
                to: target + offset)
            offset += AdapterPlan.denseByteCount(
                part: part, outFeatures: outFeatures, format: format)
        }
    }

    private func sum(
        _ biases: [AdapterPlan.Bias], at module: BaseModule
    ) throws(AdapterError) -> [Float] {
        var total: [Float] = []
        for bias in biases {
            let shift: [Float] =
                switch bias {
                case .added(let vector, let scale): try reader.floats(vector).map { $0 * scale }
                case .replacing(let vector):
                    zip(try reader.floats(vector), reader.base.bias(module)).map { $0 - $1 }
                }
            total = total.isEmpty ? shift : zip(total, shift).map { $0 + $1 }
        }
        return total
    }

    private func writeSparse(
        _ sparse: AdapterPlan.Sparse, to target: UnsafeMutableRawPointer
    ) throws(AdapterError) {
        let entries = try sparse.entries(reader).sorted {
            ($0.row, $0.column) < ($1.row, $1.column)
        }
        guard entries.count == sparse.count else {
            preconditionFailure("a sparse operand of another size")
        }
        for entry in entries {
            try entry.check(outFeatures: sparse.outFeatures, inFeatures: sparse.inFeatures)
        }
        var starts = [UInt32](repeating: 0, count: sparse.outFeatures + 1)
        for entry in entries { starts[entry.row + 1] += 1 }
        for row in 0..<sparse.outFeatures { starts[row + 1] += starts[row] }
        let parts = SparseLayout(count: sparse.count, outFeatures: sparse.outFeatures)
        store(starts, to: target, parts.columns)
        store(
            entries.map { UInt32($0.column) }, to: target + parts.columns,
            parts.values - parts.columns)
        store(entries.map(\.value), to: target + parts.values, parts.byteCount - parts.values)
    }

    /// Fills up the last line with zeros, whatever the memory held before.
    private func store<Number: BitwiseCopyable>(
        _ numbers: [Number], to target: UnsafeMutableRawPointer, _ byteCount: Int
    ) {
        let used = numbers.count * MemoryLayout<Number>.size
        (target + used).initializeMemory(as: UInt8.self, repeating: 0, count: byteCount - used)
        numbers.withUnsafeBytes { source in
            if let base = source.baseAddress {
                target.copyMemory(from: base, byteCount: source.count)
            }
        }
    }
}

/// Byte offsets of a sparse matrix's parts; its row starts come first.
struct SparseLayout {
    let columns: Int
    let values: Int
    let byteCount: Int

    init(count: Int, outFeatures: Int) {
        func lines(_ count: Int) -> Int { (count * 4 + 63) / 64 * 64 }
        columns = lines(outFeatures + 1)
        values = columns + lines(count)
        byteCount = values + lines(count)
    }
}
