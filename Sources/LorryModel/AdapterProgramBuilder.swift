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
    }

    private struct LowRank {
        var rank: Int
        var down: Operand
        var up: Operand
        var scale: Float
    }

    private struct SiteOperations {
        var deltas: [LowRank] = []
        var outputScale: Operand?
        var biases: [AdapterPlan.Bias] = []
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
    /// The file that all tensors come from.
    private var file: MappedFile?

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
        note(down)
        note(up)
        operations[Place(layer: layer, site: site), default: SiteOperations()].deltas.append(
            LowRank(rank: rank, down: down, up: up, scale: scale))
    }

    /// Adds `y ← y + scale · vector`. `[outFeatures]`
    public mutating func addBias(
        layer: Int, site: LinearSite, vector: Operand, scale: Float = 1
    ) {
        precondition(vector.count == configuration.dimensions(of: site).outFeatures)
        operations[Place(layer: layer, site: site), default: SiteOperations()].biases.append(
            .added(source(vector), scale: scale))
    }

    /// Puts a bias in the place of the one that the base has at this site. `[outFeatures]`
    public mutating func replaceBias(layer: Int, site: LinearSite, vector: Operand) {
        precondition(vector.count == configuration.dimensions(of: site).outFeatures)
        precondition(configuration.biasedSites.contains(site))
        operations[Place(layer: layer, site: site), default: SiteOperations()].biases.append(
            .replacing(source(vector)))
    }

    /// Sets `y ← vector ⊙ y`, after the delta and before biases. `[outFeatures]`
    public mutating func setOutputScale(layer: Int, site: LinearSite, vector: Operand) {
        precondition(vector.count == configuration.dimensions(of: site).outFeatures)
        note(vector)
        operations[Place(layer: layer, site: site), default: SiteOperations()].outputScale = vector
    }

    /// Sets `x ← vector ⊙ x` for all linear layers of a group. `[inFeatures]`
    public mutating func setInputScale(layer: Int, group: LinearGroup, vector: Operand) {
        precondition(vector.count == configuration.inFeatures(of: group))
        note(vector)
        inputScales[GroupPlace(layer: layer, group: group)] = vector
    }

    /// What the adapter will be.
    public func describe(method: String, format: OperandFormat) -> AdapterDescription {
        plan(method: method, format: format).description
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
    /// - Throws: `MemoryRefusal`.
    public func build(
        method: String, format: OperandFormat, model: DecoderModel
    ) throws(MemoryRefusal) -> AdapterProgram {
        try plan(method: method, format: format).program(
            reading: file?.bytes ?? UnsafeRawBufferPointer(start: nil, count: 0), model: model)
    }

    /// A tensor's numbers are read again from its file when the plan is carried out.
    private mutating func source(_ operand: Operand) -> AdapterPlan.Source {
        note(operand)
        return AdapterPlan.Source(operand)
    }

    private mutating func note(_ operand: Operand) {
        guard case .tensor(let tensor) = operand else { return }
        precondition(tensor.elementType != nil, "a tensor that is not of weights")
        precondition(file == nil || file === tensor.bytes.owner, "tensors of two files")
        file = tensor.bytes.owner
    }
}

// MARK: - Layout

extension AdapterProgramBuilder {
    /// Where everything is to lie.
    func plan(method: String, format: OperandFormat) -> AdapterPlan {
        let ranks = operations.values.map { $0.deltas.reduce(0) { $0 + $1.rank } }
        let sites = Set(operations.keys.map(\.site))
            .union(inputScales.keys.flatMap(\.group.sites))
        var layout = Layout()
        for layer in 0..<configuration.layerCount {
            layout.groups.append(
                LinearGroup.allCases.map { group in
                    layOut(layer: layer, group: group, format: format, into: &layout)
                })
        }
        return AdapterPlan(
            description: AdapterDescription(
                method: method, rank: ranks.max() ?? 0, targets: sites.map(\.name).sorted(),
                byteCount: layout.byteCount, parameterCount: parameterCount),
            format: format, groups: layout.groups, copies: layout.copies,
            keepsKeysAndValues: keepsKeysAndValues)
    }

    /// What comes after the last layer's keys and values does not reach any of them.
    private var keepsKeysAndValues: Bool {
        let last = configuration.layerCount - 1
        return operations.keys.allSatisfy {
            $0.layer == last && $0.site != .key && $0.site != .value
        } && inputScales.keys.allSatisfy { $0.layer == last && $0.group != .attentionInput }
    }

    private struct Layout {
        var groups: [[GroupProgram?]] = []
        var copies: [AdapterPlan.Copy] = []
        var byteCount = 0

        /// Operands start at cache lines.
        mutating func place(_ content: AdapterPlan.Copy.Content, byteCount size: Int) -> Int {
            let offset = byteCount
            byteCount += (size + 63) / 64 * 64
            copies.append(.init(range: offset..<byteCount, content: content))
            return offset
        }
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
                .vector(.init(inputScale)), byteCount: inFeatures * floatByteCount)
            program.inputScale = .init(offset: offset, columnStart: 0, count: inFeatures)
        }
        let deltas = sites.flatMap(\.1.deltas)
        program.shrinkRank = deltas.reduce(0) { $0 + $1.rank }
        if program.shrinkRank > 0 {
            program.shrinkOffset = layout.place(
                .down(
                    deltas.map { (.init($0.down), rank: $0.rank) }, rank: program.shrinkRank,
                    inFeatures: inFeatures),
                byteCount: ShrinkFactor.byteCount(
                    rank: program.shrinkRank, inFeatures: inFeatures, format: format))
        }
        var rankStart = 0
        for (site, operations) in sites {
            let columnStart = configuration.columnStart(of: site)
            let outFeatures = configuration.dimensions(of: site).outFeatures
            for delta in operations.deltas {
                let offset = layout.place(
                    .up(.init(delta.up), rank: delta.rank, outFeatures: outFeatures),
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
                let offset = layout.place(
                    .vector(.init(scale)), byteCount: outFeatures * floatByteCount)
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
