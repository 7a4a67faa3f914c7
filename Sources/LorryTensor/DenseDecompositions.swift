import COpenBLAS

// Decompositions at load time, in double precision, through the LAPACK that OpenBLAS has.
extension DenseAlgebra {
    /// A decomposition that did not converge, or a singular matrix.
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    /// `A = U diag(s) Vᵀ`, values descending, of a row-major `[rows, columns]`.
    public struct SingularParts {
        /// U, `[rows, count]`.
        public let left: [Float]
        /// `[count]`, the smaller of rows and columns.
        public let values: [Float]
        /// Vᵀ, `[count, columns]`.
        public let right: [Float]
    }

    public static func singularParts(
        _ matrix: [Float], rows: Int, columns: Int
    ) throws(Failure) -> SingularParts {
        prepare()
        precondition(matrix.count == rows * columns && rows > 0 && columns > 0)
        // Row-major is the transpose in column-major, whose U and Vᵀ are exchanged.
        var a = matrix.map(Double.init)
        var (m, n) = (Int32(columns), Int32(rows))
        var count = min(m, n)
        var values = [Double](repeating: 0, count: Int(count))
        var u = [Double](repeating: 0, count: Int(m) * Int(count))
        var vt = [Double](repeating: 0, count: Int(count) * Int(n))
        var indices = [Int32](repeating: 0, count: 8 * Int(count))
        var info: Int32 = 0
        try withWorkspace { work, size in
            dgesdd_("S", &m, &n, &a, &m, &values, &u, &m, &vt, &count, work, &size, &indices, &info)
            return info
        }
        // u is [m, count] column-major: row-major [count, columns]. vt likewise [rows, count].
        return SingularParts(
            left: vt.map(Float.init), values: values.map(Float.init), right: u.map(Float.init))
    }

    /// `A = Q R` of a row-major `[rows, columns]`, as Householder's reflections give it: the signs
    /// of R's diagonal are LAPACK's.
    public struct OrthogonalParts {
        /// `[rows, count]`, count the smaller of rows and columns.
        public let q: [Float]
        /// `[count, columns]`
        public let r: [Float]
    }

    public static func orthogonalParts(
        _ matrix: [Float], rows: Int, columns: Int
    ) throws(Failure) -> OrthogonalParts {
        prepare()
        precondition(matrix.count == rows * columns && rows > 0 && columns > 0)
        var a = [Double](repeating: 0, count: matrix.count)
        for row in 0..<rows {
            for column in 0..<columns {
                a[column * rows + row] = Double(matrix[row * columns + column])
            }
        }
        var (m, n) = (Int32(rows), Int32(columns))
        var count = min(m, n)
        var tau = [Double](repeating: 0, count: Int(count))
        var info: Int32 = 0
        try withWorkspace { work, size in
            dgeqrf_(&m, &n, &a, &m, &tau, work, &size, &info)
            return info
        }
        var r = [Float](repeating: 0, count: Int(count) * columns)
        for row in 0..<Int(count) {
            for column in row..<columns {
                r[row * columns + column] = Float(a[column * rows + row])
            }
        }
        try withWorkspace { work, size in
            dorgqr_(&m, &count, &count, &a, &m, &tau, work, &size, &info)
            return info
        }
        var q = [Float](repeating: 0, count: rows * Int(count))
        for row in 0..<rows {
            for column in 0..<Int(count) {
                q[row * Int(count) + column] = Float(a[column * rows + row])
            }
        }
        return OrthogonalParts(q: q, r: r)
    }

    /// X with `A X = B`, row-major `[size, size]` and `[size, columns]`.
    public static func solve(
        _ matrix: [Double], _ right: [Double], size: Int, columns: Int
    ) throws(Failure) -> [Double] {
        prepare()
        precondition(matrix.count == size * size && right.count == size * columns)
        func exchanged(_ x: [Double], _ rows: Int, _ columns: Int) -> [Double] {
            var result = x
            for row in 0..<rows {
                for column in 0..<columns {
                    result[column * rows + row] = x[row * columns + column]
                }
            }
            return result
        }
        var a = exchanged(matrix, size, size)
        var b = exchanged(right, size, columns)
        var (n, count) = (Int32(size), Int32(columns))
        var pivots = [Int32](repeating: 0, count: size)
        var info: Int32 = 0
        dgesv_(&n, &count, &a, &n, &pivots, &b, &n, &info)
        guard info == 0 else { throw Failure(description: "a matrix has no inverse") }
        return exchanged(b, columns, size)
    }

    /// Runs a routine twice: first to learn the room that it wants.
    private static func withWorkspace(
        _ body: (UnsafeMutablePointer<Double>, inout Int32) -> Int32
    ) throws(Failure) {
        var wanted = 0.0
        var query: Int32 = -1
        var info = body(&wanted, &query)
        if info == 0 {
            var size = Int32(wanted)
            var work = [Double](repeating: 0, count: max(1, Int(size)))
            info = body(&work, &size)
        }
        guard info == 0 else {
            throw Failure(description: "a decomposition did not converge (\(info))")
        }
    }
}

extension DenseAlgebra {
    /// An operand of `product`.
    public struct Factor {
        let numbers: [Float]
        let operand: Operand

        /// - Parameter operand: whether the numbers are stored as the factor or as its transpose.
        public init(_ numbers: [Float], _ operand: Operand = .plain) {
            self.numbers = numbers
            self.operand = operand
        }
    }

    /// `A · B`, row-major `[m, n]`, of A `[m, k]` and B `[k, n]`.
    public static func product(_ a: Factor, _ b: Factor, m: Int, n: Int, k: Int) -> [Float] {
        precondition(a.numbers.count == m * k && b.numbers.count == k * n)
        var result = [Float](repeating: 0, count: m * n)
        a.numbers.withUnsafeBufferPointer { left in
            b.numbers.withUnsafeBufferPointer { right in
                result.withUnsafeMutableBufferPointer { target in
                    guard let left = left.baseAddress, let right = right.baseAddress,
                        let target = target.baseAddress
                    else { return }
                    gemm(
                        Matrix(left, stride: a.operand == .plain ? k : m, a.operand),
                        Matrix(right, stride: b.operand == .plain ? n : k, b.operand), m: m, n: n,
                        k: k, c: target, cStride: n)
                }
            }
        }
        return result
    }
}
