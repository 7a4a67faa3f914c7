/// Prefill of one run.
public struct PrefillMeasurement: Sendable {
    public var tokenCount: Int
    /// From the first step's start to the last one's end.
    public var seconds: Double
    /// The sum of all steps' limits.
    public var limitSeconds: Double
    public var stepSeconds: Samples
    /// From submission to the first token, of each sequence.
    public var firstTokenSeconds: Samples

    public var tokensPerSecond: Double { seconds > 0 ? Double(tokenCount) / seconds : 0 }
    public var shareOfLimit: Double { seconds > 0 ? limitSeconds / seconds : 0 }
}

/// Decode of one run: the steps in which every sequence computed one token.
public struct DecodeMeasurement: Sendable {
    public struct Step: Sendable {
        /// Since the end of the step before.
        public var seconds: Double
        public var limitSeconds: Double
        public var readingSeconds: Double
        public var computingSeconds: Double
        public var planSeconds: Double
        public var runSeconds: Double
        public var commitSeconds: Double
        public var byteCount: Double
        public var operationCount: Double
    }

    public var batch: Int
    public var steps: [Step]

    public var stepSeconds: Samples { samples(\.seconds) }
    /// At the median step.
    public var tokensPerSecond: Double {
        let seconds = stepSeconds.median
        return seconds > 0 ? Double(batch) / seconds : 0
    }
    /// The median step's share.
    public var shareOfLimit: Double {
        Samples(steps.map { $0.seconds > 0 ? $0.limitSeconds / $0.seconds : 0 }).median
    }

    public func samples(_ figure: KeyPath<Step, Double>) -> Samples {
        Samples(steps.map { $0[keyPath: figure] })
    }
}

/// One round of one case.
public struct CaseMeasurement: Sendable {
    public var prefill: PrefillMeasurement
    public var decode: DecodeMeasurement
    /// What memory gave before prefill, between prefill and decode, and after it.
    public var readBytesPerSecond: [Double]
}

/// All rounds: the base alone and, where there are adapters, the mixed batch beside it.
public struct EngineMeasurement: Sendable {
    public var base: [CaseMeasurement]
    /// As many as `base`, or none.
    public var mixed: [CaseMeasurement]

    /// What memory gave beside all rounds.
    public var readBytesPerSecond: Samples {
        Samples((base + mixed).flatMap(\.readBytesPerSecond))
    }

    /// The median over the rounds of the mixed batch's rate as a share of the base's in that round.
    public func shareOfBase(_ rate: (CaseMeasurement) -> Double) -> Double {
        Samples(
            zip(base, mixed).map { base, mixed in
                rate(base) > 0 ? rate(mixed) / rate(base) : 0
            }
        ).median
    }
}
