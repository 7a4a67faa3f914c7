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
    /// Rows that the activations hold: those of the batch, then those whose logits are wanted.
    private var rowCount = 0

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

    /// Runs all layers over a batch. Keys and values of all rows are written into their blocks; what
    /// follows the last layer's is computed for the rows alone whose logits are wanted.
    ///
    /// - Parameters:
    ///   - batch: tokens within the vocabulary, at positions within the model's context.
    ///   - arena: the KV blocks, block `i` at byte `i · kvLayout.blockByteCount`; changed in place.
    public func run(_ batch: ForwardBatch, arena: UnsafeMutableRawPointer) {
        precondition(batch.rowCount <= maximumRowCount)
        rowCount = batch.rowCount
        adapters.prepare(batch.segments)
        embed(batch.tokens)
        prepareSpans(batch)
        for layer in 0..<configuration.layerCount {
            computeKeysAndValues(layer, batch, arena)
            if layer == configuration.layerCount - 1 { keepLogitRows(of: batch) }
            guard rowCount > 0 else { return }
            attend(layer, arena)
            feedForward(layer)
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

    /// Computes logits of the batch that `run` last ran.
    ///
    /// - Parameters:
    ///   - rows: at most `logitTileRowCount`, as places in the batch's `logitRows`.
    ///   - body: gets their logits.
    public func withLogits<Result>(
        of rows: Range<Int>, _ body: (Logits) throws -> Result
    ) rethrows -> Result {
        precondition(rows.count <= Self.logitTileRowCount)
        precondition(rows.lowerBound >= 0 && rows.upperBound <= rowCount, "no logits are wanted")
        let width = configuration.hiddenSize
        let x = residual.pointer + rows.lowerBound * width
        rmsNorm(
            x, xStride: width, rowCount: rows.count, width: width,
            weight: model.finalNorm, epsilon: configuration.normEpsilon, out: normalized.pointer,
            outStride: width, pool: pool)
        adapters.selectSegments(of: rows)
        let stride = adapters.selected.reduce(configuration.vocabularySize) {
            max($0, $1.program.logitCount ?? 0)
        }
        if stride * Self.logitTileRowCount > logits.count {
            logits = AlignedBuffer(count: stride * Self.logitTileRowCount)
        }
        adapters.replaceFinalNorm(of: x, out: normalized.pointer)
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

    /// Q, K and V of norm x; K and V go into their blocks.
    private func computeKeysAndValues(
        _ layer: Int, _ batch: ForwardBatch, _ arena: UnsafeMutableRawPointer
    ) {
        normalize(.attention(layer: layer))
        linear(.attentionInput, layer, input: normalized, output: attentionInput)
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
    }

    /// x += O(attention(Q, K, V))
    private func attend(_ layer: Int, _ arena: UnsafeMutableRawPointer) {
        let stride = configuration.outFeatures(of: .attentionInput)
        let query = attentionInput.pointer
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
        linear(.attentionOutput, layer, input: attention, output: projected)
        addToResidual(.attentionOutput, layer)
    }

    /// x += Down(silu(Gate(norm x)) ⊙ Up(norm x))
    private func feedForward(_ layer: Int) {
        normalize(.feedForward(layer: layer))
        linear(.feedForwardInput, layer, input: normalized, output: gateUp)
        siluMultiply(
            gateUp.pointer, gateUpStride: 2 * configuration.intermediateSize,
            rowCount: rowCount, innerSize: configuration.intermediateSize,
            out: activated.pointer, outStride: configuration.intermediateSize, pool: pool)
        linear(.feedForwardOutput, layer, input: activated, output: projected)
        addToResidual(.feedForwardOutput, layer)
    }

    /// The base's matmul for all rows, with each segment's adapter around it.
    private func linear(
        _ group: LinearGroup, _ layer: Int, input: AlignedBuffer<Float>,
        output: AlignedBuffer<Float>
    ) {
        let weights = model.layers[layer].linears[group.rawValue]
        let bias = model.layers[layer].biases[group.rawValue]
        adapters.begin(layer: layer, group: group, input.pointer)
        matmul(
            input.pointer, xStride: weights.inFeatures, rowCount: rowCount, weights: weights,
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

    /// Moves the rows whose logits are wanted to the front, and forgets the others: of the last layer
    /// no other row is asked for anything but its keys and values.
    private func keepLogitRows(of batch: ForwardBatch) {
        let kept = batch.logitRows
        guard kept.count < rowCount else { return }
        move(kept, of: residual, width: configuration.hiddenSize)
        move(kept, of: attentionInput, width: configuration.outFeatures(of: .attentionInput))
        adapters.keep(kept)
        var place = 0
        for (index, span) in batch.spans.enumerated() {
            let first = place
            while place < kept.count, kept[place] < span.rows.upperBound { place += 1 }
            // Consecutive, as they were appended.
            spans[index].rowStart = first
            spans[index].rowCount = place - first
            if first < place { spans[index].startPosition += kept[first] - span.rows.lowerBound }
        }
        spans.removeAll { $0.rowCount == 0 }
        rowCount = kept.count
    }

    private func move(_ rows: [Int], of activations: AlignedBuffer<Float>, width: Int) {
        for (place, row) in rows.enumerated() where place != row {
            (activations.pointer + place * width).update(
                from: activations.pointer + row * width, count: width)
        }
    }

    private func normalize(_ site: BaseModule.NormSite) {
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
    private func addToResidual(_ group: LinearGroup, _ layer: Int) {
        let width = configuration.hiddenSize
        adapters.addBottlenecks(
            layer: layer, group: group, output: projected.pointer, residual: residual.pointer)
        addInPlace(
            residual.pointer, yStride: width, projected.pointer, xStride: width,
            rowCount: rowCount, width: width, pool: pool)
    }
}
