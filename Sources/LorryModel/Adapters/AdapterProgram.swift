import LorryTensor

/// A compiled adapter: what to do around the base's modules for the rows that use it.
///
/// For each layer and each group of linear layers that share an input, at most four operations
/// around the one shared base matmul `y = W x + b`:
///
///     1. input          x ← T(x)                scale, rotation of blocks
///     2. delta          y ← y + Δ x             s · B (A x), dense, sparse, Kronecker, circulant
///     3. output         y ← mix(g ⊙ y)
///     4. bias           y ← y + c
///
/// and beside them replaced norms, rows of the embedding and of the head, virtual tokens and their
/// keys and values, and bottlenecks behind sublayers. Every PEFT method that is served compiles to these; the engine knows no
/// methods. All operands lie in one allocation, in the order in which a step reads them:
///
///     layer 0: attentionInput: l | A (all targets stacked) | B of q | B of k | B of v | g… | c…
///              attentionOutput: …
///     layer 1: …
///     head, embedding, norms, virtual tokens
public final class AdapterProgram: Sendable {
    public let description: AdapterDescription
    public let format: OperandFormat
    private let operands: PageMemory
    let operations: AdapterOperations

    init(
        description: AdapterDescription, format: OperandFormat, operands: PageMemory,
        operations: AdapterOperations
    ) {
        precondition(description.byteCount <= operands.byteCount, "operands without memory")
        self.description = description
        self.format = format
        self.operands = operands
        self.operations = operations
    }

    /// Bytes that the adapter occupies while it is resident.
    public var byteCount: Int { description.byteCount }

    /// Whether all keys and values are those of the base model, bit for bit, so that what is cached
    /// of one serves the other. So it is where only the last layer is changed, and there only what
    /// its keys and values do not depend on.
    public var keepsKeysAndValues: Bool { operations.keepsKeysAndValues }

    /// Logits of a row, where the adapter has a whole head of its own.
    var logitCount: Int? { operations.head?.table?.count }

    /// A copy of the operands, for tests.
    package var operandBytes: [UInt8] {
        Array(UnsafeRawBufferPointer(start: operands.start, count: byteCount))
    }

    /// The operand at an offset that `operations` names. Valid as long as the program lives.
    func operand(at offset: Int) -> UnsafeRawPointer {
        precondition(offset >= 0 && offset < operands.byteCount, "outside the operands")
        return UnsafeRawPointer(operands.start) + offset
    }

    /// An operand in single precision.
    func floats(at offset: Int) -> UnsafePointer<Float> {
        operand(at: offset).assumingMemoryBound(to: Float.self)
    }

    /// An operand of whole numbers.
    func indices(at offset: Int) -> UnsafePointer<UInt32> {
        operand(at: offset).assumingMemoryBound(to: UInt32.self)
    }

    /// Stands in for adapters where nothing is computed: changes nothing.
    package static func empty() throws(MemoryRefusal) -> AdapterProgram {
        AdapterProgram(
            description: AdapterDescription(
                method: "none", rank: 0, targets: [], byteCount: 0, parameterCount: 0),
            format: .f32, operands: try PageMemory(byteCount: 64),
            operations: AdapterOperations())
    }
}

/// The operations of an adapter. Offsets are in bytes from the start of the operands.
struct AdapterOperations: Sendable {
    /// By layer and `LinearGroup`; nil where the adapter leaves the group alone.
    private var groups: [SharedGroupProgram?] = []
    var head: HeadProgram?
    var embedding: EmbeddingProgram?
    /// Weights that take the places of norms: f32 `[hiddenSize]`.
    var norms: [BaseModule.NormSite: Int] = [:]
    /// By layer: keys and values of the virtual tokens, f32 `[count, 2, kvWidth]`.
    var givenKeysAndValues: [Int] = []
    var promptAttentions: [Int: PromptAttentionProgram] = [:]
    var bottlenecks: [BottleneckPlace: BottleneckProgram] = [:]
    var keepsKeysAndValues = false

    /// Adds those of the next layer.
    mutating func appendLayer(_ programs: [GroupProgram?]) {
        precondition(programs.count == LinearGroup.allCases.count, "a layer has all groups")
        groups += programs.map { $0.map(SharedGroupProgram.init) }
    }

    func at(_ layer: Int, _ group: LinearGroup) -> SharedGroupProgram? {
        groups[layer * LinearGroup.allCases.count + group.rawValue]
    }
}

