import LorryTensor

/// The output of a sublayer: of attention's or the feed-forward layers' last linear layer.
struct BottleneckPlace: Hashable, Sendable {
    var layer: Int
    /// `attentionOutput` or `feedForwardOutput`.
    var group: LinearGroup
}

/// What a bottleneck reads.
enum BottleneckInput: Sendable, Equatable {
    /// The sublayer's output.
    case output
    /// The residual stream before the sublayer.
    case residual
    /// Both added up.
    case sum
}

/// A small network of an adapter's own, whose output is added to a sublayer's.
struct Bottleneck: Sendable {
    var input: BottleneckInput
    var rank: Int
    /// `[rank, hiddenSize]`
    var down: Operand
    /// `[rank]`
    var downBias: Operand
    var activation: Activation
    /// `[hiddenSize, rank]`
    var up: Operand
    /// `[hiddenSize]`
    var upBias: Operand
}

/// A bottleneck laid out; see `BottleneckPass`. Offsets are in bytes.
struct BottleneckProgram: Sendable {
    var input: BottleneckInput
    var rank: Int
    var down: Int
    var downBias: Int
    var activation: Activation
    /// Over parts of at most `ExpandFactor.maximumRank` of v.
    var up: [GroupProgram.Expand]
    var upBias: Int
}
