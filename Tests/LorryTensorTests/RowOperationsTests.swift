import LorryTensor
import Testing

/// Structured deltas, mixes and transforms against the matrices that they stand for.
@Suite struct RowOperationsTests {
    /// What a delta adds to zeros, through the adjustments of a matmul.
    private func added(
        _ delta: StructuredDelta, to x: [Float], outFeatures: Int, level: KernelLevel
    ) -> [Float] {
        let pool = Machine.pool(level)
        let adjustments = OutputAdjustments()
        var y = [Float](repeating: 0, count: outFeatures)
        adjustments.fill { parts in
            parts.appendSegment(rows: 0..<1)
            parts.append(delta, columnStart: 0)
        }
        x.withUnsafeBufferPointer { x in
            guard let x = x.baseAddress else { return }
            let width = outFeatures
            adjustments.begin(x, xStride: 0, inFeatures: 1, yStride: width, pool: pool)
            adjustments.finish(x, xStride: 0, inFeatures: 1, y: &y, yStride: width, pool: pool)
        }
        return y
    }

    /// In double precision; `matrix` gives the element of a row and a column.
    private func product(
        _ x: [Float], outFeatures: Int, _ matrix: (Int, Int) -> Double
    ) -> (values: [Double], magnitudes: [Double]) {
        let terms = (0..<outFeatures).map { row in
            x.indices.map { matrix(row, $0) * Double(x[$0]) }
        }
        return (terms.map { $0.reduce(0, +) }, terms.map { $0.reduce(0) { $0 + abs($1) } })
    }

