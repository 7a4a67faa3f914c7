import Foundation
import LorryTensor

/// One matmul problem with its weights packed.
struct MatmulProblem {
    let inFeatures: Int
    let outFeatures: Int
    let rowCount: Int
    let x: [Float]
    let weights: [Float]
    let bias: [Float]
    let matrix: PackedMatrix

    init(
        rows: Int, inFeatures: Int, outFeatures: Int, format: WeightFormat, pool: WorkerPool,
        seed: UInt64
    ) throws {
        var generator = SeededGenerator(seed: seed)
        self.inFeatures = inFeatures
        self.outFeatures = outFeatures
        rowCount = rows
        x = generator.floats(rows * inFeatures)
        weights = generator.floats(outFeatures * inFeatures)
        bias = generator.floats(outFeatures)
        matrix = try packed(
            weights, outFeatures: outFeatures, inFeatures: inFeatures, format: format, pool: pool)
    }

    /// Without a bias.
    init(
        x: [Float], weights: [Float], inFeatures: Int, format: WeightFormat, pool: WorkerPool
    ) throws {
        self.inFeatures = inFeatures
        outFeatures = weights.count / inFeatures
        rowCount = x.count / inFeatures
        self.x = x
        self.weights = weights
        bias = [Float](repeating: 0, count: outFeatures)
        matrix = try packed(
            weights, outFeatures: outFeatures, inFeatures: inFeatures, format: format, pool: pool)
    }

    /// Rows `rows` computed in one call; columns not asked for are NaN.
    func run(_ rows: Range<Int>, columns: Range<Int>? = nil, pool: WorkerPool) -> [Float] {
        var y = [Float](repeating: .nan, count: rows.count * outFeatures)
        x.withUnsafeBufferPointer { x in
            guard let x = x.baseAddress else { return }
            matmul(
                x + rows.lowerBound * inFeatures, xStride: inFeatures, rowCount: rows.count,
                weights: matrix, bias: bias, y: &y, yStride: outFeatures, columns: columns,
                pool: pool)
        }
        return y
    }

    /// All rows, where those of `rows` take `columns` from inputs of their own.
    func run(
        rerunning rows: [Range<Int>], _ columns: [Range<Int>], from other: MatmulProblem,
        pool: WorkerPool
    ) -> [Float] {
        var y = [Float](repeating: .nan, count: rowCount * outFeatures)
        let count = rows.reduce(0) { $0 + $1.count }
        let inputs = rows.flatMap {
            other.x[$0.lowerBound * inFeatures..<$0.upperBound * inFeatures]
        }
        let copies = AlignedBuffer<Float>(count: max(1, inputs.count * columns.count))
        let outputs = AlignedBuffer<Float>(count: max(1, count * outFeatures * columns.count))
        let reruns = columns.enumerated().map { index, columns in
            let x = copies.pointer + index * inputs.count
            for (place, value) in inputs.enumerated() { x[place] = value }
            return MatmulRerun(
                columns: columns, rows: rows, x: x,
                y: outputs.pointer + index * count * outFeatures)
        }
        x.withUnsafeBufferPointer { x in
            guard let x = x.baseAddress else { return }
            matmul(
                x, xStride: inFeatures, rowCount: rowCount, weights: matrix, bias: bias, y: &y,
                yStride: outFeatures, reruns: reruns, pool: pool)
        }
        return y
    }

    /// Largest error as a share of Σ |x · w| + |bias|, against double precision over what the format
    /// keeps of the weights and what the kernel takes of the rows.
    func error(of y: [Float], rows: Range<Int>, level: KernelLevel) -> Double {
        var weights = [Float](repeating: 0, count: outFeatures * inFeatures)
        for column in 0..<outFeatures {
            weights.withUnsafeMutableBufferPointer { weights in
                guard let base = weights.baseAddress else { return }
                matrix.copyRow(column, to: base + column * inFeatures)
            }
        }
        let x = taken(level)
        var worst = 0.0
        for (index, row) in rows.enumerated() {
            for column in 0..<outFeatures {
                var sum = 0.0
                var magnitude = 0.0
                for k in 0..<inFeatures {
                    let term =
                        Double(x[row * inFeatures + k]) * Double(weights[column * inFeatures + k])
                    sum += term
                    magnitude += abs(term)
                }
                sum += Double(bias[column])
                magnitude += abs(Double(bias[column]))
                let difference = abs(Double(y[index * outFeatures + column]) - sum)
                // A NaN must not pass as "not larger".
                guard difference > 0 || difference.isNaN else { continue }
                worst = difference.isNaN ? .infinity : max(worst, difference / magnitude)
            }
        }
        return worst
    }
}

extension MatmulProblem {
    /// The rows as the level's kernel takes them for the matrix's format.
    private func taken(_ level: KernelLevel) -> [Float] {
        switch matrix.format {
        case .f32: x
        case .bf16: level == .avx512BF16 ? OperandFormat.bf16.rounded(x) : x
        case .int8, .int4: (0..<rowCount).flatMap { quantizedRow($0) }
        }
    }

    /// x ≈ scale · q with q = round(x / scale) and scale = max |x| / 127 over 32 inputs; for int4
    /// weights the power of two from there up.
    private func quantizedRow(_ row: Int) -> [Float] {
        stride(from: 0, to: inFeatures, by: 32).flatMap { start -> [Float] in
            let end = min(start + 32, inFeatures)
            let group = x[row * inFeatures + start..<row * inFeatures + end]
            let largest = group.map(abs).max() ?? 0
            if largest == 0 { return Array(group) }
            if matrix.format == .int4 {
                // Smaller groups count as zeros.
                if largest < 0x1p-60 { return group.map { _ in 0 } }
                let scale = exp2((log2(Double(largest) / 127)).rounded(.up))
                return group.map { Float((Double($0) / scale).rounded(.toNearestOrEven) * scale) }
            }
            return group.map {
                ($0 * (127 / largest)).rounded(.toNearestOrEven) * (largest / 127)
            }
        }
    }
}
