import CKernels

/// The layout of a KV block, which holds `blockSize` tokens for all layers:
/// ```
/// [layer][ keys: [kvHead][headDim][16]   (transposed: lane = token)
///          values: [kvHead][16][headDim] ]
/// ```
/// in f32 or bf16.
public struct KVLayout: Sendable, Hashable {
    /// Tokens of a block.
    public static let blockSize = Int(CK_LANES)

    public let layerCount: Int
    public let kvHeadCount: Int
    public let headDim: Int
    public let format: OperandFormat

    public init(layerCount: Int, kvHeadCount: Int, headDim: Int, format: OperandFormat) {
        precondition(layerCount > 0 && kvHeadCount > 0 && headDim > 0, "empty KV layout")
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
    public func valueOffset(layer: Int) -> Int { layer * layerByteCount + layerByteCount / 2 }

    private var layerByteCount: Int {
        2 * kvHeadCount * headDim * Self.blockSize * format.byteCount
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
            value_offset: layout.valueOffset(layer: layer), format: layout.format.native,
            kv_head_count: layout.kvHeadCount, head_dim: layout.headDim)
        let first = piece * rowsPerTask
        for row in first..<min(first + rowsPerTask, span.rowCount) {
            let position = span.startPosition + row
            let block = Int(span.blockTable[position / KVLayout.blockSize])
            write.block =
                arena.assumingMemoryBound(to: UInt8.self) + block * layout.blockByteCount
            ck_store_kv(
                &write, position % KVLayout.blockSize, k + (span.rowStart + row) * kStride,
                v + (span.rowStart + row) * vStride)
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
/// Blocks are visited in order of position with an online softmax in f32, so a row's bits depend
/// neither on the chunk that it comes in nor on other rows. A block is read once for all heads of
/// its group and for a tile of rows.
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
    let rowsPerTile = max(1, 32 / group)
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
            value_offset: layout.valueOffset(layer: layer), format: layout.format.native,
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
