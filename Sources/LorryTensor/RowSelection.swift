import CKernels

// What sampling looks for in a row of logits. Fused levels give the same bits.

/// The weights of a row of logits in a softmax: `exp(x / temperature - greatest / temperature)` for
/// logits from `floor` up; others, and NaN, weigh 0.
public struct SoftmaxWeights {
    private var native: ck_softmax
    private let kernels: UnsafePointer<ck_table>

    /// Logits that are added up in f32 before their sum goes on in f64.
    public static let blockSize = 1024

    /// - Parameters:
    ///   - temperature: above 0.
    ///   - greatest: the row's greatest logit, finite.
    public init(temperature: Float, greatest: Float, floor: Float, level: KernelLevel) {
        precondition(temperature > 0 && greatest.isFinite, "weights without a scale")
        native = ck_softmax(temperature: temperature, greatest: greatest, floor: floor)
        kernels = loaded(level)
    }

    /// The least logit that weighs anything.
    public var floor: Float {
        get { native.floor }
        set { native.floor = newValue }
    }

    /// The sum over a row.
    ///
    /// - Parameter blockSums: gets each block's part; at least as many elements as blocks.
    public func sum(
        of row: UnsafeBufferPointer<Float>, blockSums: UnsafeMutableBufferPointer<Double>? = nil
    ) -> Double {
        guard let start = row.baseAddress else { return 0 }
        var total = 0.0
        for (block, first) in stride(from: 0, to: row.count, by: Self.blockSize).enumerated() {
            let sum = withUnsafePointer(to: native) {
                Double(
                    kernels.pointee.weight_sum(
                        start + first, min(Self.blockSize, row.count - first), $0))
            }
            blockSums?[block] = sum
            total += sum
        }
        return total
    }

    /// `out[i]` is the weight of `row[i]`; `out` may be the row itself.
    public func write(
        of row: UnsafeBufferPointer<Float>, to out: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(out.count >= row.count, "weights without room")
        guard let start = row.baseAddress, let target = out.baseAddress else { return }
        withUnsafePointer(to: native) { kernels.pointee.weigh(start, row.count, $0, target) }
    }
}

/// The first element above `bound`, from `start` on; nil where there is none. NaN is above nothing.
public func firstIndex(
    above bound: Float, in row: UnsafeBufferPointer<Float>, from start: Int = 0, level: KernelLevel
) -> Int? {
    precondition(start >= 0, "a negative start")
    guard let base = row.baseAddress, start < row.count else { return nil }
    let index = loaded(level).pointee.find_above(base, start, row.count, bound)
    return index < row.count ? index : nil
}

/// How many elements are above `bound`.
public func count(
    above bound: Float, in row: UnsafeBufferPointer<Float>, level: KernelLevel
) -> Int {
    guard let base = row.baseAddress else { return 0 }
    return loaded(level).pointee.count_above(base, row.count, bound)
}
