import CKernels

/// The layout of a KV block, which holds `blockSize` tokens for all layers:
/// ```
/// [layer][ keys: [kvHead]…, values: [kvHead]…, int8: key scales, value scales [kvHead][16] f32 ]
///
///              keys of a head              values of a head
/// f32          [headDim][16] lane = token  [16][columns]
/// bf16, int8   [headDim / 2][16][2]        [16 / 2][columns][2]
/// ```
/// Columns are `headDim` rounded up to 16; an odd `headDim` has one more of zeros. int8 are multiples
/// of a scale that each token has for each KV head.
public struct KVLayout: Sendable, Hashable {
    /// Tokens of a block.
    public static let blockSize = Int(CK_LANES)
    /// The largest dimension of a head.
    public static let maximumHeadDim = Int(CK_MAX_HEAD_DIM)

    public let layerCount: Int
    public let kvHeadCount: Int
    public let headDim: Int
    public let format: OperandFormat

    public init(layerCount: Int, kvHeadCount: Int, headDim: Int, format: OperandFormat) {
        precondition(layerCount > 0 && kvHeadCount > 0 && headDim > 0, "empty KV layout")
        precondition(headDim <= Self.maximumHeadDim, "heads of \(headDim)")
        self.layerCount = layerCount
        self.kvHeadCount = kvHeadCount
        self.headDim = headDim
        self.format = format
    }

    /// Bytes of one block.
    public var blockByteCount: Int { layerCount * layerByteCount }

    /// Bytes from a block's start to the layer's keys.
    public func keyOffset(layer: Int) -> Int { layer * layerByteCount }

    /// Bytes from a block's start to the layer's values.
    public func valueOffset(layer: Int) -> Int {
        keyOffset(layer: layer) + kvHeadCount * keyHeadByteCount
    }

    /// Bytes from a block's start to the scales of the layer's keys.
    func keyScaleOffset(layer: Int) -> Int {
        valueOffset(layer: layer) + kvHeadCount * valueHeadByteCount
    }

    /// Bytes from a block's start to the scales of the layer's values.
    func valueScaleOffset(layer: Int) -> Int { keyScaleOffset(layer: layer) + scalesByteCount }

    /// Bytes of one head's keys.
    var keyHeadByteCount: Int {
        let rows = format == .f32 ? headDim : (headDim + 1) / 2 * 2
        return rows * Self.blockSize * format.byteCount
    }

    /// Bytes of one head's values.
    var valueHeadByteCount: Int {
        (headDim + 15) / 16 * 16 * Self.blockSize * format.byteCount
    }

    /// Bytes of the scales of a layer's keys, or of its values.
    private var scalesByteCount: Int {
        format == .int8 ? kvHeadCount * Self.blockSize * MemoryLayout<Float>.size : 0
    }

    private var layerByteCount: Int {
        kvHeadCount * (keyHeadByteCount + valueHeadByteCount) + 2 * scalesByteCount
    }
}

/// Batch rows that are consecutive positions of one sequence.
public struct AttentionSpan {
    public var rowStart: Int
    public var rowCount: Int
    /// Position of the first row in its sequence.
    public var startPosition: Int
    /// The arena's block number for each 16 positions of the sequence, up to the last row's.
    public var blockTable: UnsafePointer<Int32>

    public init(
        rowStart: Int, rowCount: Int, startPosition: Int, blockTable: UnsafePointer<Int32>
    ) {
        self.rowStart = rowStart
        self.rowCount = rowCount
        self.startPosition = startPosition
        self.blockTable = blockTable
    }
}

/// Writes the rows' keys and values into their sequences' blocks.
///
/// - Parameters:
///   - k, v: f32 `[rows, kvHeadCount, headDim]`, rows `kStride` and `vStride` floats apart.
///   - arena: the blocks, `layout.blockByteCount` apart, aligned to 4 bytes.
public func storeKV(
    k: UnsafePointer<Float>, kStride: Int, v: UnsafePointer<Float>, vStride: Int,
    spans: [AttentionSpan], layout: KVLayout, layer: Int, arena: UnsafeMutableRawPointer,
    pool: WorkerPool
) {
    checkSpans(spans, layout: layout, layer: layer)
    let width = layout.kvHeadCount * layout.headDim
    // Rows of a task: enough that a fork pays.
    let rowsPerTask = max(8, 8192 / width)
    pool.runPieces(groupCount: spans.count) { index in
        (spans[index].rowCount + rowsPerTask - 1) / rowsPerTask
    } body: { index, piece in
        let span = spans[index]
        var write = ck_kv_write(
            block: arena.assumingMemoryBound(to: UInt8.self),
            key_offset: layout.keyOffset(layer: layer),
            value_offset: layout.valueOffset(layer: layer),
            key_head_byte_count: layout.keyHeadByteCount,
            value_head_byte_count: layout.valueHeadByteCount,
            key_scale_offset: layout.keyScaleOffset(layer: layer),
            value_scale_offset: layout.valueScaleOffset(layer: layer),
            format: layout.format.native, kv_head_count: layout.kvHeadCount,
            head_dim: layout.headDim)
        let first = piece * rowsPerTask
        for row in first..<min(first + rowsPerTask, span.rowCount) {
            let position = span.startPosition + row
            let block = Int(span.blockTable[position / KVLayout.blockSize])
            write.block =
                arena.assumingMemoryBound(to: UInt8.self) + block * layout.blockByteCount
            ck_store_kv(
                &write, position % KVLayout.blockSize, row == span.rowCount - 1,
                k + (span.rowStart + row) * kStride, v + (span.rowStart + row) * vStride)
        }
    }
}

