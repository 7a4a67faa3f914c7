/// How adapters are merged to one; the names are those of peft's `add_weighted_adapter`.
public struct MergeOptions: Sendable, Equatable {
    public enum Combination: String, Sendable, CaseIterable {
        /// `Σ wᵢ` of the factors A and of the factors B, each with the weight's root.
        case linear
        /// A and B stacked: the exact sum, with the sum of the ranks.
        case cat
        /// The nearest matrices of a rank to the exact sum.
        case svd
        /// TIES (arXiv 2306.01708): the largest numbers, where they agree in sign.
        case ties
        case tiesSVD = "ties_svd"
        /// DARE (arXiv 2311.03099): some numbers at random, scaled up.
        case dareLinear = "dare_linear"
        case dareTies = "dare_ties"
        case dareLinearSVD = "dare_linear_svd"
        case dareTiesSVD = "dare_ties_svd"
        /// The largest numbers.
        case magnitudePrune = "magnitude_prune"
        case magnitudePruneSVD = "magnitude_prune_svd"

        /// What is done to numbers of several adapters at the same place, whichever they are.
        var arithmetic: TaskArithmetic.Kind? {
            switch self {
            case .cat: nil
            case .linear, .svd: .sum
            case .ties, .tiesSVD: .ties
            case .dareLinear, .dareLinearSVD: .dareSum
            case .dareTies, .dareTiesSVD: .dareTies
            case .magnitudePrune, .magnitudePruneSVD: .prunedSum
            }
        }

        /// Merges `B A`, which is decomposed again, not the factors.
        var isOfProducts: Bool {
            switch self {
            case .svd, .tiesSVD, .dareLinearSVD, .dareTiesSVD, .magnitudePruneSVD: true
            default: false
            }
        }
    }

    public enum MajoritySign: String, Sendable, CaseIterable {
        /// That of the sum.
        case total
        /// That of most.
        case frequency
    }

    public var combination = Combination.svd
    /// The share of numbers that TIES, DARE and pruning keep.
    public var density: Double?
    public var majoritySign = MajoritySign.total
    /// Nil: the largest rank of the adapters.
    public var svdRank: Int?
    /// The quantile at which the decomposition's numbers are cut off.
    public var svdClamp: Double?
    /// Of DARE's choice.
    public var seed = 0

    public init() {}

    /// - Throws: `AdapterError` naming the option that is missing or out of its range.
    func check() throws(AdapterError) {
        func bad(_ option: String, _ reason: String) -> AdapterError {
            AdapterError(.invalid, "\(option) \(reason)")
        }
        switch combination {
        case .linear, .cat, .svd: break
        default:
            guard let density else {
                throw bad("density", "is needed by \(combination.rawValue)")
            }
            let isRandom = combination.arithmetic?.isRandom ?? false
            guard density >= 0, density.isFinite, density > 0 || !isRandom else {
                throw bad("density", "must be above 0, got \(density)")
            }
        }
        if let svdRank, svdRank < 1 { throw bad("svd_rank", "must be at least 1") }
        if let svdClamp, !(0...1).contains(svdClamp) {
            throw bad("svd_clamp", "must be between 0 and 1, got \(svdClamp)")
        }
    }
}
