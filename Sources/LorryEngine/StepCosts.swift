/// What a step takes, as measured: `fixed + prompt tokens · promptToken + decodes · decodeToken`.
package struct StepCosts: Sendable, Equatable {
    /// Seconds.
    package var fixed: Double
    package var promptToken: Double
    package var decodeToken: Double

    package init(fixed: Double, promptToken: Double, decodeToken: Double) {
        self.fixed = fixed
        self.promptToken = promptToken
        self.decodeToken = decodeToken
    }

    package func seconds(promptTokenCount: Int, decodeCount: Int) -> Double {
        fixed + Double(promptTokenCount) * promptToken + Double(decodeCount) * decodeToken
    }
}

/// Fits `StepCosts` to the steps of the last while by least squares.
///
/// Older steps fade. Where steps do not differ enough to tell the three numbers apart, the fit is
/// drawn towards equal costs per token and none per step.
package struct StepCostEstimate: Sendable {
    /// Of an older step, per later one.
    private static let fading = 0.995
    private static let firstUseCount = 8
    /// How strongly the fit is drawn, relative to what was seen.
    private static let pull = 0.01
    /// A step that takes longer than this many times what was expected was held up by something.
    private static let outlier = 4.0

    private var stepCount = 0
    // Faded sums over steps x = (1, prompt tokens, decodes) that took y seconds: of x xᵀ, by rows,
    // and of y x.
    private var first = SIMD3<Double>()
    private var second = SIMD3<Double>()
    private var third = SIMD3<Double>()
    private var times = SIMD3<Double>()
    /// Nil until some steps were seen.
    package private(set) var costs: StepCosts?

    package init() {}

    package mutating func note(promptTokenCount: Int, decodeCount: Int, seconds: Double) {
        var seconds = seconds
        if let costs {
            let expected = costs.seconds(
                promptTokenCount: promptTokenCount, decodeCount: decodeCount)
            seconds = min(seconds, Self.outlier * expected)
        }
        let x = SIMD3(1, Double(promptTokenCount), Double(decodeCount))
        first = first * Self.fading + x * x[0]
        second = second * Self.fading + x * x[1]
        third = third * Self.fading + x * x[2]
        times = times * Self.fading + x * seconds
        stepCount += 1
        if stepCount >= Self.firstUseCount { costs = fit() }
    }

    /// Solves the normal equations by Cramer's rule, a part of their diagonal added for the pull.
    private func fit() -> StepCosts? {
        let tokens = first[1] + first[2]
        guard tokens > 0, times[0] > 0 else { return costs }
        let mean = times[0] / tokens
        let pull = SIMD3(
            Self.pull * first[0], Self.pull * second[1] + 1, Self.pull * third[2] + 1)
        // The matrix is symmetric, so that its rows serve as columns.
        let a = first + SIMD3(pull[0], 0, 0)
        let b = second + SIMD3(0, pull[1], 0)
        let c = third + SIMD3(0, 0, pull[2])
        let y = times + SIMD3(0, pull[1] * mean, pull[2] * mean)
        let whole = Self.determinant(a, b, c)
        guard whole > 0 else { return costs }
        // Noise must not make anything free.
        return StepCosts(
            fixed: max(Self.determinant(y, b, c) / whole, 0),
            promptToken: max(Self.determinant(a, y, c) / whole, 0.05 * mean),
            decodeToken: max(Self.determinant(a, b, y) / whole, 0.05 * mean))
    }

    private static func determinant(
        _ a: SIMD3<Double>, _ b: SIMD3<Double>, _ c: SIMD3<Double>
    ) -> Double {
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
    }
}
