import LorryTensor

/// Applies the adapter programs of a batch around the base's computations, segment by segment.
///
/// Prepared once a step; then, for each group of linear layers, `begin` before the base's matmul,
/// which takes `adjustments`, and `finish` after it. Works on the rows of segments only. The lists of
/// operations keep their memory from group to group and from step to step.
final class AdapterPass {
    private let configuration: ModelConfiguration
    private let pool: WorkerPool
    private var segments: [ForwardBatch.Segment] = []
    /// Those of the rows whose logits are computed.
    private(set) var selected: [ForwardBatch.Segment] = []
    private let transforms: InputTransformPass
    private let bottlenecks: BottleneckPass
    /// Operations 2 to 4: y ← mix(g ⊙ (y + Δ x)) + c.
    let adjustments = OutputAdjustments()

    init(configuration: ModelConfiguration, pool: WorkerPool) {
        self.configuration = configuration
        self.pool = pool
        transforms = InputTransformPass(pool: pool)
        bottlenecks = BottleneckPass(width: configuration.hiddenSize, pool: pool)
    }

    func prepare(_ segments: [ForwardBatch.Segment]) {
        self.segments = segments
        transforms.clear()
        selected.removeAll(keepingCapacity: true)
        adjustments.clear()
    }

    /// Goes on with these rows alone, in their order from 0 on.
    ///
    /// - Parameter rows: ascending.
    func keep(_ rows: [Int]) {
        var place = 0
        for index in segments.indices {
            while place < rows.count, rows[place] < segments[index].rows.lowerBound { place += 1 }
            let first = place
            while place < rows.count, rows[place] < segments[index].rows.upperBound { place += 1 }
            segments[index].rows = first..<place
        }
        segments.removeAll { $0.rows.isEmpty }
    }

    // MARK: - Linear layers

    /// Operation 1, x ← T(x), and what of the others can be done before y is known.
    func begin(layer: Int, group: LinearGroup, _ x: UnsafeMutablePointer<Float>) {
        let inFeatures = configuration.inFeatures(of: group)
        // Where no segment is left as well: the matmul must find nothing of the last group's.
        transforms.clear()
        adjustments.fill { parts in
            for segment in segments {
                guard let shared = segment.program.operations.at(layer, group) else { continue }
                parts.append(shared.program, of: segment, inFeatures: inFeatures)
                guard !shared.program.inputTransforms.isEmpty else { continue }
                transforms.append(shared.program, of: segment)
            }
        }
        guard !segments.isEmpty else { return }
        transforms.run(
            x, width: inFeatures, yStride: configuration.outFeatures(of: group))
        adjustments.begin(
            x, xStride: inFeatures, inFeatures: inFeatures,
            yStride: configuration.outFeatures(of: group), pool: pool)
    }

    /// What is left to do after the matmul.
    func finish(
        layer: Int, group: LinearGroup, input: UnsafePointer<Float>,
        output: UnsafeMutablePointer<Float>
    ) {
        guard !segments.isEmpty else { return }
        let inFeatures = configuration.inFeatures(of: group)
        adjustments.finish(
            input, xStride: inFeatures, inFeatures: inFeatures, y: output,
            yStride: configuration.outFeatures(of: group), pool: pool)
    }

    /// Parts of the next matmul's output whose inputs an adapter has changed.
    var reruns: [MatmulRerun] { transforms.reruns }

    /// Adds what the adapters' own networks make of a sublayer's output and the residual stream.
    func addBottlenecks(
        layer: Int, group: LinearGroup, output: UnsafeMutablePointer<Float>,
        residual: UnsafePointer<Float>
    ) {
        bottlenecks.run(
            BottleneckPlace(layer: layer, group: group), segments, output: output,
            residual: residual)
    }

    // MARK: - Norms

    /// Normalizes anew the rows whose adapter has another weight for this norm.
    func replaceNorm(
        _ site: BaseModule.NormSite, of x: UnsafePointer<Float>,
        out: UnsafeMutablePointer<Float>
    ) {
        replaceNorm(site, segments, of: x, out: out)
    }

