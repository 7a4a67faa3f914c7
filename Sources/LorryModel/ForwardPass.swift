import LorryTensor

/// Runs batches through a decoder, one step after the other.
///
/// Owns the activations, sized once for the largest batch. Used by one thread at a time; not
/// Sendable. The bits of a row's result depend on its own sequence and adapter only, not on the
/// other rows of the batch.
public final class ForwardPass {
    public let model: DecoderModel
    public let kvLayout: KVLayout
    /// Most rows that a batch may have.
    public let maximumRowCount: Int
    /// Most rows whose logits one call of `logits` computes.
    public static let logitTileRowCount = 64

    private let pool: WorkerPool
    private let configuration: ModelConfiguration
    private let adapters: AdapterPass

    // Activations in single precision, a row per token.
    private let residual: AlignedBuffer<Float>  // [rows, hiddenSize]
    private let normalized: AlignedBuffer<Float>  // [rows, hiddenSize]
    private let attentionInput: AlignedBuffer<Float>  // [rows, q | k | v]
    private let attention: AlignedBuffer<Float>  // [rows, queryWidth]
    private let projected: AlignedBuffer<Float>  // [rows, hiddenSize]
    private let gateUp: AlignedBuffer<Float>  // [rows, gate | up]
    private let activated: AlignedBuffer<Float>  // [rows, intermediateSize]
    private var logits: AlignedBuffer<Float>  // [logitTileRowCount, vocabularySize or more]
    private var blockTables: AlignedBuffer<Int32>
    private var spans: [AttentionSpan] = []

    public init(model: DecoderModel, kvLayout: KVLayout, maximumRowCount: Int, pool: WorkerPool) {
        self.model = model
        self.kvLayout = kvLayout
        self.maximumRowCount = maximumRowCount
        self.pool = pool
        let configuration = model.configuration
        self.configuration = configuration
        adapters = AdapterPass(configuration: configuration, pool: pool)
        let rows = max(maximumRowCount, Self.logitTileRowCount)
        residual = AlignedBuffer(count: rows * configuration.hiddenSize)
        normalized = AlignedBuffer(count: rows * configuration.hiddenSize)
        attentionInput = AlignedBuffer(
            count: rows * configuration.outFeatures(of: .attentionInput))
        attention = AlignedBuffer(count: rows * configuration.queryWidth)
        projected = AlignedBuffer(count: rows * configuration.hiddenSize)
        gateUp = AlignedBuffer(count: rows * configuration.outFeatures(of: .feedForwardInput))
        activated = AlignedBuffer(count: rows * configuration.intermediateSize)
        logits = AlignedBuffer(count: Self.logitTileRowCount * configuration.vocabularySize)
        blockTables = AlignedBuffer(count: 1024)
    }

    /// Runs all layers over a batch. Keys and values of the rows are written into their blocks.
    ///
    /// - Parameters:
    ///   - batch: tokens within the vocabulary, at positions within the model's context.
    ///   - arena: the KV blocks, block `i` at byte `i · kvLayout.blockByteCount`; changed in place.
    public func run(_ batch: ForwardBatch, arena: UnsafeMutableRawPointer) {
        precondition(batch.rowCount <= maximumRowCount)
        adapters.prepare(batch.segments)
        embed(batch.tokens)
        prepareSpans(batch)
        for layer in 0..<configuration.layerCount {
            attend(layer, batch, arena)
            feedForward(layer, batch)
        }
    }

    /// Lets go of the adapters of the batch that `run` last ran: an evicted one's memory must be
    /// free before the next step.
    public func finish() { adapters.prepare([]) }

    /// Logits of some rows, valid until the closure returns that was given them.
    public struct Logits {
        let start: UnsafeMutablePointer<Float>
        let stride: Int
        let vocabularySize: Int
        let segments: [ForwardBatch.Segment]

