import LorryTensor

/// Lays a builder's operations out in memory, in the order in which a step reads them.
struct AdapterLayout {
    private let builder: AdapterProgramBuilder
    private let configuration: ModelConfiguration
    private let format: OperandFormat
    private var copies: [AdapterPlan.Copy] = []
    private var byteCount = 0
    private var parameterCount = 0

    init(_ builder: AdapterProgramBuilder, format: OperandFormat) {
        self.builder = builder
        self.format = format
        configuration = builder.configuration
    }

    mutating func plan(method: String) -> AdapterPlan {
        var operations = AdapterOperations()
        for layer in 0..<configuration.layerCount {
            operations.appendLayer(LinearGroup.allCases.map { layOut(layer: layer, group: $0) })
        }
        operations.head = layOutHead()
        operations.embedding = layOutEmbedding()
        for module in configuration.modules {
            guard case .norm(let site) = module, let weight = builder.norms[site] else { continue }
            operations.norms[site] = vector(weight)
        }
        operations.givenKeysAndValues = builder.givenKeysAndValues.map { vector($0) }
        for layer in builder.promptAttentions.keys.sorted() {
            guard let prompt = builder.promptAttentions[layer] else { continue }
            operations.promptAttentions[layer] = PromptAttentionProgram(
                keys: vector(prompt.keys), values: vector(prompt.values), count: prompt.count,
                gate: vector(prompt.gate))
        }
        for layer in 0..<configuration.layerCount {
            for group in [LinearGroup.attentionOutput, .feedForwardOutput] {
                let place = BottleneckPlace(layer: layer, group: group)
                guard let bottleneck = builder.bottlenecks[place] else { continue }
                operations.bottlenecks[place] = layOut(bottleneck)
            }
        }
        operations.keepsKeysAndValues = keepsKeysAndValues
        var description = AdapterDescription(
            method: method, rank: rank, targets: targets, byteCount: byteCount,
            parameterCount: parameterCount)
        description.traits.virtualTokenCount =
            builder.virtualTokenCount > 0 ? builder.virtualTokenCount : nil
        description.traits.vocabularySize = vocabularySize
        description.traits.invocationTokens = builder.invocationTokens
        description.traits.taskCount = builder.taskCount
        description.operationCount = builder.operationCount
        return AdapterPlan(
            description: description, format: format, operations: operations, copies: copies)
    }

    // MARK: - Description

    private var rank: Int {
        let ranks =
            builder.operations.values.map { $0.lowRanks.reduce(0) { $0 + $1.rank } }
            + builder.embeddingLowRanks.map(\.rank) + builder.bottlenecks.values.map(\.rank)
        return ranks.max() ?? 0
    }

    private var targets: [String] { Set(builder.changedModules.map(\.name)).sorted() }

    private var keepsKeysAndValues: Bool {
        builder.virtualTokenCount == 0
            && builder.promptAttentions.keys.allSatisfy { $0 == configuration.layerCount - 1 }
            && builder.changedModules.allSatisfy { configuration.isBehindKeysAndValues($0) }
    }

    /// Nil where the adapter knows no further tokens.
    private var vocabularySize: Int? {
        let size = builder.vocabularySize
        return size > configuration.vocabularySize ? size : nil
    }

    // MARK: - Places

    /// Operands start at cache lines.
    private mutating func place(
        _ content: AdapterPlan.Copy.Content, byteCount size: Int, parameters: Int
    ) -> Int {
        let offset = byteCount
        byteCount += (size + 63) / 64 * 64
        copies.append(.init(range: offset..<byteCount, content: content))
        parameterCount += parameters
        return offset
    }

    private mutating func vector(_ operand: Operand) -> Int {
        place(
            .vector(operand), byteCount: operand.count * MemoryLayout<Float>.size,
            parameters: operand.count)
    }

    private mutating func narrowed(_ operand: Operand) -> Int {
        place(
            .narrowed(operand), byteCount: operand.count * MemoryLayout<UInt16>.size,
            parameters: operand.count)
    }

    private mutating func indices(_ indices: [UInt32]) -> Int {
        place(
            .indices(indices), byteCount: indices.count * MemoryLayout<UInt32>.size, parameters: 0)
    }

    // MARK: - Linear layers

    private mutating func layOut(layer: Int, group: LinearGroup) -> GroupProgram? {
        let sites = group.sites.compactMap { site in
            let module = BaseModule.linear(layer: layer, site)
            return builder.operations[module].map { (module, columnStart(site), $0) }
        }
        let groupSteps = builder.groupInputSteps[.init(layer: layer, group: group)] ?? []
        guard !sites.isEmpty || !groupSteps.isEmpty else { return nil }
        var program = GroupProgram()
        if !groupSteps.isEmpty {
            program.inputTransforms.append(
                transform(
                    groupSteps, columns: 0..<configuration.outFeatures(of: group),
                    isOfWholeGroup: true))
        }
        layOut(sites, into: &program)
        return program
    }

