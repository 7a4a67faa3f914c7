import Foundation
import LorryTensor
import Testing

@Suite struct RowOperatorsTests {
    static let widths = Array(1...70) + [127, 128, 129, 576, 2048]

    @Test(arguments: Machine.levels)
    func exponentialMatches(level: KernelLevel) {
        let values = stride(from: Float(-110), through: 95, by: 0.0137).map { $0 }
        var results = [Float](repeating: .nan, count: values.count)
        exponential(values, count: values.count, out: &results, level: level)
        for (x, result) in zip(values, results) {
            let expected = exp(Double(x))
            if expected > Double(Float.greatestFiniteMagnitude) {
                #expect(result == .infinity, "exp(\(x))")
            } else {
                // Below the normal range the last bit is worth more.
                let allowed = max(
                    expected * Tolerance.exponential, Double(Float.leastNonzeroMagnitude))
                #expect(abs(Double(result) - expected) <= allowed, "exp(\(x))")
            }
        }
    }

    @Test(arguments: Machine.levels)
    func exponentialKeepsItsLimits(level: KernelLevel) {
        let values: [Float] = [0, -0, -.infinity, .infinity, .nan]
        var results = [Float](repeating: 7, count: values.count)
        exponential(values, count: values.count, out: &results, level: level)
        #expect(results[0] == 1 && results[1] == 1)
        #expect(results[2] == 0)
        #expect(results[3] == .infinity)
        #expect(results[4].isNaN)
    }

    @Test(arguments: Machine.levels)
    func rmsNormMatches(level: KernelLevel) {
        let pool = Machine.pool(level, threads: 2)
        var generator = SeededGenerator(seed: 51)
        for width in Self.widths {
            let rows = 40
            let x = generator.floats(rows * width, in: -3...3)
            let weight = generator.floats(width)
            var out = [Float](repeating: .nan, count: rows * width)
            rmsNorm(
                x, xStride: width, rowCount: rows, width: width, weight: weight, epsilon: 1e-5,
                out: &out, outStride: width, pool: pool)
            for row in 0..<rows {
                let values = x[row * width..<(row + 1) * width].map { Double($0) }
                let mean = values.reduce(0) { $0 + $1 * $1 } / Double(width)
                let inverse = 1 / (mean + 1e-5).squareRoot()
                let close = (0..<width).allSatisfy { i in
                    let expected = Double(weight[i]) * values[i] * inverse
                    return abs(Double(out[row * width + i]) - expected)
                        <= abs(expected) * Tolerance.rmsNorm
                }
                #expect(close, "width \(width)")
            }
        }
    }

