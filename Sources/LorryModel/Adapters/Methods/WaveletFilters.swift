import Foundation

/// Filters of an orthogonal wavelet that put a signal together again.
///
/// Daubechies' filters of order N (Ten Lectures on Wavelets, 1992, chapter 6) have N zeros at -1,
/// and of the other zeros those inside the unit circle: `h(z) = c (1 + z)ᴺ Π (z - z_k)`, with the
/// z_k from the zeros y_k of `P(y) = Σ_{k<N} C(N-1+k, k) yᵏ` by `z + 1/z = 2 - 4 y`. Symlets of
/// orders 2 and 3 are the same.
struct WaveletFilters: Sendable {
    /// The low-pass filter.
    private let smooth: [Float]
    private let detail: [Float]

    var length: Int { smooth.count }

    /// - Parameter name: as `db4`.
    init?(name: String) {
        let isSymlet = name.hasPrefix("sym")
        guard isSymlet || name.hasPrefix("db"),
            let order = Int(name.dropFirst(isSymlet ? 3 : 2)),
            (isSymlet ? 2...3 : 1...10).contains(order)
        else { return nil }
        let filter = Self.daubechies(order: order)
        smooth = filter.map { Float($0) }
        detail = filter.indices.map { index in
            let value = filter[filter.count - 1 - index]
            return Float(index % 2 == 0 ? value : -value)
        }
    }

    func reconstruction(isDetail: Bool) -> [Float] { isDetail ? detail : smooth }

    /// The largest numbers come first.
    private static func daubechies(order: Int) -> [Double] {
        var coefficients = [1.0]
        for k in 1..<max(1, order) {
            coefficients.append(
                coefficients[k - 1] * Double(order - 1 + k) / Double(k))
        }
        var product = [Complex(1)]
        for _ in 0..<order { product = times(product, [Complex(1), Complex(1)]) }
        for zero in zeros(coefficients) {
            // z² - 2 w z + 1 = 0; of its zeros, whose product is 1, the one inside the circle.
            let w = Complex(1) - Complex(2) * zero
            let root = (w * w - Complex(1)).squareRoot()
            let inner = (w + root).magnitude < 1 ? w + root : w - root
            product = times(product, [Complex(0) - inner, Complex(1)])
        }
        // Ascending powers have the largest last.
        let filter = product.reversed().map(\.real)
        let factor = 2.0.squareRoot() / filter.reduce(0, +)
        return filter.map { $0 * factor }
    }

    /// All zeros of a polynomial, whose coefficients are ascending: Durand and Kerner's iteration.
    private static func zeros(_ coefficients: [Double]) -> [Complex] {
        let degree = coefficients.count - 1
        guard degree > 0 else { return [] }
        let leading = coefficients[degree]
        // Of a size with the zeros, and on no line of symmetry.
        let radius = pow(abs(coefficients[0] / leading), 1 / Double(degree))
        var zeros = (0..<degree).map { index in
            let angle = 2 * Double.pi * Double(index) / Double(degree) + 0.4
            return Complex(radius * cos(angle), radius * sin(angle))
        }
        for _ in 0..<500 {
            var largest = 0.0
            for index in zeros.indices {
                let z = zeros[index]
                var value = Complex(0)
                for coefficient in coefficients.reversed() {
                    value = value * z + Complex(coefficient / leading)
                }
                for other in zeros.indices where other != index {
                    value = value / (z - zeros[other])
                }
                zeros[index] = z - value
                largest = max(largest, value.magnitude)
            }
            if largest < 1e-16 { break }
        }
        return zeros
    }

    private static func times(_ a: [Complex], _ b: [Complex]) -> [Complex] {
        var result = [Complex](repeating: Complex(0), count: a.count + b.count - 1)
        for (i, x) in a.enumerated() {
            for (j, y) in b.enumerated() { result[i + j] = result[i + j] + x * y }
        }
        return result
    }
}

private struct Complex {
    var real: Double
    var imaginary: Double

    init(_ real: Double, _ imaginary: Double = 0) {
        self.real = real
        self.imaginary = imaginary
    }

    var magnitude: Double { hypot(real, imaginary) }

    func squareRoot() -> Complex {
        let size = magnitude
        let root = ((size + real) / 2).squareRoot()
        let other = ((size - real) / 2).squareRoot()
        return Complex(root, imaginary < 0 ? -other : other)
    }

    static func + (a: Complex, b: Complex) -> Complex {
        Complex(a.real + b.real, a.imaginary + b.imaginary)
    }

    static func - (a: Complex, b: Complex) -> Complex {
        Complex(a.real - b.real, a.imaginary - b.imaginary)
    }

    static func * (a: Complex, b: Complex) -> Complex {
        Complex(
            a.real * b.real - a.imaginary * b.imaginary,
            a.real * b.imaginary + a.imaginary * b.real)
    }

    static func / (a: Complex, b: Complex) -> Complex {
        let size = b.real * b.real + b.imaginary * b.imaginary
        return Complex(
            (a.real * b.real + a.imaginary * b.imaginary) / size,
            (a.imaginary * b.real - a.real * b.imaginary) / size)
    }
}
