import LorryTensor
import Testing

@Suite struct DenseAlgebraTests {
    @Test func multipliesAsReadAndAddsScaled() {
        let a: [Float] = [1, 2, 3, 4, 5, 6]  // [2, 3], or [3, 2] transposed
        let b: [Float] = [1, 0, 2, 0, 1, 1]
        var c: [Float] = [1, 1, 1, 1]
        DenseAlgebra.gemm(
            .init(a, stride: 3), .init(b, stride: 2), m: 2, n: 2, k: 3, alpha: 2, beta: 10, c: &c,
            cStride: 2)
        // A·B with B [3, 2] = [[1,0],[2,0],[1,1]]
        #expect(c == [26, 16, 50, 22])

        var d = [Float](repeating: 0, count: 9)
        DenseAlgebra.gemm(
            .init(a, stride: 3, .transposed), .init(a, stride: 3), m: 3, n: 3, k: 2, c: &d,
            cStride: 3)
        #expect(d == [17, 22, 27, 22, 29, 36, 27, 36, 45])
    }
}
