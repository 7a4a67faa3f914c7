import LorryTensor

/// Collects an adapter's operations and lays them out as an `AdapterProgram`.
///
/// Compilers of PEFT methods only talk to this type: each call adds one operation at one module,
/// checked against the base model's dimensions.
public struct AdapterProgramBuilder: Sendable {
    /// A step of what is done to an input.
    public enum InputStep: Sendable {
        /// `x ← l ⊙ x`, `[inFeatures]`.
        case scale(Operand)
        /// `x[i] ← x[indices[i]]`
        case gather([UInt32])
        /// `x ← x · diag(R)`, `[count or 1, blockSize, blockSize]`.
        case blocks(Operand, blockSize: Int, count: Int, isShared: Bool)
    }

    struct LowRank {
        var rank: Int
        var down: Operand
        var up: Operand
        var scale: Float
    }

    struct Dense {
        var matrix: Operand
        var scale: Float
    }

    struct Kronecker {
        var shape: KroneckerShape
        var left: Operand
        var right: Operand
        var scale: Float
    }

    struct Circulant {
        var blockSize: Int
        var outBlocks: Int
        var inBlocks: Int
        var kernels: Operand
    }

    struct Mix {
        var own: Operand
        var other: Operand
        var groupSize: Int
    }

    /// What is done around one linear layer.
    struct LinearOperations {
        var inputSteps: [InputStep] = []
        var lowRanks: [LowRank] = []
        var dense: [Dense] = []
        var sparse: [AdapterPlan.Sparse] = []
        var kroneckers: [Kronecker] = []
        var circulants: [Circulant] = []
        var outputScale: Operand?
        var mix: Mix?
        var biases: [AdapterPlan.Bias] = []

        /// Whether the base's bias is not added.
        var replacesBias: Bool {
            biases.contains { if case .replacing = $0 { true } else { false } }
        }
    }

    struct GroupPlace: Hashable {
        var layer: Int
        var group: LinearGroup
    }

    /// Rows of a table over the vocabulary, in the order of their tokens.
    struct TableRows {
        var tokens: [Int32]
        var rows: Operand
    }

    struct PromptAttentionOperands {
        var keys: Operand
        var values: Operand
        var gate: Operand
        var count: Int
    }

    public let configuration: ModelConfiguration
    private(set) var operations: [BaseModule: LinearOperations] = [:]
    /// The most numbers that are computed at once when the program is made.
    private(set) var largestComputation = 0
    private(set) var groupInputSteps: [GroupPlace: [InputStep]] = [:]
    private(set) var norms: [BaseModule.NormSite: Operand] = [:]
    /// Whole tables of the adapter's own: of embedding and head.
    private(set) var tables: [BaseModule: Operand] = [:]
    /// Single rows of the adapter's own, beside a table's.
    private(set) var tableRows: [BaseModule: TableRows] = [:]
    private(set) var embeddingLowRanks: [LowRank] = []
    private(set) var embeddingScale: Operand?
    private(set) var virtualTokenCount = 0
    private(set) var virtualEmbeddings: Operand?
    private(set) var givenKeysAndValues: [Operand] = []
    private(set) var promptAttentions: [Int: PromptAttentionOperands] = [:]
    private(set) var bottlenecks: [BottleneckPlace: Bottleneck] = [:]
    /// The adapter acts from the last place of these tokens in the prompt on; nil: everywhere.
    public var invocationTokens: [Int32]?
    /// How many tasks there are; nil: operands do not depend on the task.
    public var taskCount: Int?

    public init(configuration: ModelConfiguration) { self.configuration = configuration }

    /// Notes that so many numbers will be in memory at once while the program is made.
    mutating func noteComputation(of count: Int) {
        largestComputation = max(largestComputation, count)
    }

    // MARK: - Linear layers and the head

    /// Adds `y ← y + scale · up (down x)`. Of a rank beyond what factors may have it is laid out as
    /// one matrix.
    ///
    /// - Parameters:
    ///   - down: `[rank, inFeatures]`, row-major.
    ///   - up: `[outFeatures, rank]`, row-major.
    public mutating func addLowRank(
        at module: BaseModule, rank: Int, down: Operand, up: Operand, scale: Float = 1
    ) {
        let (outFeatures, inFeatures) = dimensions(of: module)
        precondition(down.count == rank * inFeatures && up.count == outFeatures * rank)
        noteComputation(of: down.count + up.count)
        guard rank <= ExpandFactor.maximumRank else {
            let product = Operand.derived(count: outFeatures * inFeatures) {
                reader throws(AdapterError) in
                DenseAlgebra.product(
                    .init(try reader.floats(up)), .init(try reader.floats(down)), m: outFeatures,
                    n: inFeatures, k: rank)
            }
            return addDense(at: module, matrix: product, scale: scale)
        }
        change(module) {
            $0.lowRanks.append(LowRank(rank: rank, down: down, up: up, scale: scale))
        }
    }

