import Foundation

/// Filters of an orthogonal wavelet that put a signal together again.
///
/// Daubechies' filters of order N (Ten Lectures on Wavelets, 1992, chapter 6) have N zeros at -1,
/// and of the other zeros those inside the unit circle: `h(z) = c (1 + z)ᴺ Π (z - z_k)`, with the
/// z_k from the zeros y_k of `P(y) = Σ_{k<N} C(N-1+k, k) yᵏ` by `z + 1/z = 2 - 4 y`. Symlets
/// (chapter 8) are their like with some of the z_k outside the circle instead, which makes them less
/// asymmetric. The first coiflet is known in closed form.
package struct WaveletFilters: Sendable {
    /// The low-pass filter.
    private let smooth: [Float]
    private let detail: [Float]

    var length: Int { smooth.count }

    /// By order: which of a symlet's zeros are inverted, a bit for each in the order of magnitudes,
    /// a conjugate pair as one.
    private static let symletChoices = [
        2: 0b0, 3: 0b0, 4: 0b10, 5: 0b1, 6: 0b101, 7: 0b1, 8: 0b1010, 9: 0b110, 10: 0b10101,
    ]

    /// - Parameter name: `db1` to `db10`, `sym2` to `sym10` or `coif1`.
    package init?(name: String) {
        let filter: [Double]
        if name == "coif1" {
            let root = 7.0.squareRoot()
            filter = [1 - root, 5 + root, 14 + 2 * root, 14 - 2 * root, 1 - root, -3 + root]
                .map { $0 / (16 * 2.0.squareRoot()) }
        } else if name.hasPrefix("sym") {
            guard let order = Int(name.dropFirst(3)), let choice = Self.symletChoices[order]
            else { return nil }
            filter = Self.orthogonal(order: order, inverting: choice)
        } else {
            guard name.hasPrefix("db"), let order = Int(name.dropFirst(2)),
                (1...10).contains(order)
            else { return nil }
            filter = Self.orthogonal(order: order, inverting: 0)
        }
        smooth = filter.map { Float($0) }
        detail = filter.indices.map { index in
            let value = filter[filter.count - 1 - index]
            return Float(index % 2 == 0 ? value : -value)
        }
    }

    /// The low-pass or the high-pass filter.
    package func reconstruction(isDetail: Bool) -> [Float] { isDetail ? detail : smooth }

    /// Of Daubechies' filters the largest numbers come first.
    private static func orthogonal(order: Int, inverting choice: Int) -> [Double] {
        var coefficients = [1.0]
        for k in 1..<max(1, order) {
            coefficients.append(coefficients[k - 1] * Double(order - 1 + k) / Double(k))
        }
        // Of each conjugate pair one; a real zero alone.
        let inner = zeros(coefficients).filter { $0.imaginary > -1e-9 }.map { zero in
            // z² - 2 w z + 1 = 0; of its zeros, whose product is 1, the one inside the circle.
            let w = Complex(1) - Complex(2) * zero
            let root = (w * w - Complex(1)).squareRoot()
            return (w + root).magnitude < 1 ? w + root : w - root
        }.sorted { $0.magnitude < $1.magnitude }
        var product = [Complex(1)]
        for _ in 0..<order { product = times(product, [Complex(1), Complex(1)]) }
        for (index, zero) in inner.enumerated() {
            let chosen = choice >> index & 1 == 1 ? Complex(1) / zero : zero
            product = times(product, [Complex(0) - chosen, Complex(1)])
            guard abs(zero.imaginary) > 1e-9 else { continue }
            let conjugate = Complex(chosen.real, -chosen.imaginary)
            product = times(product, [Complex(0) - conjugate, Complex(1)])
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
