import LorryTensor

// Shrinks, expands and attention: what a step adds to the base's matmuls.
extension KernelBench {
    /// Shrinks and expands of every rank and way of cutting a batch into segments.
    func measureAdapters(_ format: OperandFormat) {
        for segments in plan.shapes.segments {
            for rank in plan.shapes.ranks {
                measureShrink(segments, rank, format)
                measureExpand(segments, rank, format)
            }
        }
    }

    private func adapterCase(
        _ name: String, _ shape: String, _ segments: Segments, elementCount: Int,
        _ format: OperandFormat
    ) -> Case {
        let rowCount = segments.count * segments.rowCount
        var work = Work(byteCount: Double(segments.count * elementCount * format.byteCount))
        work.add(2 * Double(rowCount) * Double(elementCount), format.arithmetic)
        return Case(
            name: name, shape: "\(segments.count) x \(segments.rowCount) rows, \(shape)",
            rowCount: rowCount, format: format.rawValue, work: work)
    }

    private func measureShrink(_ segments: Segments, _ rank: Int, _ format: OperandFormat) {
        let name = "shrink-\(format.rawValue)"
        guard isWanted(name) else { return }
        let inFeatures = plan.shapes.adapted.inFeatures
        let rowCount = segments.count * segments.rowCount
        let elementCount = rank * inFeatures
        let kernel = adapterCase(
            name, "\(inFeatures) -> \(rank)", segments, elementCount: elementCount, format)
        let copyCount = copyCount(byteCount: Int(kernel.work.byteCount))
        let factors = Self.copies(
            copyCount * segments.count,
            byteCount: ShrinkFactor.byteCount(rank: rank, inFeatures: inFeatures, format: format)
        ) {
            ShrinkFactor.pack(
                Array(Self.numbers(elementCount).elements), rank: rank, inFeatures: inFeatures,
                format: format, to: $0)
        }
        let x = Self.numbers(rowCount * inFeatures)
        let v = AlignedBuffer<Float>(count: rowCount * rank)
        let copies = (0..<copyCount).map { copy in
            (0..<segments.count).map { index in
                ShrinkSegment(
                    rowStart: index * segments.rowCount, rowCount: segments.rowCount,
                    a: UnsafeRawPointer(factors.buffer.pointer)
                        + (copy * segments.count + index) * factors.stride,
                    rank: rank, format: format, vOffset: index * segments.rowCount * rank)
            }
        }
        measure(kernel) { index in
            segmentedShrink(
                x.pointer, xStride: inFeatures, inFeatures: inFeatures,
                segments: copies[index % copyCount], v: v.pointer, pool: pool)
        }
        withExtendedLifetime(factors.buffer) {}
    }

    private func measureExpand(_ segments: Segments, _ rank: Int, _ format: OperandFormat) {
        let name = "expand-\(format.rawValue)"
        guard isWanted(name) else { return }
        let outFeatures = plan.shapes.adapted.outFeatures
        let rowCount = segments.count * segments.rowCount
        let elementCount = rank * outFeatures
        let kernel = adapterCase(
            name, "\(rank) -> \(outFeatures)", segments, elementCount: elementCount, format)
        let copyCount = copyCount(byteCount: Int(kernel.work.byteCount))
        let factors = Self.copies(
            copyCount * segments.count,
            byteCount: ExpandFactor.byteCount(
                rank: rank, outFeatures: outFeatures, format: format)
        ) {
            ExpandFactor.pack(
                Array(Self.numbers(elementCount).elements), rank: rank, outFeatures: outFeatures,
                format: format, to: $0)
        }
        let v = Self.numbers(rowCount * rank)
        let y = AlignedBuffer<Float>(count: rowCount * outFeatures)
        let copies = (0..<copyCount).map { copy in
            (0..<segments.count).map { index in
                // A small scale: y is added to in every run and must stay finite.
                ExpandSegment(
                    rowStart: index * segments.rowCount, rowCount: segments.rowCount,
                    b: UnsafeRawPointer(factors.buffer.pointer)
                        + (copy * segments.count + index) * factors.stride,
                    rank: rank, format: format, vOffset: index * segments.rowCount * rank,
                    vStride: rank, outStart: 0, outFeatures: outFeatures, scale: 0.001)
            }
        }
        measure(kernel) { index in
            segmentedExpand(
                v.pointer, segments: copies[index % copyCount], y: y.pointer,
                yStride: outFeatures, pool: pool)
        }
        withExtendedLifetime(factors.buffer) {}
    }

