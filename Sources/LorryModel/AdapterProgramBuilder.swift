import LorryTensor

/// Collects an adapter's operations and lays them out as an `AdapterProgram`.
///
/// Compilers of PEFT methods only talk to this type: each call adds one operation at one linear
/// layer, checked against the base model's dimensions.
public struct AdapterProgramBuilder: Sendable {
    /// Numbers that come from a mapped file or were computed.
    public enum Operand: Sendable {
        case tensor(SafetensorsFile.Tensor)
        case floats([Float])

        var count: Int {
            switch self {
            case .tensor(let tensor): tensor.elementCount
            case .floats(let floats): floats.count
            }
        }

        var floats: [Float] {
            switch self {
            case .tensor(let tensor): tensor.floats()
            case .floats(let floats): floats
            }
        }
    }

    private struct LowRank {
        var rank: Int
        var down: Operand
        var up: Operand
        var scale: Float
    }

    private enum Bias {
        case added(Operand, scale: Float)
        /// Takes the place of the base's bias.
        case replacing(Operand)
    }

    private struct SiteOperations {
        var deltas: [LowRank] = []
        var outputScale: Operand?
        var biases: [Bias] = []
    }

    private struct Place: Hashable {
        var layer: Int
        var site: LinearSite
    }

    private struct GroupPlace: Hashable {
        var layer: Int
        var group: LinearGroup
    }

    public let configuration: ModelConfiguration
    private var operations: [Place: SiteOperations] = [:]
    private var inputScales: [GroupPlace: Operand] = [:]

    public init(configuration: ModelConfiguration) { self.configuration = configuration }

    /// Adds `y ← y + scale · up (down x)`.
    ///
    /// - Parameters:
    ///   - down: `[rank, inFeatures]`, row-major.
    ///   - up: `[outFeatures, rank]`, row-major.
    public mutating func addLowRank(
        layer: Int, site: LinearSite, rank: Int, down: Operand, up: Operand, scale: Float
    ) {
        let (outFeatures, inFeatures) = configuration.dimensions(of: site)
        precondition(down.count == rank * inFeatures && up.count == outFeatures * rank)
        operations[Place(layer: layer, site: site), default: SiteOperations()].deltas.append(
            LowRank(rank: rank, down: down, up: up, scale: scale))
    }

    /// Adds `y ← y + scale · vector`. `[outFeatures]`
    public mutating func addBias(
        layer: Int, site: LinearSite, vector: Operand, scale: Float = 1
    ) {
        precondition(vector.count == configuration.dimensions(of: site).outFeatures)
        operations[Place(layer: layer, site: site), default: SiteOperations()].biases.append(
            .added(vector, scale: scale))
    }

    /// Puts a bias in the place of the one that the base has at this site. `[outFeatures]`
    public mutating func replaceBias(layer: Int, site: LinearSite, vector: Operand) {
        precondition(vector.count == configuration.dimensions(of: site).outFeatures)
        precondition(configuration.biasedSites.contains(site))
        operations[Place(layer: layer, site: site), default: SiteOperations()].biases.append(
            .replacing(vector))
    }

    /// Sets `y ← vector ⊙ y`, after the delta and before biases. `[outFeatures]`
    public mutating func setOutputScale(layer: Int, site: LinearSite, vector: Operand) {
        precondition(vector.count == configuration.dimensions(of: site).outFeatures)
        operations[Place(layer: layer, site: site), default: SiteOperations()].outputScale = vector
    }

    /// Sets `x ← vector ⊙ x` for all linear layers of a group. `[inFeatures]`
    public mutating func setInputScale(layer: Int, group: LinearGroup, vector: Operand) {
        precondition(vector.count == configuration.inFeatures(of: group))
        inputScales[GroupPlace(layer: layer, group: group)] = vector
    }

    /// What the adapter will be, without laying it out.
    public func describe(method: String, format: OperandFormat) -> AdapterDescription {
        let ranks = operations.values.map { $0.deltas.reduce(0) { $0 + $1.rank } }
        let sites = Set(operations.keys.map(\.site))
            .union(inputScales.keys.flatMap(\.group.sites))
        return AdapterDescription(
            method: method,
            rank: ranks.max() ?? 0,
            targets: sites.map(\.name).sorted(),
            byteCount: layOut(format: format).byteCount,
            parameterCount: parameterCount)
    }

    private var parameterCount: Int {
        operations.values.reduce(inputScales.values.reduce(0) { $0 + $1.count }) { sum, site in
            sum + site.deltas.reduce(0) { $0 + $1.down.count + $1.up.count }
                + (site.outputScale?.count ?? 0)
                + site.biases.reduce(0) { total, bias in
                    switch bias {
                    case .added(let vector, _), .replacing(let vector): total + vector.count
                    }
                }
        }
    }

    /// Lays everything out in memory.
    ///
    /// - Parameter model: the base, for the biases that the adapter's replace.
    public func build(method: String, format: OperandFormat, model: DecoderModel) -> AdapterProgram
    {
        let layout = layOut(format: format)
        let operands = OperandBuffer(byteCount: layout.byteCount)
        for copy in layout.copies {
            copy.write(to: operands.pointer(at: copy.offset), format: format, model: model)
        }
        return AdapterProgram(
            description: describe(method: method, format: format), format: format,
            operands: operands, groups: layout.groups)
    }
}

