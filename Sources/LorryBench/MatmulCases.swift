import LorryTensor

extension KernelBench {
    /// `y = x · Wᵀ` of every shape and row count, over weights that rotate as a model's layers do.
    func measureMatmuls(_ format: WeightFormat) throws {
        let name = "matmul-\(format.rawValue)"
        guard isWanted(name) else { return }
        for shape in plan.shapes.linears {
            try measureMatmuls(name, shape, rowCounts: plan.shapes.rowCounts, format)
        }
        try measureMatmuls(
            name, plan.shapes.head, rowCounts: plan.shapes.headRowCounts, format)
    }

    private func measureMatmuls(
        _ name: String, _ shape: Linear, rowCounts: [Int], _ format: WeightFormat
    ) throws {
        let first = try weights(shape, format)
        let copies =
            try [first]
            + (1..<copyCount(byteCount: first.byteCount)).map { _ in try weights(shape, format) }
        let most = rowCounts.max() ?? 0
        let x = Self.numbers(most * shape.inFeatures)
        let y = AlignedBuffer<Float>(count: most * shape.outFeatures)
        for rowCount in rowCounts {
            var work = Work(byteCount: Double(first.byteCount))
            work.add(
                2 * Double(rowCount) * Double(shape.inFeatures) * Double(shape.outFeatures),
                format.arithmetic)
            let kernel = Case(
                name: name, shape: "\(shape.inFeatures) -> \(shape.outFeatures)",
                rowCount: rowCount, format: format.rawValue, work: work)
            measure(kernel) { index in
                matmul(
                    x.pointer, xStride: shape.inFeatures, rowCount: rowCount,
                    weights: copies[index % copies.count], bias: nil, y: y.pointer,
                    yStride: shape.outFeatures, pool: pool)
            }
        }
    }

    /// Packs a matrix whose rows repeat every 256: it takes no longer to multiply by than another.
    private func weights(_ shape: Linear, _ format: WeightFormat) throws -> PackedMatrix {
        let period = min(256, shape.outFeatures)
        let rows = Self.numbers(period * shape.inFeatures)
        let sources = stride(from: 0, to: shape.outFeatures, by: period).map { start in
            let count = min(period, shape.outFeatures - start)
            return MatrixSource(
                bytes: UnsafeRawBufferPointer(
                    start: rows.pointer, count: count * shape.inFeatures * 4),
                elementType: .f32, outFeatures: count)
        }
        return try withExtendedLifetime(rows) {
            try PackedMatrix(
                sources: sources, inFeatures: shape.inFeatures, format: format, pool: pool)
        }
    }
}