/// How attention weighs keys.
public struct AttentionScoring: Sendable, Hashable {
    /// Factor of q · k, usually 1 / sqrt(headDim).
    public var scale: Float
    /// Positions that a row sees, itself included; nil: all before it.
    public var slidingWindow: Int?
    /// c in `c · tanh(score / c)`; nil: scores as they are.
    public var softcap: Float?

    public init(scale: Float, slidingWindow: Int? = nil, softcap: Float? = nil) {
        self.scale = scale
        self.slidingWindow = slidingWindow
        self.softcap = softcap
    }
}

/// `out[row, head] = softmax(q · Kᵀ · scale) · V` over the positions that the row at position p
/// sees: `max(0, p - slidingWindow + 1) ... p`. Query heads share KV heads in groups of
/// `headCount / kvHeadCount`.
///
/// Positions are visited in order, 64 at a time from a multiple of 64 on, with an online softmax in
/// f32, so a row's bits depend neither on the chunk that it comes in nor on other rows. A block is
/// read once for all heads of its group and for a tile of rows. With bf16, level `avx512-bf16` rounds
/// queries and weights to bf16; with int8 every level rounds them to 15 bits and a sign, of the
/// query's largest magnitude and of the largest weight of 64 positions.
///
/// - Parameters:
///   - q: f32 `[rows, headCount, headDim]`, rows `qStride` floats apart.
///   - arena: the blocks; the spans' rows are already stored.
///   - out: f32 `[rows, headCount, headDim]`, rows `outStride` floats apart; overwritten for the
///     spans' rows.
public func pagedAttention(
    q: UnsafePointer<Float>, qStride: Int, headCount: Int, spans: [AttentionSpan],
    layout: KVLayout, layer: Int, arena: UnsafeRawPointer, scoring: AttentionScoring,
    out: UnsafeMutablePointer<Float>, outStride: Int, pool: WorkerPool
) {
    checkSpans(spans, layout: layout, layer: layer)
    precondition(
        headCount > 0 && headCount % layout.kvHeadCount == 0,
        "\(headCount) heads over \(layout.kvHeadCount) KV heads")
    precondition(
        (scoring.slidingWindow ?? 1) > 0 && (scoring.softcap ?? 1) > 0, "window and softcap")
    let group = headCount / layout.kvHeadCount
    let rowsPerTile = max(1, 48 / group)
    let kernels = pool.kernels
    pool.runPieces(groupCount: spans.count) { index in
        layout.kvHeadCount * ((spans[index].rowCount + rowsPerTile - 1) / rowsPerTile)
    } body: { index, piece in
        let span = spans[index]
        var arguments = ck_attention(
            q: q + span.rowStart * qStride, q_stride: qStride,
            out: out + span.rowStart * outStride, out_stride: outStride,
            arena: arena.assumingMemoryBound(to: UInt8.self),
            block_byte_count: layout.blockByteCount, block_table: span.blockTable,
            key_offset: layout.keyOffset(layer: layer),
            value_offset: layout.valueOffset(layer: layer),
            key_head_byte_count: layout.keyHeadByteCount,
            value_head_byte_count: layout.valueHeadByteCount,
            key_scale_offset: layout.keyScaleOffset(layer: layer),
            value_scale_offset: layout.valueScaleOffset(layer: layer), format: layout.format.native,
            head_dim: layout.headDim, group_size: group, start_position: span.startPosition,
            window: scoring.slidingWindow ?? Int.max, scale: scoring.scale,
            softcap: scoring.softcap ?? 0)
        // The last rows see the most positions: they come first so that the threads end together.
        let tiles = (span.rowCount + rowsPerTile - 1) / rowsPerTile
        let row = (tiles - 1 - piece / layout.kvHeadCount) * rowsPerTile
        kernels.pointee.attention(
            &arguments, piece % layout.kvHeadCount, row, min(row + rowsPerTile, span.rowCount))
    }
}

private func checkSpans(_ spans: [AttentionSpan], layout: KVLayout, layer: Int) {
    precondition(layer >= 0 && layer < layout.layerCount, "layer \(layer)")
    for span in spans {
        precondition(
            span.rowStart >= 0 && span.rowCount >= 0 && span.startPosition >= 0, "malformed span")
    }
}
