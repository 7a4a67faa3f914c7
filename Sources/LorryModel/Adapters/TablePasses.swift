import LorryTensor

/// Gives the rows of one segment the embeddings that their adapter has for their tokens.
struct EmbeddingPass {
    let program: AdapterProgram
    let embedding: EmbeddingProgram
    let configuration: ModelConfiguration
    let pool: WorkerPool

    /// - Parameters:
    ///   - tokens: of all rows.
    ///   - x: `[rows, hiddenSize]`, changed in the given rows.
    func apply(_ tokens: [Int32], rows: Range<Int>, _ x: UnsafeMutablePointer<Float>) {
        let width = configuration.hiddenSize
        for row in rows {
            let token = Int(tokens[row])
            let target = x + row * width
            if token < 0 {
                copyVirtual(-1 - token, to: target)
            } else if let rows = embedding.rows, let index = rows.index(of: tokens[row]) {
                copyRow(index, of: rows, to: target)
            } else {
                if let table = embedding.table { copyRow(token, of: table, to: target) }
                change(token, row, x)
            }
        }
    }

    private func copyVirtual(_ index: Int, to target: UnsafeMutablePointer<Float>) {
        let width = configuration.hiddenSize
        guard let offset = embedding.virtualOffset else {
            // Only its keys and values count, which are given.
            return target.update(repeating: 0, count: width)
        }
        target.update(from: program.floats(at: offset) + index * width, count: width)
    }

    private func copyRow(
        _ index: Int, of rows: EmbeddingProgram.Rows, to target: UnsafeMutablePointer<Float>
    ) {
        let width = configuration.hiddenSize
        let byteCount = width * rows.elementType.byteCount
        widen(
            program.operand(at: rows.offset) + index * byteCount, rows.elementType, count: width,
            to: target)
    }

    private func change(_ token: Int, _ row: Int, _ x: UnsafeMutablePointer<Float>) {
        let width = configuration.hiddenSize
        for (downOffset, expand) in embedding.lowRanks {
            let segment = ForwardBatch.Segment(rows: row..<row + 1, program: program)
            segmentedExpand(
                program.floats(at: downOffset) + token * expand.rank,
                segments: [
                    ExpandSegment(expand, of: segment, vOffset: 0, vStride: expand.rank)
                ], y: x, yStride: width, pool: pool)
        }
        guard let offset = embedding.scaleOffset else { return }
        let scale = program.floats(at: offset)
        for column in 0..<width { x[row * width + column] *= scale[column] }
    }
}

extension EmbeddingProgram.Rows {
    /// The place of a token's row.
    func index(of token: Int32) -> Int? {
        guard let tokens else { return Int(token) < count ? Int(token) : nil }
        var low = 0
        var high = tokens.count
        while low < high {
            let middle = (low + high) / 2
            if tokens[middle] < token { low = middle + 1 } else { high = middle }
        }
        return low < tokens.count && tokens[low] == token ? low : nil
    }
}

/// Computes the logits of tokens for which an adapter has rows of its own.
struct HeadRowsPass {
    let rows: HeadRows
    let segment: ForwardBatch.Segment
    let pool: WorkerPool

    /// - Parameters:
    ///   - x: `[rows, width]`, normalized.
    ///   - y: logits, `[rows, yStride]`.
    func apply(
        _ x: UnsafePointer<Float>, width: Int, _ y: UnsafeMutablePointer<Float>, yStride: Int
    ) {
        let first = segment.rows.lowerBound
        guard let tokens = rows.tokens else {
            for row in segment.rows {
                (y + row * yStride).update(repeating: 0, count: rows.count)
            }
            return add(x + first * width, width: width, to: y, yStride: yStride, rows: segment.rows)
        }
        let own = AlignedBuffer<Float>(count: segment.rows.count * rows.count)
        add(
            x + first * width, width: width, to: own.pointer, yStride: rows.count,
            rows: 0..<segment.rows.count)
        for row in segment.rows {
            for (index, token) in tokens.enumerated() {
                y[row * yStride + Int(token)] = own.pointer[(row - first) * rows.count + index]
            }
        }
    }

    private func add(
        _ x: UnsafePointer<Float>, width: Int, to y: UnsafeMutablePointer<Float>, yStride: Int,
        rows target: Range<Int>
    ) {
        let placed = ForwardBatch.Segment(rows: target, program: segment.program)
        for part in rows.parts {
            segmentedExpand(
                x,
                segments: [
                    ExpandSegment(part, of: placed, vOffset: part.rankStart, vStride: width)
                ], y: y, yStride: yStride, pool: pool)
        }
    }
}