        /// Of the row at this place among those asked for, which may be changed: one for each token
        /// that the row's head has.
        public func row(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
            let own = segments.first { $0.rows.contains(index) }
            return UnsafeMutableBufferPointer(
                start: start + index * stride, count: own?.program.logitCount ?? vocabularySize)
        }
    }

    /// Computes logits of rows of the batch that `run` last ran.
    ///
    /// - Parameters:
    ///   - rows: at most `logitTileRowCount`, ascending.
    ///   - body: gets their logits.
    public func withLogits<Result>(
        of rows: ArraySlice<Int>, _ body: (Logits) throws -> Result
    ) rethrows -> Result {
        precondition(rows.count <= Self.logitTileRowCount)
        let width = configuration.hiddenSize
        for (index, row) in rows.enumerated() {
            (projected.pointer + index * width).update(
                from: residual.pointer + row * width, count: width)
        }
        rmsNorm(
            projected.pointer, xStride: width, rowCount: rows.count, width: width,
            weight: model.finalNorm, epsilon: configuration.normEpsilon, out: normalized.pointer,
            outStride: width, pool: pool)
        adapters.selectSegments(of: rows)
        let stride = adapters.selected.reduce(configuration.vocabularySize) {
            max($0, $1.program.logitCount ?? 0)
        }
        if stride * Self.logitTileRowCount > logits.count {
            logits = AlignedBuffer(count: stride * Self.logitTileRowCount)
        }
        adapters.replaceFinalNorm(of: projected.pointer, out: normalized.pointer)
        matmul(
            normalized.pointer, xStride: width, rowCount: rows.count, weights: model.head,
            bias: nil, y: logits.pointer, yStride: stride, pool: pool)
        adapters.finishHead(of: normalized.pointer, logits.pointer, yStride: stride)
        return try body(
            Logits(
                start: logits.pointer, stride: stride,
                vocabularySize: configuration.vocabularySize, segments: adapters.selected))
    }

    // MARK: - Layers

    /// x += O(attention(Q(norm x), K(norm x), V(norm x)))
    private func attend(_ layer: Int, _ batch: ForwardBatch, _ arena: UnsafeMutableRawPointer) {
        normalize(.attention(layer: layer), rowCount: batch.rowCount)
        linear(.attentionInput, layer, batch, input: normalized, output: attentionInput)
        let stride = configuration.outFeatures(of: .attentionInput)
        let query = attentionInput.pointer
        let key = query + configuration.columnStart(of: .key)
        let value = query + configuration.columnStart(of: .value)
        rotate(query, stride: stride, headCount: configuration.headCount, batch)
        rotate(key, stride: stride, headCount: configuration.kvHeadCount, batch)
        adapters.giveKeysAndValues(
            layer: layer, tokens: batch.tokens, key: key, valueOffset: value - key, stride: stride)
        storeKV(
            k: key, kStride: stride, v: value, vStride: stride, spans: spans, layout: kvLayout,
            layer: layer, arena: arena, pool: pool)
        let scale = 1 / Float(configuration.headDim).squareRoot()
        pagedAttention(
            q: query, qStride: stride, headCount: configuration.headCount, spans: spans,
            layout: kvLayout, layer: layer, arena: UnsafeRawPointer(arena),
            scoring: AttentionScoring(
                scale: scale,
                slidingWindow: configuration.slidingWindows[layer]),
            out: attention.pointer, outStride: configuration.queryWidth, pool: pool)
        adapters.addPromptAttention(
            layer: layer, q: query, qStride: stride, scale: scale, out: attention.pointer)
        linear(.attentionOutput, layer, batch, input: attention, output: projected)
        addToResidual(.attentionOutput, layer, rowCount: batch.rowCount)
    }