/// A group's program as a step takes it, for each layer and each adapter of the batch: by one
/// reference, not by one for each of its lists.
final class SharedGroupProgram: Sendable {
    let program: GroupProgram

    init(_ program: GroupProgram) { self.program = program }
}

/// The operations around the linear layers of one group in one layer.
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
        /// Into what the group's A gives or, for a part of a dense matrix, into the input.
        var rankStart: Int
        var rank: Int
        var columnStart: Int
        var outFeatures: Int
        var scale: Float
    }

    enum Structured: Sendable, Equatable {
        case sparse(starts: Int, columns: Int, values: Int, columnStart: Int, outFeatures: Int)
        case kronecker(left: Int, right: Int, KroneckerShape, scale: Float, columnStart: Int)
        case circulant(
            kernels: Int, blockSize: Int, outBlocks: Int, inBlocks: Int, columnStart: Int)
    }

    /// Mixes the halves of groups of columns (see `PairMix`).
    struct Mix: Sendable, Equatable {
        var own: Int
        var other: Int
        var columnStart: Int
        var count: Int
        var groupSize: Int
    }

    /// What is done to the input of some columns.
    struct InputTransform: Sendable, Equatable {
        enum Step: Sendable, Equatable {
            case scale(offset: Int)
            case gather(offset: Int)
            /// Without their diagonal of ones, in f32 or bf16.
            case blocks(
                offset: Int, format: OperandFormat, blockSize: Int, count: Int, isShared: Bool)
        }
        var steps: [Step]
        /// All columns of the group, or those of one of its layers, whose matmul then runs anew.
        var columns: Range<Int>
        var isOfWholeGroup: Bool
    }

    var inputTransforms: [InputTransform] = []
    /// `A` of all targets stacked, a `ShrinkFactor` of rank `shrinkRank`.
    var shrinkOffset = 0
    var shrinkRank = 0
    var expands: [Expand] = []
    /// Matrices that act on the input, in parts of at most `ExpandFactor.maximumRank` inputs.
    var dense: [Expand] = []
    /// Elements of A and of all B.
    var elementCount = 0
    var structured: [Structured] = []
    var outputScales: [Vector] = []
    var mixes: [Mix] = []
    var biases: [Vector] = []

    /// Whether A and B are all that there is, as with most adapters: a step need not look at the
    /// other lists.
    var isLowRankAlone: Bool {
        inputTransforms.isEmpty && dense.isEmpty && structured.isEmpty && outputScales.isEmpty
            && mixes.isEmpty && biases.isEmpty
    }
}

/// What is done to the logits.
struct HeadProgram: Sendable {
    /// All rows, in the place of the base's.
    var table: HeadRows?
    /// Operations 2 to 4, as around any linear layer.
    var operations = GroupProgram()
    /// Rows of single tokens, which the operations leave alone.
    var rows: HeadRows?
}

/// Rows of a head of the adapter's own, in parts of `ExpandFactor`s over the hidden size.
struct HeadRows: Sendable {
    /// The tokens that they belong to; nil for the first `count`.
    var tokens: [Int32]?
    var count: Int
    /// With columns counted from the first of these rows.
    var parts: [GroupProgram.Expand]
}

/// Where tokens' embeddings come from.
struct EmbeddingProgram: Sendable {
    /// Rows of a table of the adapter's own, f32 or bf16.
    struct Rows: Sendable {
        /// Ascending; nil for the first `count` tokens.
        var tokens: [Int32]?
        var count: Int
        var offset: Int
        var elementType: ElementType
    }
    /// Of virtual tokens -1, -2, …: f32 `[count, hiddenSize]`.
    var virtualOffset: Int?
    var virtualCount = 0
    /// All rows, in the place of the base's.
    var table: Rows?
    /// Rows of single tokens, which deltas and scale leave alone.
    var rows: Rows?
    /// Each token's A, f32 `[vocabularySize, rank]`, and B.
    var lowRanks: [(downOffset: Int, expand: GroupProgram.Expand)] = []
    /// f32 `[hiddenSize]`
    var scaleOffset: Int?
}

/// Keys and values f32 `[count, kvWidth]` of an adaption prompt.
struct PromptAttentionProgram: Sendable {
    var keys: Int
    var values: Int
    var count: Int
    /// f32, one number.
    var gate: Int
}