// MARK: - Layout

extension AdapterProgramBuilder {
    /// One operand's way into the program's memory.
    private struct Copy {
        enum Content {
            /// Stacked to one `[rank, inFeatures]`.
            case down([Operand], rank: Int, inFeatures: Int)
            /// `[outFeatures, rank]`
            case up(Operand, rank: Int, outFeatures: Int)
            case vector(Operand)
            case bias([Bias], layer: Int, site: LinearSite)
        }
        var offset: Int
        var content: Content

        func write(to target: UnsafeMutableRawPointer, format: OperandFormat, model: DecoderModel) {
            switch content {
            case .down(let parts, let rank, let inFeatures):
                ShrinkFactor.pack(
                    parts.flatMap(\.floats), rank: rank, inFeatures: inFeatures, format: format,
                    to: target)
            case .up(let operand, let rank, let outFeatures):
                ExpandFactor.pack(
                    operand.floats, rank: rank, outFeatures: outFeatures, format: format,
                    to: target)
            case .vector(let operand):
                store(operand.floats, to: target)
            case .bias(let biases, let layer, let site):
                let base = model.bias(layer: layer, site: site).map(Array.init)
                store(sum(biases, base: base), to: target)
            }
        }

        private func sum(_ biases: [Bias], base: [Float]?) -> [Float] {
            var total: [Float] = []
            for bias in biases {
                let shift: [Float] =
                    switch bias {
                    case .added(let vector, let scale): vector.floats.map { $0 * scale }
                    case .replacing(let vector):
                        zip(vector.floats, base ?? []).map { $0 - $1 }
                    }
                total = total.isEmpty ? shift : zip(total, shift).map { $0 + $1 }
            }
            return total
        }
    }

    private struct Layout {
        var groups: [[GroupProgram?]] = []
        var copies: [Copy] = []
        var byteCount = 0

        /// Operands start at cache lines.
        mutating func place(_ content: Copy.Content, byteCount size: Int) -> Int {
            let offset = byteCount
            copies.append(Copy(offset: offset, content: content))
            byteCount += (size + 63) / 64 * 64
            return offset
        }
    }

    private func layOut(format: OperandFormat) -> Layout {
        var layout = Layout()
        for layer in 0..<configuration.layerCount {
            layout.groups.append(
                LinearGroup.allCases.map { group in
                    layOut(layer: layer, group: group, format: format, into: &layout)
                })
        }
        return layout
    }

    private func layOut(
        layer: Int, group: LinearGroup, format: OperandFormat, into layout: inout Layout
    ) -> GroupProgram? {
        let inFeatures = configuration.inFeatures(of: group)
        let floatByteCount = MemoryLayout<Float>.size
        let sites = group.sites.compactMap { site in
            operations[Place(layer: layer, site: site)].map { (site, $0) }
        }
        let inputScale = inputScales[GroupPlace(layer: layer, group: group)]
        guard !sites.isEmpty || inputScale != nil else { return nil }
        var program = GroupProgram()
        if let inputScale {
            let offset = layout.place(
                .vector(inputScale), byteCount: inFeatures * floatByteCount)
            program.inputScale = .init(offset: offset, columnStart: 0, count: inFeatures)
        }
        let deltas = sites.flatMap(\.1.deltas)
        program.shrinkRank = deltas.reduce(0) { $0 + $1.rank }
        if program.shrinkRank > 0 {
            program.shrinkOffset = layout.place(
                .down(deltas.map(\.down), rank: program.shrinkRank, inFeatures: inFeatures),
                byteCount: ShrinkFactor.byteCount(
                    rank: program.shrinkRank, inFeatures: inFeatures, format: format))
        }
        var rankStart = 0
        for (site, operations) in sites {
            let columnStart = configuration.columnStart(of: site)
            let outFeatures = configuration.dimensions(of: site).outFeatures
            for delta in operations.deltas {
                let offset = layout.place(
                    .up(delta.up, rank: delta.rank, outFeatures: outFeatures),
                    byteCount: ExpandFactor.byteCount(
                        rank: delta.rank, outFeatures: outFeatures, format: format))
                program.expands.append(
                    .init(
                        offset: offset, rankStart: rankStart, rank: delta.rank,
                        columnStart: columnStart, outFeatures: outFeatures, scale: delta.scale))
                program.elementCount += delta.rank * (inFeatures + outFeatures)
                rankStart += delta.rank
            }
            if let scale = operations.outputScale {
                let offset = layout.place(.vector(scale), byteCount: outFeatures * floatByteCount)
                program.outputScales.append(
                    .init(offset: offset, columnStart: columnStart, count: outFeatures))
            }
            if !operations.biases.isEmpty {
                let offset = layout.place(
                    .bias(operations.biases, layer: layer, site: site),
                    byteCount: outFeatures * floatByteCount)
                program.biases.append(
                    .init(offset: offset, columnStart: columnStart, count: outFeatures))
            }
        }
        return program
    }
}

/// Writes numbers in single precision to a program's memory, which has room for them.
private func store(_ numbers: [Float], to target: UnsafeMutableRawPointer) {
    numbers.withUnsafeBytes { source in
        if let base = source.baseAddress {
            target.copyMemory(from: base, byteCount: source.count)
        }
    }
}