    /// x += Down(silu(Gate(norm x)) ⊙ Up(norm x))
    private func feedForward(_ layer: Int, _ batch: ForwardBatch) {
        normalize(.feedForward(layer: layer), rowCount: batch.rowCount)
        linear(.feedForwardInput, layer, batch, input: normalized, output: gateUp)
        siluMultiply(
            gateUp.pointer, gateUpStride: 2 * configuration.intermediateSize,
            rowCount: batch.rowCount, innerSize: configuration.intermediateSize,
            out: activated.pointer, outStride: configuration.intermediateSize, pool: pool)
        linear(.feedForwardOutput, layer, batch, input: activated, output: projected)
        addToResidual(.feedForwardOutput, layer, rowCount: batch.rowCount)
    }

    /// The base's matmul for all rows, with each segment's adapter around it.
    private func linear(
        _ group: LinearGroup, _ layer: Int, _ batch: ForwardBatch, input: AlignedBuffer<Float>,
        output: AlignedBuffer<Float>
    ) {
        let weights = model.layers[layer].linears[group.rawValue]
        let bias = model.layers[layer].biases[group.rawValue]
        adapters.begin(layer: layer, group: group, input.pointer)
        matmul(
            input.pointer, xStride: weights.inFeatures, rowCount: batch.rowCount, weights: weights,
            bias: bias, y: output.pointer,
            yStride: weights.outFeatures, reruns: adapters.reruns, then: adapters.adjustments,
            pool: pool)
        adapters.finish(
            layer: layer, group: group, input: input.pointer, output: output.pointer)
    }

    // MARK: - Parts

    private func embed(_ tokens: [Int32]) {
        let width = configuration.hiddenSize
        for (row, token) in tokens.enumerated() {
            let target = residual.pointer + row * width
            if token >= 0 && Int(token) < configuration.vocabularySize {
                model.copyEmbedding(Int(token), to: target)
            } else {
                // Known to adapters alone, which write it; nothing of another step may stay.
                target.update(repeating: 0, count: width)
            }
        }
        adapters.embed(tokens, residual.pointer)
    }

    private func prepareSpans(_ batch: ForwardBatch) {
        let blockCount = batch.blockTables.count
        if blockCount > blockTables.count { blockTables = AlignedBuffer(count: 2 * blockCount) }
        blockTables.pointer.update(from: batch.blockTables, count: blockCount)
        spans.removeAll(keepingCapacity: true)
        for span in batch.spans {
            spans.append(
                AttentionSpan(
                    rowStart: span.rows.lowerBound, rowCount: span.rows.count,
                    startPosition: span.startPosition,
                    blockTable: UnsafePointer(blockTables.pointer + span.blocks.lowerBound)))
        }
    }

    private func normalize(_ site: BaseModule.NormSite, rowCount: Int) {
        let width = configuration.hiddenSize
        rmsNorm(
            residual.pointer, xStride: width, rowCount: rowCount, width: width,
            weight: model.norm(site), epsilon: configuration.normEpsilon,
            out: normalized.pointer, outStride: width, pool: pool)
        adapters.replaceNorm(site, of: residual.pointer, out: normalized.pointer)
    }

    private func rotate(
        _ x: UnsafeMutablePointer<Float>, stride: Int, headCount: Int, _ batch: ForwardBatch
    ) {
        let headDim = configuration.headDim
        batch.positions.withUnsafeBufferPointer { positions in
            applyRope(
                x, stride: stride, headCount: headCount, headDim: headDim, positions: positions,
                table: RotaryTable(
                    cosine: model.rotation.cosines, sine: model.rotation.sines,
                    positionCount: model.contextLength, rotaryDim: headDim),
                pool: pool)
        }
    }

    /// - Parameter group: whose output it is.
    private func addToResidual(_ group: LinearGroup, _ layer: Int, rowCount: Int) {
        let width = configuration.hiddenSize
        adapters.addBottlenecks(
            layer: layer, group: group, output: projected.pointer, residual: residual.pointer)
        addInPlace(
            residual.pointer, yStride: width, projected.pointer, xStride: width,
            rowCount: rowCount, width: width, pool: pool)
    }
}
