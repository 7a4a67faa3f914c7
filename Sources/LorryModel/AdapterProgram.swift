import LorryTensor

/// A compiled adapter: what to do around the base's linear layers for the rows that use it.
///
/// For each layer and each group of linear layers that share an input, at most four operations
/// around the one shared base matmul `y = W x + b`:
///
///     1. input scale    x ← l ⊙ x
///     2. delta          y ← y + s · B (A x)
///     3. output scale   y ← g ⊙ y
///     4. bias           y ← y + c
///
/// Every PEFT method that is served compiles to these; the engine knows no methods. All operands
/// lie in one allocation, in the order in which a step reads them:
///
///     layer 0: attentionInput: l | A (all targets stacked) | B of q | B of k | B of v | g… | c…
///              attentionOutput: …
///     layer 1: …
public final class AdapterProgram: Sendable {
    public let description: AdapterDescription
    public let format: OperandFormat
    private let operands: PageMemory
    /// By layer, then by `LinearGroup`; nil where the adapter leaves the group alone.
    let groups: [[GroupProgram?]]
    /// Whether all keys and values are those of the base model, bit for bit, so that what is cached
    /// of one serves the other. So it is where only the last layer is changed, and there only what
    /// its keys and values do not depend on.
    public let keepsKeysAndValues: Bool

    init(
        description: AdapterDescription, format: OperandFormat, operands: PageMemory,
        groups: [[GroupProgram?]], keepsKeysAndValues: Bool
    ) {
        precondition(description.byteCount <= operands.byteCount, "operands without memory")
        self.description = description
        self.format = format
        self.operands = operands
        self.groups = groups
        self.keepsKeysAndValues = keepsKeysAndValues
    }

    /// Bytes that the adapter occupies while it is resident.
    public var byteCount: Int { description.byteCount }

    /// A copy of the operands, for tests.
    package var operandBytes: [UInt8] {
        Array(UnsafeRawBufferPointer(start: operands.start, count: byteCount))
    }

    /// The operand at an offset that `groups` names. Valid as long as the program lives.
    func operand(at offset: Int) -> UnsafeRawPointer {
        precondition(offset >= 0 && offset < operands.byteCount, "outside the operands")
        return UnsafeRawPointer(operands.start) + offset
    }

    /// Stands in for adapters where nothing is computed: changes nothing.
    package static func empty() throws(MemoryRefusal) -> AdapterProgram {
        AdapterProgram(
            description: AdapterDescription(
                method: "none", rank: 0, targets: [], byteCount: 0, parameterCount: 0),
            format: .f32, operands: try PageMemory(byteCount: 64), groups: [],
            keepsKeysAndValues: false)
    }
}

/// The operations around the linear layers of one group in one layer. Offsets are in bytes from the
/// start of the operands.
struct GroupProgram: Sendable, Equatable {
    /// Numbers in single precision that scale or shift a range of columns.
    struct Vector: Sendable, Equatable {
        var offset: Int
        var columnStart: Int
        var count: Int
    }

    /// `y[columnStart + o] += scale · Σ_j v[rankStart + j] · B[j, o]`; B is an `ExpandFactor`.
    struct Expand: Sendable, Equatable {
        var offset: Int
        var rankStart: Int
        var rank: Int
        var columnStart: Int
        var outFeatures: Int
        var scale: Float
    }

    /// Over all input columns.
    var inputScale: Vector?
    /// `A` of all targets stacked, a `ShrinkFactor` of rank `shrinkRank`.
    var shrinkOffset = 0
    var shrinkRank = 0
    var expands: [Expand] = []
    /// Elements of A and of all B.
    var elementCount = 0
    var outputScales: [Vector] = []
    var biases: [Vector] = []
}
