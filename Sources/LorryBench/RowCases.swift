import LorryTensor

// Operators that stream activations: bytes are those read and written. They rotate over memory
// beyond the caches, so that the share is one of the memory's speed; in a step their operands are
// often still in a cache.
extension KernelBench {
    func measureRowOperators() {
        for shape in plan.shapes.rowOperators { measureNorm(shape.rows, shape.width) }
        for shape in plan.shapes.activations { measureActivation(shape.rows, shape.width) }
    }

    private func streamCase(
        _ name: String, _ shape: String, rowCount: Int, elementCount: Int, operationsPerRow: Int
    ) -> Case {
        var work = Work(byteCount: Double(rowCount * elementCount * 4))
        work.add(Double(rowCount) * Double(operationsPerRow), .f32)
        return Case(
            name: name, shape: "\(rowCount) rows, \(shape)", rowCount: rowCount, format: "f32",
            work: work)
    }

    private func measureNorm(_ rowCount: Int, _ width: Int) {
        guard isWanted("rms-norm") else { return }
        // A square and its addition, then two factors.
        let kernel = streamCase(
            "rms-norm", "\(width)", rowCount: rowCount, elementCount: 2 * width,
            operationsPerRow: 4 * width)
        let copyCount = copyCount(byteCount: Int(kernel.work.byteCount))
        let size = rowCount * width
        let x = Self.numbers(copyCount * size)
        let out = AlignedBuffer<Float>(count: copyCount * size)
        let weight = [Float](repeating: 1, count: width)
        measure(kernel) { index in
            let offset = index % copyCount * size
            rmsNorm(
                x.pointer + offset, xStride: width, rowCount: rowCount, width: width,
                weight: weight, epsilon: 1e-5, out: out.pointer + offset, outStride: width,
                pool: pool)
        }
    }

    private func measureActivation(_ rowCount: Int, _ width: Int) {
        guard isWanted("silu-multiply") else { return }
        // The exponential counts as one operation.
        let kernel = streamCase(
            "silu-multiply", "\(width)", rowCount: rowCount, elementCount: 3 * width,
            operationsPerRow: 4 * width)
        let copyCount = copyCount(byteCount: Int(kernel.work.byteCount))
        let gateUp = Self.numbers(copyCount * rowCount * 2 * width)
        let out = AlignedBuffer<Float>(count: copyCount * rowCount * width)
        measure(kernel) { index in
            let copy = index % copyCount
            siluMultiply(
                gateUp.pointer + copy * rowCount * 2 * width, gateUpStride: 2 * width,
                rowCount: rowCount, innerSize: width, out: out.pointer + copy * rowCount * width,
                outStride: width, pool: pool)
        }
    }
}