    /// Adds `y ← y + scale · D x`, for a D without a cheaper form. `[outFeatures, inFeatures]`
    public mutating func addDense(at module: BaseModule, matrix: Operand, scale: Float = 1) {
        let (outFeatures, inFeatures) = dimensions(of: module)
        precondition(matrix.count == outFeatures * inFeatures)
        change(module) { $0.dense.append(Dense(matrix: matrix, scale: scale)) }
    }

    /// Adds `y ← y + D x` with a D of `count` numbers; those at the same place add up.
    mutating func addSparse(
        at module: BaseModule, count: Int,
        entries: @escaping @Sendable (OperandReader) throws(AdapterError) -> [SparseEntry]
    ) {
        if module == .head { return addDense(at: module, entries: entries) }
        requireLayer(module)
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        change(module) {
            $0.sparse.append(
                .init(
                    count: count, outFeatures: outFeatures, inFeatures: inFeatures,
                    entries: entries))
        }
    }

    /// Adds `y ← y + scale · (left ⊗ right) x`.
    ///
    /// - Parameters:
    ///   - left: `[leftOut, leftIn]`
    ///   - right: `[rightOut, rightIn]`
    public mutating func addKronecker(
        at module: BaseModule, shape: KroneckerShape, left: Operand, right: Operand, scale: Float
    ) {
        requireLayer(module)
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        precondition(shape.leftOut * shape.rightOut == outFeatures)
        precondition(shape.leftIn * shape.rightIn == inFeatures)
        precondition(left.count == shape.leftOut * shape.leftIn)
        precondition(right.count == shape.rightOut * shape.rightIn)
        let transposed = Operand.derived(count: right.count) { reader throws(AdapterError) in
            transpose(try reader.floats(right), rowCount: shape.rightOut)
        }
        change(module) {
            $0.kroneckers.append(
                Kronecker(shape: shape, left: left, right: transposed, scale: scale))
        }
    }

    /// Adds `y ← y + D x`, where D consists of circulant blocks.
    ///
    /// - Parameter columns: the first column of each block,
    ///   `[outFeatures / blockSize, inFeatures / blockSize, blockSize]`.
    public mutating func addCirculant(at module: BaseModule, blockSize: Int, columns: Operand) {
        requireLayer(module)
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        precondition(outFeatures % blockSize == 0 && inFeatures % blockSize == 0)
        precondition(columns.count * blockSize == outFeatures * inFeatures)
        let kernels = Operand.derived(count: 2 * columns.count) { reader throws(AdapterError) in
            let floats = try reader.floats(columns)
            return stride(from: 0, to: floats.count, by: blockSize).flatMap {
                let column = floats[$0..<$0 + blockSize]
                return Array(column) + column
            }
        }
        change(module) {
            $0.circulants.append(
                Circulant(
                    blockSize: blockSize, outBlocks: outFeatures / blockSize,
                    inBlocks: inFeatures / blockSize, kernels: kernels))
        }
    }

    /// Adds `y ← y + scale · vector`. `[outFeatures]`
    public mutating func addBias(at module: BaseModule, vector: Operand, scale: Float = 1) {
        precondition(vector.count == dimensions(of: module).outFeatures)
        change(module) { $0.biases.append(.added(vector, scale: scale)) }
    }

    /// Puts a bias in the place of the one that the base has at this module. `[outFeatures]`
    public mutating func replaceBias(at module: BaseModule, vector: Operand) {
        precondition(vector.count == configuration.dimensions(of: module).outFeatures)
        precondition(configuration.hasBias(module))
        change(module) { $0.biases.append(.replacing(vector)) }
    }

    /// Sets `y ← vector ⊙ y`, the base's bias included, after deltas and before biases.
    /// `[outFeatures]`
    public mutating func setOutputScale(at module: BaseModule, vector: Operand) {
        precondition(vector.count == dimensions(of: module).outFeatures)
        change(module) { $0.outputScale = vector }
    }

    /// Sets `y ← vector ⊙ (y - b) + b` with the base's bias b. `[outFeatures]`
    public mutating func setOutputScaleWithoutBias(at module: BaseModule, vector: Operand) {
        setOutputScale(at: module, vector: vector)
        guard configuration.hasBias(module) else { return }
        let rest = Operand.derived(count: vector.count) { reader throws(AdapterError) in
            zip(try reader.floats(vector), reader.base.bias(module)).map { (1 - $0) * $1 }
        }
        addBias(at: module, vector: rest)
    }