    private func replaceNorm(
        _ site: BaseModule.NormSite, _ segments: [ForwardBatch.Segment],
        of x: UnsafePointer<Float>, out: UnsafeMutablePointer<Float>
    ) {
        let width = configuration.hiddenSize
        for segment in segments {
            guard let offset = segment.program.operations.norms[site] else { continue }
            let first = segment.rows.lowerBound * width
            rmsNorm(
                x + first, xStride: width, rowCount: segment.rows.count, width: width,
                weight: segment.program.floats(at: offset), epsilon: configuration.normEpsilon,
                out: out + first, outStride: width, pool: pool)
        }
    }

    // MARK: - Attention

    /// Puts the given keys and values of virtual tokens in the places of computed ones.
    ///
    /// - Parameters:
    ///   - tokens: of all rows.
    ///   - key: of row 0, with its value `valueOffset` floats after it; rows `stride` floats apart.
    func giveKeysAndValues(
        layer: Int, tokens: [Int32], key: UnsafeMutablePointer<Float>, valueOffset: Int, stride: Int
    ) {
        let width = configuration.kvWidth
        for segment in segments where !segment.program.operations.givenKeysAndValues.isEmpty {
            let given = segment.program.floats(
                at: segment.program.operations.givenKeysAndValues[layer])
            for row in segment.rows where tokens[row] < 0 {
                let source = given + Int(-1 - tokens[row]) * 2 * width
                let target = key + row * stride
                target.update(from: source, count: width)
                (target + valueOffset).update(from: source + width, count: width)
            }
        }
    }

    /// Adds the attention to prompts that lie outside the context.
    func addPromptAttention(
        layer: Int, q: UnsafePointer<Float>, qStride: Int, scale: Float,
        out: UnsafeMutablePointer<Float>
    ) {
        for segment in segments {
            let program = segment.program
            guard let prompt = program.operations.promptAttentions[layer] else { continue }
            let outStride = configuration.queryWidth
            PromptAttention(
                keys: program.floats(at: prompt.keys), values: program.floats(at: prompt.values),
                count: prompt.count, gate: program.floats(at: prompt.gate).pointee
            ).add(
                q: q + segment.rows.lowerBound * qStride, qStride: qStride,
                rowCount: segment.rows.count, headCount: configuration.headCount,
                kvHeadCount: configuration.kvHeadCount, headDim: configuration.headDim,
                scale: scale, out: out + segment.rows.lowerBound * outStride, outStride: outStride,
                pool: pool)
        }
    }

    // MARK: - Embedding

    /// Changes the rows of tokens whose embedding is not the base's.
    ///
    /// - Parameters:
    ///   - tokens: of all rows.
    ///   - x: `[rows, hiddenSize]`, the base's embeddings of the base's tokens.
    func embed(_ tokens: [Int32], _ x: UnsafeMutablePointer<Float>) {
        for segment in segments {
            guard let embedding = segment.program.operations.embedding else { continue }
            EmbeddingPass(
                program: segment.program, embedding: embedding, configuration: configuration,
                pool: pool
            ).apply(tokens, rows: segment.rows, x)
        }
    }

    // MARK: - Head

    /// Finds the segments among some rows, with rows counted from the first.
    func selectSegments(of rows: Range<Int>) {
        selected.removeAll(keepingCapacity: true)
        for segment in segments where segment.rows.overlaps(rows) {
            let own = segment.rows.clamped(to: rows)
            selected.append(
                .init(
                    rows: own.lowerBound - rows.lowerBound..<own.upperBound - rows.lowerBound,
                    program: segment.program))
        }
    }

    /// Normalizes anew what goes into the head.
    func replaceFinalNorm(of x: UnsafePointer<Float>, out: UnsafeMutablePointer<Float>) {
        replaceNorm(.final, selected, of: x, out: out)
    }

    /// Changes the logits that the base's head gave, and adds those of further tokens.
    ///
    /// - Parameters:
    ///   - x: `[rows, hiddenSize]`, normalized.
    ///   - y: `[rows, yStride]`
    func finishHead(
        of x: UnsafePointer<Float>, _ y: UnsafeMutablePointer<Float>, yStride: Int
    ) {
        let width = configuration.hiddenSize
        addHeadRows(\.table, x, y, yStride: yStride)
        adjustments.fill { parts in
            for segment in selected {
                guard let head = segment.program.operations.head else { continue }
                parts.append(head.operations, of: segment, inFeatures: width, waits: true)
            }
        }
        adjustments.begin(x, xStride: width, inFeatures: width, yStride: yStride, pool: pool)
        adjustments.finish(
            x, xStride: width, inFeatures: width, y: y, yStride: yStride, pool: pool)
        adjustments.clear()
        addHeadRows(\.rows, x, y, yStride: yStride)
    }

