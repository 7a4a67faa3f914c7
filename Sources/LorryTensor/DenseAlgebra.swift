import COpenBLAS

/// Dense f32 algebra for work at load time, through OpenBLAS on the calling thread.
///
/// Its bits may depend on the shapes: results that must not depend on the batch use `matmul`.
public enum DenseAlgebra {
    /// Whether a row-major operand is read as it is or as its transpose.
    public enum Operand: Sendable {
        case plain
        case transposed

        fileprivate var native: CBLAS_TRANSPOSE {
            switch self {
            case .plain: CblasNoTrans
            case .transposed: CblasTrans
            }
        }
    }

    /// A row-major matrix in memory, read as `operand` says.
    public struct Matrix {
        public var pointer: UnsafePointer<Float>
        /// Floats from one stored row to the next.
        public var stride: Int
        public var operand: Operand

        public init(_ pointer: UnsafePointer<Float>, stride: Int, _ operand: Operand = .plain) {
            self.pointer = pointer
            self.stride = stride
            self.operand = operand
        }
    }

    /// OpenBLAS's own threads would compete with the worker pool.
    private static let singleThreaded: Void = openblas_set_num_threads(1)

    static func prepare() { _ = singleThreaded }

    /// `C = alpha · A · B + beta · C`, with A `[m, k]`, B `[k, n]` as read, C `[m, n]` row-major.
    public static func gemm(
        _ a: Matrix, _ b: Matrix, m: Int, n: Int, k: Int, alpha: Float = 1, beta: Float = 0,
        c: UnsafeMutablePointer<Float>, cStride: Int
    ) {
        prepare()
        precondition(
            [m, n, k, a.stride, b.stride, cStride].allSatisfy { $0 >= 0 && $0 <= Int32.max },
            "dimension past BLAS's integers")
        cblas_sgemm(
            CblasRowMajor, a.operand.native, b.operand.native, blasint(m), blasint(n), blasint(k),
            alpha, a.pointer, blasint(a.stride), b.pointer, blasint(b.stride), beta, c,
            blasint(cStride))
    }
}