    private func columnStart(_ site: LinearSite) -> Int { configuration.columnStart(of: site) }

    /// Operations of modules whose outputs lie side by side.
    private mutating func layOut(
        _ modules: [(BaseModule, columnStart: Int, AdapterProgramBuilder.LinearOperations)],
        into program: inout GroupProgram
    ) {
        for (module, columnStart, operations) in modules where !operations.inputSteps.isEmpty {
            let outFeatures = configuration.dimensions(of: module).outFeatures
            program.inputTransforms.append(
                transform(
                    operations.inputSteps, columns: columnStart..<columnStart + outFeatures,
                    isOfWholeGroup: false))
        }
        layOutShrink(modules.flatMap(\.2.lowRanks), of: modules.first?.0, into: &program)
        var rankStart = 0
        for (module, columnStart, operations) in modules {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            for delta in operations.lowRanks {
                program.expands.append(
                    expand(
                        delta, rankStart: rankStart, columnStart: columnStart,
                        outFeatures: outFeatures))
                program.elementCount += delta.rank * (inFeatures + outFeatures)
                rankStart += delta.rank
            }
            layOutMatrices(operations, of: module, columnStart, into: &program)
            layOutOutput(operations, of: module, columnStart, into: &program)
        }
    }

    private mutating func layOutShrink(
        _ deltas: [AdapterProgramBuilder.LowRank], of module: BaseModule?,
        into program: inout GroupProgram
    ) {
        program.shrinkRank = deltas.reduce(0) { $0 + $1.rank }
        guard program.shrinkRank > 0, let module else { return }
        let inFeatures = configuration.dimensions(of: module).inFeatures
        program.shrinkOffset = place(
            .down(
                deltas.map { ($0.down, rank: $0.rank) }, rank: program.shrinkRank,
                inFeatures: inFeatures),
            byteCount: ShrinkFactor.byteCount(
                rank: program.shrinkRank, inFeatures: inFeatures, format: format),
            parameters: program.shrinkRank * inFeatures)
    }

    private mutating func expand(
        _ delta: AdapterProgramBuilder.LowRank, rankStart: Int, columnStart: Int, outFeatures: Int
    ) -> GroupProgram.Expand {
        let offset = place(
            .up(delta.up, rank: delta.rank, outFeatures: outFeatures),
            byteCount: ExpandFactor.byteCount(
                rank: delta.rank, outFeatures: outFeatures, format: format),
            parameters: delta.rank * outFeatures)
        return .init(
            offset: offset, rankStart: rankStart, rank: delta.rank, columnStart: columnStart,
            outFeatures: outFeatures, scale: delta.scale)
    }