    @Test(arguments: Machine.levels)
    func siluMultiplyMatches(level: KernelLevel) {
        let pool = Machine.pool(level, threads: 2)
        var generator = SeededGenerator(seed: 52)
        for width in Self.widths {
            let rows = 3
            var gateUp = generator.floats(rows * 2 * width, in: -12...12)
            gateUp[0] = -200
            var out = [Float](repeating: .nan, count: rows * width)
            siluMultiply(
                gateUp, gateUpStride: 2 * width, rowCount: rows, innerSize: width, out: &out,
                outStride: width, pool: pool)
            for index in out.indices {
                let (row, i) = (index / width, index % width)
                let gate = Double(gateUp[row * 2 * width + i])
                let up = Double(gateUp[row * 2 * width + width + i])
                let expected = gate / (1 + exp(-gate)) * up
                #expect(
                    abs(Double(out[index]) - expected) <= abs(expected) * Tolerance.silu + 1e-30,
                    "silu(\(gate))")
            }
        }
    }

    @Test(arguments: Machine.levels)
    func ropeMatches(level: KernelLevel) {
        let pool = Machine.pool(level, threads: 2)
        var generator = SeededGenerator(seed: 53)
        for (headDim, rotaryDim) in [(2, 2), (8, 8), (24, 10), (64, 64), (80, 34), (128, 128)] {
            let half = rotaryDim / 2
            let angles = (0..<50 * half).map { Double($0 / half) * pow(1e-2, Double($0 % half)) }
            let cosine = angles.map { Float(cos($0)) }
            let sine = angles.map { Float(sin($0)) }
            let positions: [Int32] = [0, 49, 7, 7]
            let stride = 3 * headDim + 1
            let before = generator.floats(positions.count * stride)
            var x = before
            cosine.withUnsafeBufferPointer { cosine in
                sine.withUnsafeBufferPointer { sine in
                    positions.withUnsafeBufferPointer { positions in
                        guard let cosine = cosine.baseAddress, let sine = sine.baseAddress else {
                            return
                        }
                        applyRope(
                            &x, stride: stride, headCount: 3, headDim: headDim,
                            positions: positions,
                            table: RotaryTable(
                                cosine: cosine, sine: sine, positionCount: 50,
                                rotaryDim: rotaryDim), pool: pool)
                    }
                }
            }
            for index in x.indices {
                let (row, column) = (index / stride, index % stride)
                let d = column % headDim
                guard column < 3 * headDim, d < rotaryDim else {
                    #expect(x[index] == before[index])
                    continue
                }
                let angle = Int(positions[row]) * half + d % half
                let other = d < half ? -before[index + half] : before[index - half]
                let expected =
                    Double(before[index]) * Double(cosine[angle])
                    + Double(other) * Double(sine[angle])
                let allowed =
                    Tolerance.rope * (abs(Double(before[index])) + abs(Double(other)))
                #expect(abs(Double(x[index]) - expected) <= allowed)
            }
        }
    }

    @Test func addsRowsAtTheirStrides() {
        let pool = Machine.pool(Kernels.level)
        var y: [Float] = [1, 2, 0, 3, 4, 0]
        addInPlace(&y, yStride: 3, [10, 20, 30, 40], xStride: 2, rowCount: 2, width: 2, pool: pool)
        #expect(y == [11, 22, 0, 33, 44, 0])
    }

    @Test(arguments: Machine.levels)
    func argmaxFindsTheFirstLargest(level: KernelLevel) {
        var generator = SeededGenerator(seed: 54)
        for count in Self.widths + [5000] {
            // Few distinct values, so that ties are common.
            var x = (0..<count).map { _ in Float(Int.random(in: 0...9, using: &generator)) }
            let expected = x.firstIndex(of: x.max() ?? 0)
            #expect(argmax(x, count: count, level: level) == expected)
            guard count > 2 else { continue }
            x[0] = .nan
            x[count - 1] = 100
            #expect(argmax(x, count: count, level: level) == count - 1)
        }
        #expect(argmax([-.infinity, -3, -5], count: 3, level: level) == 1)
        #expect(argmax([.nan, .nan], count: 2, level: level) == 0)
    }

    @Test(arguments: Machine.levels)
    func logSumExpMatches(level: KernelLevel) {
        var generator = SeededGenerator(seed: 55)
        for count in Self.widths + [4095, 4096, 4097, 128_256] {
            let x = generator.floats(count, in: -20...20)
            let largest = Double(x.max() ?? 0)
            let expected = largest + log(x.reduce(0) { $0 + exp(Double($1) - largest) })
            let result = logSumExp(x, count: count, level: level)
            // The result itself is rounded to f32.
            let allowed = Tolerance.logSumExp + abs(expected) * 6e-8
            #expect(abs(Double(result) - expected) <= allowed, "\(count) elements")
        }
        #expect(logSumExp([-.infinity, -.infinity], count: 2, level: level) == -.infinity)
        #expect(logSumExp([-.infinity, 3], count: 2, level: level) == 3)
    }

    /// Row operators give a row the same bits alone and in a batch, and all fused levels agree.
    @Test func bitsAreTheRowsOwn() {
        var generator = SeededGenerator(seed: 56)
        let (rows, width) = (200, 331)
        let x = generator.floats(rows * width, in: -5...5)
        let weight = generator.floats(width)
        let results = Machine.fusedLevels.flatMap { level in
            [1, 2, 3].map { threads -> [UInt32] in
                let pool = Machine.pool(level, threads: threads)
                var out = [Float](repeating: 0, count: rows * width)
                let step = threads == 1 ? 1 : rows
                x.withUnsafeBufferPointer { x in
                    out.withUnsafeMutableBufferPointer { out in
                        guard let x = x.baseAddress, let out = out.baseAddress else { return }
                        for row in stride(from: 0, to: rows, by: step) {
                            rmsNorm(
                                x + row * width, xStride: width, rowCount: step, width: width,
                                weight: weight, epsilon: 1e-6, out: out + row * width,
                                outStride: width, pool: pool)
                        }
                    }
                }
                return bits(out)
            }
        }
        #expect(Set(results).count <= 1)
    }
}
