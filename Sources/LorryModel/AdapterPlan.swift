import LorryTensor

/// Where an adapter's operands come from and where they go: all that its configuration and its
/// file's header decide. Adapters whose configurations and headers are equal share a plan.
struct AdapterPlan: Sendable {
    /// Numbers by their place in the adapter's file, or computed ones.
    enum Source: Sendable {
        case stored(offset: Int, count: Int, ElementType)
        case computed([Float])

        init(_ operand: AdapterProgramBuilder.Operand) {
            switch operand {
            case .floats(let floats): self = .computed(floats)
            case .tensor(let tensor):
                guard let type = tensor.elementType else {
                    preconditionFailure("a tensor that is not of weights")
                }
                self = .stored(offset: tensor.fileOffset, count: tensor.elementCount, type)
            }
        }

        var count: Int {
            switch self {
            case .stored(_, let count, _): count
            case .computed(let floats): floats.count
            }
        }
    }

    enum Bias: Sendable {
        case added(Source, scale: Float)
        /// Takes the place of the base's bias.
        case replacing(Source)
    }

    /// One operand's way into the program's memory.
    struct Copy: Sendable {
        enum Content {
            /// Stacked to one `[rank, inFeatures]`.
            case down([(Source, rank: Int)], rank: Int, inFeatures: Int)
            /// `[outFeatures, rank]`
            case up(Source, rank: Int, outFeatures: Int)
            case vector(Source)
            case bias([Bias], layer: Int, site: LinearSite)
        }
        /// Of the program's memory, whole cache lines.
        var range: Range<Int>
        var content: Content
    }

    let description: AdapterDescription
    let format: OperandFormat
    let groups: [[GroupProgram?]]
    let copies: [Copy]
    let keepsKeysAndValues: Bool

    /// Whether the plan holds for every adapter with an equal configuration and header: nothing in
    /// it was computed from the numbers of one.
    var isShareable: Bool {
        copies.allSatisfy { copy in
            switch copy.content {
            case .down(let parts, _, _): parts.allSatisfy(\.0.isStored)
            case .up(let source, _, _), .vector(let source): source.isStored
            case .bias(let biases, _, _):
                biases.allSatisfy { bias in
                    switch bias {
                    case .added(let source, _), .replacing(let source): source.isStored
                    }
                }
            }
        }
    }

    /// Reads, converts and lays out the operands.
    ///
    /// - Parameters:
    ///   - file: the whole file that the plan was made for, or one with an equal header and size.
    ///   - spares: where the program's memory may come from, and goes in the end.
    /// - Throws: `MemoryRefusal`.
    func program(
        reading file: UnsafeRawBufferPointer, model: DecoderModel, spares: SparePages? = nil
    ) throws(MemoryRefusal) -> AdapterProgram {
        let memory = try PageMemory(byteCount: max(description.byteCount, 64), spares: spares)
        let writer = OperandWriter(file: file, format: format, model: model)
        for copy in copies { writer.write(copy, to: memory.start + copy.range.lowerBound) }
        return AdapterProgram(
            description: description, format: format, operands: memory, groups: groups,
            keepsKeysAndValues: keepsKeysAndValues)
    }
}

extension AdapterPlan.Source {
    fileprivate var isStored: Bool { if case .stored = self { true } else { false } }
}

/// Fills a program's memory from an adapter's file.
private struct OperandWriter {
    let file: UnsafeRawBufferPointer
    let format: OperandFormat
    let model: DecoderModel

    /// - Parameter target: has room for the copy's range.
    func write(_ copy: AdapterPlan.Copy, to target: UnsafeMutableRawPointer) {
        switch copy.content {
        case .down(let parts, let rank, let inFeatures):
            var start = 0
            for (source, count) in parts {
                withFactor(source) { factor in
                    ShrinkFactor.pack(
                        factor, ranks: start..<start + count, of: rank, inFeatures: inFeatures,
                        format: format, to: target)
                }
                start += count
            }
        case .up(let source, let rank, let outFeatures):
            withFactor(source) { factor in
                ExpandFactor.pack(
                    factor, rank: rank, outFeatures: outFeatures, format: format, to: target)
            }
        case .vector(let source):
            store(floats(source), to: target, copy.range.count)
        case .bias(let biases, let layer, let site):
            let base = model.bias(layer: layer, site: site).map(Array.init)
            store(sum(biases, base: base), to: target, copy.range.count)
        }
    }

    private func withFactor(_ source: AdapterPlan.Source, _ body: (FactorSource) -> Void) {
        switch source {
        case .stored(let offset, let count, let type):
            let range = offset..<offset + count * type.byteCount
            let bytes = UnsafeRawBufferPointer(rebasing: file[range])
            body(FactorSource(bytes: bytes, elementType: type))
        case .computed(let floats):
            floats.withUnsafeBytes { body(FactorSource(bytes: $0, elementType: .f32)) }
        }
    }

    private func floats(_ source: AdapterPlan.Source) -> [Float] {
        if case .computed(let floats) = source { return floats }
        var floats = [Float](repeating: 0, count: source.count)
        floats.withUnsafeMutableBufferPointer { destination in
            withFactor(source) { factor in
                if let from = factor.bytes.baseAddress, let to = destination.baseAddress {
                    widen(from, factor.elementType, count: destination.count, to: to)
                }
            }
        }
        return floats
    }

    private func sum(_ biases: [AdapterPlan.Bias], base: [Float]?) -> [Float] {
        var total: [Float] = []
        for bias in biases {
            let shift: [Float] =
                switch bias {
                case .added(let vector, let scale): floats(vector).map { $0 * scale }
                case .replacing(let vector): zip(floats(vector), base ?? []).map { $0 - $1 }
                }
            total = total.isEmpty ? shift : zip(total, shift).map { $0 + $1 }
        }
        return total
    }

    /// Fills up the last line with zeros, whatever the memory held before.
    private func store(
        _ numbers: [Float], to target: UnsafeMutableRawPointer, _ byteCount: Int
    ) {
        let used = numbers.count * MemoryLayout<Float>.size
        (target + used).initializeMemory(as: UInt8.self, repeating: 0, count: byteCount - used)
        numbers.withUnsafeBytes { source in
            if let base = source.baseAddress {
                target.copyMemory(from: base, byteCount: source.count)
            }
        }
    }
}