    private func check(
        _ found: [Float], _ expected: (values: [Double], magnitudes: [Double]), _ label: String
    ) {
        for (index, value) in found.enumerated() {
            let error = abs(Double(value) - expected.values[index])
            #expect(
                error <= Tolerance.matmul * expected.magnitudes[index] + 1e-12, "\(label) \(index)")
        }
        #expect(found.contains { $0 != 0 })
    }

    @Test(arguments: Machine.levels)
    func sparse(level: KernelLevel) {
        var random = SeededGenerator(seed: 1)
        let x = random.floats(50)
        // Rows of 0, 3 and 1 numbers.
        let (starts, columns): ([UInt32], [UInt32]) = ([0, 0, 3, 4], [2, 30, 49, 0])
        let values = random.floats(4)
        let found = starts.withUnsafeBufferPointer { starts in
            columns.withUnsafeBufferPointer { columns in
                values.withUnsafeBufferPointer { values in
                    guard let starts = starts.baseAddress, let columns = columns.baseAddress,
                        let values = values.baseAddress
                    else { return [Float]() }
                    return added(
                        .sparse(
                            starts: starts, columns: columns, values: values, outFeatures: 3),
                        to: x, outFeatures: 3, level: level)
                }
            }
        }
        check(
            found,
            product(x, outFeatures: 3) { row, column in
                let range = Int(starts[row])..<Int(starts[row + 1])
                return range.reduce(0) { $0 + (columns[$1] == column ? Double(values[$1]) : 0) }
            }, "sparse")
    }

    @Test(arguments: Machine.levels)
    func kronecker(level: KernelLevel) {
        var random = SeededGenerator(seed: 2)
        let shapes = [
            KroneckerShape(leftOut: 3, leftIn: 5, rightOut: 7, rightIn: 2),
            KroneckerShape(leftOut: 24, leftIn: 24, rightOut: 48, rightIn: 24),
            KroneckerShape(leftOut: 1, leftIn: 2, rightOut: 130, rightIn: 150),
        ]
        for shape in shapes {
            let left = random.floats(shape.leftOut * shape.leftIn)
            let right = random.floats(shape.rightIn * shape.rightOut)
            let x = random.floats(shape.leftIn * shape.rightIn)
            let outFeatures = shape.leftOut * shape.rightOut
            let found = left.withUnsafeBufferPointer { left in
                right.withUnsafeBufferPointer { right in
                    guard let left = left.baseAddress, let right = right.baseAddress else {
                        return [Float]()
                    }
                    return added(
                        .kronecker(left: left, right: right, shape, scale: 0.5), to: x,
                        outFeatures: outFeatures, level: level)
                }
            }
            check(
                found,
                product(x, outFeatures: outFeatures) { row, column in
                    let (a, d) = row.quotientAndRemainder(dividingBy: shape.rightOut)
                    let (c, e) = column.quotientAndRemainder(dividingBy: shape.rightIn)
                    return 0.5 * Double(left[a * shape.leftIn + c])
                        * Double(right[e * shape.rightOut + d])
                }, "\(shape)")
        }
    }

    @Test(arguments: Machine.levels)
    func circulant(level: KernelLevel) {
        var random = SeededGenerator(seed: 3)
        for blockSize in [1, 6, 16, 37, 80] {
            let (outBlocks, inBlocks) = (2, 3)
            let columns = (0..<outBlocks * inBlocks).map { _ in random.floats(blockSize) }
            let kernels = columns.flatMap { $0 + $0 }
            let x = random.floats(inBlocks * blockSize)
            let outFeatures = outBlocks * blockSize
            let found = kernels.withUnsafeBufferPointer { kernels in
                guard let kernels = kernels.baseAddress else { return [Float]() }
                return added(
                    .circulant(
                        kernels: kernels, blockSize: blockSize, outBlocks: outBlocks,
                        inBlocks: inBlocks), to: x, outFeatures: outFeatures, level: level)
            }
            check(
                found,
                product(x, outFeatures: outFeatures) { row, column in
                    let block = row / blockSize * inBlocks + column / blockSize
                    let shift = (row - column) % blockSize
                    return Double(columns[block][(shift + blockSize) % blockSize])
                }, "blocks of \(blockSize)")
        }
    }

    @Test(arguments: Machine.levels)
    func inputSteps(level: KernelLevel) {
        var random = SeededGenerator(seed: 4)
        for (blockSize, count, isShared) in [
            (4, 3, false), (16, 5, true), (37, 2, false), (32, 6, false),
        ] {
            let width = blockSize * count
            let x = random.floats(2 * width)
            let scale = random.floats(width)
            let order = (0..<width).map { UInt32((7 * $0 + 3) % width) }
            #expect(Set(order).count == width)
            let blocks = random.floats((isShared ? 1 : count) * blockSize * blockSize)
            var found = [Float](repeating: 0, count: 2 * width)
            var scratch = found
            scale.withUnsafeBufferPointer { scale in
                order.withUnsafeBufferPointer { order in
                    blocks.withUnsafeBytes { blocks in
                        x.withUnsafeBufferPointer { x in
                            found.withUnsafeMutableBufferPointer { found in
                                guard let scale = scale.baseAddress,
                                    let order = order.baseAddress,
                                    let blocks = blocks.baseAddress, let x = x.baseAddress,
                                    let target = found.baseAddress
                                else { return }
                                transformInputs(
                                    [
                                        InputTransform(
                                            source: x, target: target, rowCount: 2,
                                            steps: [
                                                .scale(scale), .gather(order),
                                                .blocks(
                                                    blocks, format: .f32, blockSize: blockSize,
                                                    count: count, isShared: isShared),
                                            ])
                                    ], width: width, scratch: &scratch, pool: Machine.pool(level))
                            }
                        }
                    }
                }
            }
            for row in 0..<2 {
                let gathered = (0..<width).map { column in
                    let source = Int(order[column])
                    return x[row * width + source] * scale[source]
                }
                let expected = product(gathered, outFeatures: width) { column, input in
                    let identity = column == input ? 1.0 : 0
                    guard column / blockSize == input / blockSize else { return identity }
                    let block = isShared ? 0 : column / blockSize
                    let index =
                        (block * blockSize + input % blockSize) * blockSize + column % blockSize
                    return identity + Double(blocks[index])
                }
                check(Array(found[row * width..<(row + 1) * width]), expected, "\(blockSize)")
            }
        }
    }

    @Test(arguments: Machine.levels)
    func promptAttention(level: KernelLevel) {
        var random = SeededGenerator(seed: 5)
        let (headCount, kvHeadCount, headDim, count) = (4, 2, 20, 5)
        let q = random.floats(headCount * headDim, in: -3...3)
        let keys = random.floats(count * kvHeadCount * headDim)
        let values = random.floats(count * kvHeadCount * headDim)
        var out = [Float](repeating: 1, count: headCount * headDim)
        keys.withUnsafeBufferPointer { keys in
            values.withUnsafeBufferPointer { values in
                guard let keys = keys.baseAddress, let values = values.baseAddress else { return }
                PromptAttention(keys: keys, values: values, count: count, gate: 0.5).add(
                    q: q, qStride: q.count, rowCount: 1, headCount: headCount,
                    kvHeadCount: kvHeadCount, headDim: headDim, scale: 0.25, out: &out,
                    outStride: out.count, pool: Machine.pool(level))
            }
        }
        for head in 0..<headCount {
            func place(_ token: Int) -> Int { (token * kvHeadCount + head / 2) * headDim }
            let scores = (0..<count).map { token in
                (0..<headDim).reduce(0.0) {
                    $0 + 0.25 * Double(q[head * headDim + $1]) * Double(keys[place(token) + $1])
                }
            }
            let greatest = scores.max() ?? 0
            let weights = scores.map { exponential($0 - greatest) }
            let total = weights.reduce(0, +)
            for index in 0..<headDim {
                let expected = (0..<count).reduce(1.0) {
                    $0 + 0.5 * weights[$1] / total * Double(values[place($1) + index])
                }
                #expect(abs(Double(out[head * headDim + index]) - expected) < Tolerance.attention)
            }
        }
    }

    /// e^x for x ≤ 0, by its series.
    private func exponential(_ x: Double) -> Double {
        let small = x / 64
        var (term, sum) = (1.0, 1.0)
        for index in 1..<20 {
            term *= small / Double(index)
            sum += term
        }
        return (0..<6).reduce(sum) { power, _ in power * power }
    }
}