    /// Mixes the two halves of each group of outputs, the base's bias included: an output becomes
    /// `own · itself + other · (its like in the other half)`. `[outFeatures]` each.
    public mutating func setOutputMix(
        at module: BaseModule, groupSize: Int, own: Operand, other: Operand
    ) {
        requireLayer(module)
        let count = configuration.dimensions(of: module).outFeatures
        precondition(own.count == count && other.count == count)
        precondition(groupSize % 2 == 0 && count % groupSize == 0)
        change(module) { $0.mix = Mix(own: own, other: other, groupSize: groupSize) }
    }

    /// Changes the input of one linear layer alone; its deltas read the input as it was, unless it
    /// is the only one of its group.
    public mutating func transformInput(of module: BaseModule, _ steps: [InputStep]) {
        if module == .head { return transformHeadInput(steps) }
        guard case .linear(let layer, let site) = module else {
            preconditionFailure("\(module.path) has no input that can be changed")
        }
        if site.group.sites.count == 1 {
            transformInput(layer: layer, group: site.group, steps)
        } else {
            change(module) { $0.inputSteps += steps }
        }
    }

    /// Changes the input of all linear layers of a group; their deltas see what it has become.
    public mutating func transformInput(layer: Int, group: LinearGroup, _ steps: [InputStep]) {
        groupInputSteps[GroupPlace(layer: layer, group: group), default: []] += steps
    }

    private mutating func change(_ module: BaseModule, _ body: (inout LinearOperations) -> Void) {
        precondition(module.isLinear, "\(module.path) is no linear layer")
        body(&operations[module, default: LinearOperations()])
    }

    /// Adds what another adapter does at a linear layer; see `AdapterSum`.
    mutating func add(_ others: LinearOperations, at module: BaseModule) {
        change(module) {
            $0.lowRanks += others.lowRanks
            $0.dense += others.dense
            $0.sparse += others.sparse
            $0.kroneckers += others.kroneckers
            $0.circulants += others.circulants
            $0.biases += others.biases
        }
    }

    private func requireLayer(_ module: BaseModule) {
        guard case .linear = module else {
            preconditionFailure("\(module.path) is no linear layer of a decoder layer")
        }
    }

    // MARK: - Other modules

    /// Puts another weight in a norm's place. `[hiddenSize]`
    public mutating func replaceNorm(_ site: BaseModule.NormSite, weight: Operand) {
        precondition(weight.count == configuration.hiddenSize)
        norms[site] = weight
    }

    /// Puts a whole table in the place of the embedding's or the head's. It may have more rows than
    /// the base's. `[vocabularySize, hiddenSize]`
    public mutating func replaceTable(_ module: BaseModule, rows: Operand) {
        precondition(module.isTable && rows.count % configuration.hiddenSize == 0)
        precondition(rows.count / configuration.hiddenSize >= configuration.vocabularySize)
        tables[module] = rows
    }

    /// Gives single tokens rows of their own in the embedding or the head, which no delta changes.
    ///
    /// - Parameters:
    ///   - tokens: distinct, in the order of the rows.
    ///   - rows: `[tokens, hiddenSize]`
    public mutating func replaceRows(of module: BaseModule, tokens: [Int32], rows: Operand) {
        let width = configuration.hiddenSize
        precondition(module.isTable && rows.count == tokens.count * width)
        precondition(Set(tokens).count == tokens.count)
        // Ascending, so that a row is found by bisection.
        let order = tokens.indices.sorted { tokens[$0] < tokens[$1] }
        let sorted = Operand.derived(count: rows.count) { reader throws(AdapterError) in
            let floats = try reader.floats(rows)
            return order.flatMap { floats[$0 * width..<($0 + 1) * width] }
        }
        tableRows[module] = TableRows(tokens: order.map { tokens[$0] }, rows: sorted)
    }

    /// Whether the adapter has a table of its own in the module's place.
    func hasTable(_ module: BaseModule) -> Bool { tables[module] != nil }

    /// Tokens that the adapter knows, its own included.
    var vocabularySize: Int { tableSize(.embedding) }

    private func tableSize(_ module: BaseModule) -> Int {
        tables[module].map { $0.count / configuration.hiddenSize } ?? configuration.vocabularySize
    }