    private func addHeadRows(
        _ part: KeyPath<HeadProgram, HeadRows?>, _ x: UnsafePointer<Float>,
        _ y: UnsafeMutablePointer<Float>, yStride: Int
    ) {
        for segment in selected {
            guard let rows = segment.program.operations.head?[keyPath: part] else { continue }
            HeadRowsPass(rows: rows, segment: segment, pool: pool)
                .apply(x, width: configuration.hiddenSize, y, yStride: yStride)
        }
    }
}

// MARK: - Operations of segments

extension AdjustmentParts {
    /// Adds a segment with its operations at one group of linear layers.
    ///
    /// - Parameter waits: whether y is not final once the batch's matmul has computed it.
    fileprivate mutating func append(
        _ group: GroupProgram, of segment: ForwardBatch.Segment, inFeatures: Int,
        waits: Bool = false
    ) {
        let program = segment.program
        appendSegment(rows: segment.rows, waits: waits)
        if group.shrinkRank > 0 {
            let vOffset = append(
                ShrinkSegment(group, of: segment), elementCount: group.elementCount)
            for expand in group.expands {
                append(
                    ExpandSegment(
                        expand, of: segment, vOffset: vOffset + expand.rankStart,
                        vStride: group.shrinkRank))
            }
        }
        guard !group.isLowRankAlone else { return }
        for part in group.dense {
            appendDense(
                ExpandSegment(
                    part, of: segment, vOffset: part.rankStart, vStride: inFeatures))
        }
        for structured in group.structured { append(structured, of: program) }
        for scale in group.outputScales { appendScale(VectorSegment(scale, of: segment)) }
        for mix in group.mixes {
            append(
                PairMix(
                    own: program.floats(at: mix.own), other: program.floats(at: mix.other),
                    count: mix.count, groupSize: mix.groupSize),
                columnStart: mix.columnStart)
        }
        for bias in group.biases { appendBias(VectorSegment(bias, of: segment)) }
    }

    private mutating func append(_ structured: GroupProgram.Structured, of program: AdapterProgram)
    {
        switch structured {
        case .sparse(let starts, let columns, let values, let columnStart, let outFeatures):
            append(
                .sparse(
                    starts: program.indices(at: starts), columns: program.indices(at: columns),
                    values: program.floats(at: values), outFeatures: outFeatures),
                columnStart: columnStart)
        case .kronecker(let left, let right, let shape, let scale, let columnStart):
            append(
                .kronecker(
                    left: program.floats(at: left), right: program.floats(at: right), shape,
                    scale: scale),
                columnStart: columnStart)
        case .circulant(let kernels, let blockSize, let outBlocks, let inBlocks, let columnStart):
            append(
                .circulant(
                    kernels: program.floats(at: kernels), blockSize: blockSize,
                    outBlocks: outBlocks, inBlocks: inBlocks),
                columnStart: columnStart)
        }
    }
}

extension ShrinkSegment {
    fileprivate init(_ group: GroupProgram, of segment: ForwardBatch.Segment) {
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            a: segment.program.operand(at: group.shrinkOffset),
            rank: group.shrinkRank, format: segment.program.format, vOffset: 0)
    }
}

extension ExpandSegment {
    init(
        _ expand: GroupProgram.Expand, of segment: ForwardBatch.Segment, vOffset: Int, vStride: Int
    ) {
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            b: segment.program.operand(at: expand.offset),
            rank: expand.rank, format: segment.program.format, vOffset: vOffset, vStride: vStride,
            outStart: expand.columnStart, outFeatures: expand.outFeatures, scale: expand.scale)
    }
}

extension VectorSegment {
    fileprivate init(_ vector: GroupProgram.Vector, of segment: ForwardBatch.Segment) {
        self.init(
            rowStart: segment.rows.lowerBound, rowCount: segment.rows.count,
            vector: segment.program.floats(at: vector.offset),
            start: vector.columnStart, count: vector.count)
    }
}