    // MARK: - Attention

    /// Decoding sequences, each one row, and chunks of one prompt.
    func measureAttention(_ format: OperandFormat) {
        let name = "attention-decode-\(format.rawValue)"
        for shape in plan.shapes.attention.decode where isWanted(name) {
            measureAttention(
                name, "\(shape.sequences) sequences x \(shape.positions) positions", format,
                sequenceCount: shape.sequences, rowCount: 1, positionCount: shape.positions)
        }
        let prefill = "attention-prefill-\(format.rawValue)"
        for shape in plan.shapes.attention.prefill where isWanted(prefill) {
            measureAttention(
                prefill, "\(shape.rows) rows after \(shape.before) positions", format,
                sequenceCount: 1, rowCount: shape.rows, positionCount: shape.before + shape.rows)
        }
    }

    /// Sequences of equal length whose last rows are computed, over layers that rotate.
    private func measureAttention(
        _ name: String, _ shape: String, _ format: OperandFormat, sequenceCount: Int,
        rowCount: Int, positionCount: Int
    ) {
        let heads = plan.shapes.attention
        let blocksPerSequence = (positionCount + KVLayout.blockSize - 1) / KVLayout.blockSize
        let blockCount = sequenceCount * blocksPerSequence
        let oneLayer = KVLayout(
            layerCount: 1, kvHeadCount: heads.kvHeadCount, headDim: heads.headDim, format: format)
        let layout = KVLayout(
            layerCount: copyCount(byteCount: blockCount * oneLayer.blockByteCount),
            kvHeadCount: heads.kvHeadCount, headDim: heads.headDim, format: format)
        // A byte that makes a small number in every format, scales included.
        let arena = AlignedBuffer<UInt8>(count: blockCount * layout.blockByteCount)
        arena.elements.update(repeating: 0x3c)
        // The sequences grew together: their blocks lie between each other.
        let tables = AlignedBuffer<Int32>(count: blockCount)
        for index in 0..<blockCount {
            let (sequence, block) = index.quotientAndRemainder(dividingBy: blocksPerSequence)
            tables.pointer[index] = Int32(block * sequenceCount + sequence)
        }
        let spans = (0..<sequenceCount).map { sequence in
            AttentionSpan(
                rowStart: sequence * rowCount, rowCount: rowCount,
                startPosition: positionCount - rowCount,
                blockTable: UnsafePointer(tables.pointer) + sequence * blocksPerSequence)
        }
        let width = heads.headCount * heads.headDim
        let q = Self.numbers(sequenceCount * rowCount * width)
        let out = AlignedBuffer<Float>(count: sequenceCount * rowCount * width)
        let before = positionCount - rowCount
        let pairs = sequenceCount * (rowCount * before + rowCount * (rowCount + 1) / 2)
        let positionByteCount = 2 * heads.kvHeadCount * heads.headDim * format.byteCount
        var work = Work(byteCount: Double(sequenceCount * positionCount * positionByteCount))
        work.add(4 * Double(width) * Double(pairs), format.arithmetic)
        let kernel = Case(
            name: name, shape: shape, rowCount: sequenceCount * rowCount, format: format.rawValue,
            work: work)
        measure(kernel) { index in
            pagedAttention(
                q: q.pointer, qStride: width, headCount: heads.headCount, spans: spans,
                layout: layout, layer: index % layout.layerCount,
                arena: UnsafeRawPointer(arena.pointer),
                scoring: AttentionScoring(scale: 1 / Float(heads.headDim).squareRoot()),
                out: out.pointer, outStride: width, pool: pool)
        }
        withExtendedLifetime((arena, tables)) {}
    }
}
