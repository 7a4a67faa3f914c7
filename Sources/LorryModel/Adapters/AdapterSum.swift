import Foundation
import LorryTensor

/// An adapter as a part of a sum.
public struct AdapterSummand: Sendable {
    /// For messages.
    public let name: String
    public let directory: URL
    /// Of the files when they were checked; see `AdapterCompiler.compile`.
    public let checksums: AdapterChecksums?
    public let scale: Float

    public init(name: String, directory: URL, checksums: AdapterChecksums?, scale: Float) {
        self.name = name
        self.directory = directory
        self.checksums = checksums
        self.scale = scale
    }
}

extension AdapterCompiler {
    /// One program for several adapters at once: `y = W x + b + Σ scaleᵢ · Δᵢ(x)`.
    ///
    /// Only adapters that add to what linear layers and the embedding give can be summed.
    ///
    /// - Throws: `AdapterError` as `compile` does, in front the adapter's name; of kind
    ///   `unsupported` where an adapter is none that can be summed.
    public static func compile(
        sumOf summands: [AdapterSummand], model: DecoderModel, format: OperandFormat? = nil,
        cache: CompilationCache? = nil
    ) throws(AdapterError) -> AdapterProgram {
        var sum = AdapterSum(configuration: model.configuration)
        var files: [AdapterFiles] = []
        var bytes: [UnsafeRawBufferPointer] = []
        for summand in summands {
            let opened = try sum.add(summand)
            files.append(opened)
            bytes.append(try opened.weights.get().bytes)
        }
        let plan = sum.plan(format: format ?? model.format.operandFormat)
        let program = try plan.program(reading: bytes, model: model, spares: cache?.spares)
        for (file, summand) in zip(files, summands) where summand.checksums != nil {
            try file.checkUnchanged()
        }
        return program
    }

    /// What such a program will be, from the files' headers alone.
    public static func describe(
        sumOf summands: [AdapterSummand], configuration: ModelConfiguration, format: OperandFormat
    ) throws(AdapterError) -> AdapterDescription {
        var sum = AdapterSum(configuration: configuration)
        for summand in summands {
            try sum.add(
                AdapterSummand(
                    name: summand.name, directory: summand.directory, checksums: nil,
                    scale: summand.scale))
        }
        return sum.plan(format: format).description
    }
}

/// Collects the operations of several adapters, each times its scale, in one builder.
private struct AdapterSum {
    private var builder: AdapterProgramBuilder
    private var count = 0

    init(configuration: ModelConfiguration) {
        builder = AdapterProgramBuilder(configuration: configuration)
    }

    func plan(format: OperandFormat) -> AdapterPlan {
        builder.plan(method: "composition", format: format)
    }

    /// - Returns: the adapter's files, which come next among those that the plan reads.
    @discardableResult
    mutating func add(_ summand: AdapterSummand) throws(AdapterError) -> AdapterFiles {
        do throws(AdapterError) {
            let files = try AdapterFiles(directory: summand.directory)
            if let checksums = summand.checksums {
                if case .success(let weights) = files.weights { weights.populate() }
                try files.check(checksums)
            }
            let (operations, method) = try AdapterCompiler.operations(
                of: AdapterSource(files), builder.configuration)
            try builder.add(operations, method: method, scale: summand.scale, file: count)
            count += 1
            return files
        } catch {
            throw AdapterError(error.kind, "\(summand.name): \(error.message)")
        }
    }
}

extension AdapterProgramBuilder {
    /// Adds what another adapter does, times a scale.
    ///
    /// - Parameters:
    ///   - method: the other's, for the message.
    ///   - file: which of the files that the program is made from is the other's.
    /// - Throws: `AdapterError` of kind `unsupported` where it cannot be scaled and added.
    package mutating func add(
        _ other: AdapterProgramBuilder, method: String, scale: Float, file: Int
    ) throws(AdapterError) {
        if let obstacle = other.obstacleToSums {
            throw AdapterError(
                .unsupported, "cannot be part of a sum of adapters (\(method)): \(obstacle)")
        }
        for (module, operations) in other.operations {
            add(operations.scaled(by: scale, file: file), at: module)
        }
        for delta in other.embeddingLowRanks {
            addEmbeddingLowRank(
                rank: delta.rank, down: delta.down.reading(file: file),
                up: delta.up.reading(file: file), scale: delta.scale * scale)
        }
    }

    /// Why the operations are not all of the kind that can be scaled and added up; nil if they are.
    var obstacleToSums: String? {
        if !bottlenecks.isEmpty { return "it puts layers of its own behind the base's" }
        if taskCount != nil { return "its numbers depend on the task of the request" }
        if invocationTokens != nil { return "it acts from some tokens on only" }
        if virtualTokenCount > 0 { return "it puts tokens of its own before the prompt" }
        if !promptAttentions.isEmpty { return "it adds attention to tokens of its own" }
        if !norms.isEmpty { return "it replaces the weights of norms" }
        if !tables.isEmpty || !tableRows.isEmpty {
            return "it replaces rows of the embedding or the head"
        }
        if embeddingScale != nil { return "it scales what the embedding gives" }
        if !groupInputSteps.isEmpty { return "it changes what goes into linear layers" }
        return operations.values.lazy.compactMap(\.obstacleToSums).min()
    }
}

extension AdapterProgramBuilder.LinearOperations {
    fileprivate var obstacleToSums: String? {
        if !inputSteps.isEmpty { return "it changes what goes into linear layers" }
        if outputScale != nil { return "it scales what linear layers give" }
        if mix != nil { return "it mixes what linear layers give" }
        for case .replacing in biases { return "it replaces biases" }
        return nil
    }

    /// Times a scale, with operands of one of several files. Only of what adds to outputs.
    fileprivate func scaled(by scale: Float, file: Int) -> Self {
        var scaled = self
        for index in scaled.lowRanks.indices {
            scaled.lowRanks[index].down = lowRanks[index].down.reading(file: file)
            scaled.lowRanks[index].up = lowRanks[index].up.reading(file: file)
            scaled.lowRanks[index].scale *= scale
        }
        for index in scaled.dense.indices {
            scaled.dense[index].matrix = dense[index].matrix.reading(file: file)
            scaled.dense[index].scale *= scale
        }
        scaled.sparse = sparse.map { matrix in
            AdapterPlan.Sparse(
                count: matrix.count, outFeatures: matrix.outFeatures,
                inFeatures: matrix.inFeatures
            ) { reader throws(AdapterError) in
                var entries = try matrix.entries(reader.reader(of: file))
                for index in entries.indices { entries[index].value *= scale }
                return entries
            }
        }
        for index in scaled.kroneckers.indices {
            scaled.kroneckers[index].left = kroneckers[index].left.reading(file: file)
            scaled.kroneckers[index].right = kroneckers[index].right.reading(file: file)
            scaled.kroneckers[index].scale *= scale
        }
        for index in scaled.circulants.indices {
            scaled.circulants[index].kernels =
                circulants[index].kernels.reading(file: file).scaled(by: scale)
        }
        scaled.biases = biases.map { bias in
            guard case .added(let vector, let own) = bias else { return bias }
            return .added(vector.reading(file: file), scale: own * scale)
        }
        return scaled
    }
}