    private mutating func layOutMatrices(
        _ operations: AdapterProgramBuilder.LinearOperations, of module: BaseModule,
        _ columnStart: Int, into program: inout GroupProgram
    ) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        for dense in operations.dense {
            program.dense += denseParts(
                dense.matrix, columnStart: columnStart, outFeatures: outFeatures,
                inFeatures: inFeatures, scale: dense.scale)
        }
        for sparse in operations.sparse {
            let layout = SparseLayout(count: sparse.count, outFeatures: outFeatures)
            let offset = place(
                .sparse(sparse), byteCount: layout.byteCount, parameters: sparse.count)
            program.structured.append(
                .sparse(
                    starts: offset, columns: offset + layout.columns,
                    values: offset + layout.values, columnStart: columnStart,
                    outFeatures: outFeatures))
        }
        for kronecker in operations.kroneckers {
            program.structured.append(
                .kronecker(
                    left: vector(kronecker.left), right: vector(kronecker.right),
                    kronecker.shape, scale: kronecker.scale, columnStart: columnStart))
        }
        for circulant in operations.circulants {
            program.structured.append(
                .circulant(
                    kernels: vector(circulant.kernels), blockSize: circulant.blockSize,
                    outBlocks: circulant.outBlocks, inBlocks: circulant.inBlocks,
                    columnStart: columnStart))
        }
    }

    private mutating func denseParts(
        _ matrix: Operand, columnStart: Int, outFeatures: Int, inFeatures: Int, scale: Float
    ) -> [GroupProgram.Expand] {
        var offset = place(
            .dense(matrix, outFeatures: outFeatures, inFeatures: inFeatures),
            byteCount: AdapterPlan.denseByteCount(
                outFeatures: outFeatures, inFeatures: inFeatures, format: format),
            parameters: outFeatures * inFeatures)
        return AdapterPlan.denseParts(inFeatures).map { part in
            defer {
                offset += AdapterPlan.denseByteCount(
                    part: part, outFeatures: outFeatures, format: format)
            }
            return .init(
                offset: offset, rankStart: part.lowerBound, rank: part.count,
                columnStart: columnStart, outFeatures: outFeatures, scale: scale)
        }
    }

    private mutating func layOutOutput(
        _ operations: AdapterProgramBuilder.LinearOperations, of module: BaseModule,
        _ columnStart: Int, into program: inout GroupProgram
    ) {
        let outFeatures = builder.dimensions(of: module).outFeatures
        if let scale = operations.outputScale {
            program.outputScales.append(
                .init(offset: vector(scale), columnStart: columnStart, count: outFeatures))
        }
        if let mix = operations.mix {
            program.mixes.append(
                .init(
                    own: vector(mix.own), other: vector(mix.other), columnStart: columnStart,
                    count: outFeatures, groupSize: mix.groupSize))
        }
        if !operations.biases.isEmpty {
            let offset = place(
                .bias(operations.biases, module),
                byteCount: outFeatures * MemoryLayout<Float>.size,
                parameters: operations.biases.reduce(0) { sum, _ in sum + outFeatures })
            program.biases.append(
                .init(offset: offset, columnStart: columnStart, count: outFeatures))
        }
    }

    private mutating func transform(
        _ steps: [AdapterProgramBuilder.InputStep], columns: Range<Int>, isOfWholeGroup: Bool
    ) -> GroupProgram.InputTransform {
        var placed: [GroupProgram.InputTransform.Step] = []
        for step in steps {
            switch step {
            case .scale(let operand): placed.append(.scale(offset: vector(operand)))
            case .gather(let list): placed.append(.gather(offset: indices(list)))
            case .blocks(let matrices, let blockSize, let count, let isShared):
                precondition(matrices.count == (isShared ? 1 : count) * blockSize * blockSize)
                let rest = matrices.subtractingIdentity(blockSize: blockSize)
                placed.append(
                    .blocks(
                        offset: format == .f32 ? vector(rest) : narrowed(rest),
                        format: format == .f32 ? .f32 : .bf16, blockSize: blockSize, count: count,
                        isShared: isShared))
            }
        }
        return .init(steps: placed, columns: columns, isOfWholeGroup: isOfWholeGroup)
    }

    // MARK: - Bottlenecks

    private mutating func layOut(_ bottleneck: Bottleneck) -> BottleneckProgram {
        let (width, rank) = (configuration.hiddenSize, bottleneck.rank)
        let down = place(
            .down([(bottleneck.down, rank: rank)], rank: rank, inFeatures: width),
            byteCount: ShrinkFactor.byteCount(rank: rank, inFeatures: width, format: format),
            parameters: rank * width)
        return BottleneckProgram(
            input: bottleneck.input, rank: rank, down: down,
            downBias: vector(bottleneck.downBias), activation: bottleneck.activation,
            up: denseParts(
                bottleneck.up, columnStart: 0, outFeatures: width, inFeatures: rank, scale: 1),
            upBias: vector(bottleneck.upBias))
    }

    // MARK: - Head and embedding

    private mutating func layOutHead() -> HeadProgram? {
        let operations = builder.operations[.head]
        let (table, rows) = (builder.tables[.head], builder.tableRows[.head])
        guard operations != nil || table != nil || rows != nil else { return nil }
        var head = HeadProgram()
        head.table = table.map { headRows(nil, $0) }
        if let operations { layOut([(.head, columnStart: 0, operations)], into: &head.operations) }
        head.rows = rows.map { headRows($0.tokens, $0.rows) }
        return head
    }

    private mutating func headRows(_ tokens: [Int32]?, _ rows: Operand) -> HeadRows {
        let width = configuration.hiddenSize
        return HeadRows(
            tokens: tokens, count: rows.count / width,
            parts: denseParts(
                rows, columnStart: 0, outFeatures: rows.count / width, inFeatures: width, scale: 1))
    }

    private mutating func layOutEmbedding() -> EmbeddingProgram? {
        var embedding = EmbeddingProgram()
        embedding.virtualCount = builder.virtualTokenCount
        embedding.virtualOffset = builder.virtualEmbeddings.map { vector($0) }
        embedding.table = builder.tables[.embedding].map { embeddingRows(nil, $0) }
        embedding.rows = builder.tableRows[.embedding].map { embeddingRows($0.tokens, $0.rows) }
        for delta in builder.embeddingLowRanks {
            let down = vector(delta.down)
            embedding.lowRanks.append(
                (
                    down,
                    expand(
                        delta, rankStart: 0, columnStart: 0, outFeatures: configuration.hiddenSize)
                ))
        }
        embedding.scaleOffset = builder.embeddingScale.map { vector($0) }
        let isEmpty =
            embedding.virtualCount == 0 && embedding.table == nil && embedding.rows == nil
            && embedding.lowRanks.isEmpty && embedding.scaleOffset == nil
        return isEmpty ? nil : embedding
    }

    private mutating func embeddingRows(
        _ tokens: [Int32]?, _ rows: Operand
    ) -> EmbeddingProgram.Rows {
        let isWide = format == .f32
        let offset =
            isWide ? vector(rows) : narrowed(rows)
        return .init(
            tokens: tokens, count: rows.count / configuration.hiddenSize, offset: offset,
            elementType: isWide ? .f32 : .bf16)
    }
}