    /// As the configuration's, with the adapter's own tables.
    func dimensions(of module: BaseModule) -> (outFeatures: Int, inFeatures: Int) {
        switch module {
        case .head: (tableSize(.head), configuration.hiddenSize)
        case .embedding: (configuration.hiddenSize, tableSize(.embedding))
        case .linear, .norm: configuration.dimensions(of: module)
        }
    }

    /// A module's weight as it is before the adapter's deltas (see `BaseWeights.weight`).
    func weight(of module: BaseModule) -> Operand {
        if let table = tables[module] { return table }
        let (outFeatures, inFeatures) = configuration.dimensions(of: module)
        return .derived(count: outFeatures * inFeatures) { $0.base.weight(module) }
    }

    /// Adds `scale · up · downᵀ[token]` to the embedding of each of the base's tokens.
    ///
    /// - Parameters:
    ///   - down: `[vocabularySize, rank]`, row-major.
    ///   - up: `[hiddenSize, rank]`
    public mutating func addEmbeddingLowRank(
        rank: Int, down: Operand, up: Operand, scale: Float
    ) {
        precondition(down.count == vocabularySize * rank)
        precondition(up.count == configuration.hiddenSize * rank)
        embeddingLowRanks.append(LowRank(rank: rank, down: down, up: up, scale: scale))
    }

    /// Scales the embeddings of the base's tokens, deltas included. `[hiddenSize]`
    public mutating func setEmbeddingScale(_ vector: Operand) {
        precondition(vector.count == configuration.hiddenSize)
        embeddingScale = vector
    }

    // MARK: - Virtual tokens

    /// Puts tokens of the adapter's own before every prompt. `[count, hiddenSize]`
    public mutating func setVirtualTokens(embeddings: Operand) {
        precondition(embeddings.count % configuration.hiddenSize == 0)
        virtualTokenCount = embeddings.count / configuration.hiddenSize
        virtualEmbeddings = embeddings
    }

    /// Puts keys and values before every prompt, which are taken as they are.
    ///
    /// - Parameter byLayer: for each layer `[count, 2, kvHeads · headDim]`, the key before the value.
    public mutating func setGivenKeysAndValues(count: Int, byLayer: [Operand]) {
        precondition(byLayer.count == configuration.layerCount)
        precondition(byLayer.allSatisfy { $0.count == count * 2 * configuration.kvWidth })
        virtualTokenCount = count
        givenKeysAndValues = byLayer
    }

    /// Adds, to the attention of a layer, `gate` times the attention to keys and values that lie
    /// outside the context. `[count, kvHeads · headDim]` each, and a gate of one number.
    public mutating func addPromptAttention(
        layer: Int, count: Int, keys: Operand, values: Operand, gate: Operand
    ) {
        precondition(keys.count == count * configuration.kvWidth && values.count == keys.count)
        precondition(gate.count == 1)
        promptAttentions[layer] = PromptAttentionOperands(
            keys: keys, values: values, gate: gate, count: count)
    }

    // MARK: - Bottlenecks

    /// Adds a network's output to a sublayer's; see `BottleneckPass`.
    mutating func setBottleneck(_ place: BottleneckPlace, _ bottleneck: Bottleneck) {
        let (width, rank) = (configuration.hiddenSize, bottleneck.rank)
        precondition(bottleneck.down.count == rank * width && bottleneck.downBias.count == rank)
        precondition(bottleneck.up.count == rank * width && bottleneck.upBias.count == width)
        precondition(place.group == .attentionOutput || place.group == .feedForwardOutput)
        bottlenecks[place] = bottleneck
    }

    // MARK: - Results

    /// What the adapter will be.
    public func describe(method: String, format: OperandFormat) -> AdapterDescription {
        plan(method: method, format: format).description
    }

    /// Lays everything out in memory.
    ///
    /// - Parameters:
    ///   - model: the base.
    ///   - file: all bytes of the file that tensors come from, where some do.
    public func build(
        method: String, format: OperandFormat, model: DecoderModel,
        reading file: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) throws(AdapterError) -> AdapterProgram {
        try plan(method: method, format: format).program(reading: [file], model: model)
    }

    /// Where everything is to lie.
    func plan(method: String, format: OperandFormat) -> AdapterPlan {
        var layout = AdapterLayout(self, format: format)
        return layout.plan(method: method)
    }
}

/// A row-major matrix with rows and columns exchanged.
func transpose(_ matrix: [Float], rowCount: Int) -> [Float] {
    guard rowCount > 0 else { return [] }
    let width = matrix.count / rowCount
    var result = [Float](repeating: 0, count: matrix.count)
    for row in 0..<rowCount {
        for column in 0..<width { result[column * rowCount + row] = matrix[row * width + column] }
    }
    return result
}
