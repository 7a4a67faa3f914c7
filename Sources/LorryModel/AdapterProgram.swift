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
    let operands: OperandBuffer
    /// By layer, then by `LinearGroup`; nil where the adapter leaves the group alone.
    let groups: [[GroupProgram?]]

    init(
        description: AdapterDescription, format: OperandFormat, operands: OperandBuffer,
        groups: [[GroupProgram?]]
    ) {
        self.description = description
        self.format = format
        self.operands = operands
        self.groups = groups
    }

    /// Bytes that the adapter occupies while it is resident.
    public var byteCount: Int { operands.byteCount }
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

/// The bytes behind a program's operands.
///
/// Safe because it is written only while a builder fills it, before the program that owns it is
/// shared, and freed with it.
final class OperandBuffer: @unchecked Sendable {
    private let buffer: AlignedBuffer<UInt8>

    init(byteCount: Int) { buffer = AlignedBuffer(count: byteCount) }

    var byteCount: Int { buffer.count }

    func pointer(at offset: Int) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && offset <= buffer.count)
        return UnsafeMutableRawPointer(buffer.pointer) + offset
    }
}
