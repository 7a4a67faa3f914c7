import Foundation
import LorryTensor

/// Turns an adapter's folder, of peft or of AdapterHub's library, into an adapter program.
public enum AdapterCompiler {
    /// Reads, checks and lays out an adapter for a base model.
    ///
    /// - Parameters:
    ///   - format: how factors are held; nil: the format that goes with the base's.
    ///   - checksums: of the files when `inspect` checked them; the files must still be those. Nil
    ///     where nobody checked them: then the numbers themselves are not checked either.
    ///   - task: of an adapter that knows several; see `AdapterTraits.taskCount`.
    ///   - cache: shared with other compilations for this base model.
    /// - Throws: `AdapterError` naming the file, field or tensor at fault.
    public static func compile(
        directory: URL, model: DecoderModel, format: OperandFormat? = nil,
        checksums: AdapterChecksums? = nil, task: Int = 0, cache: CompilationCache? = nil
    ) throws(AdapterError) -> AdapterProgram {
        let files = try AdapterFiles(directory: directory)
        if case .success(let weights) = files.weights { weights.populate() }
        if let checksums { try files.check(checksums) }
        let plan = try plan(
            files, model.configuration, format ?? model.format.operandFormat, cache)
        let program = try plan.program(
            reading: [try files.weights.get().bytes], model: model, task: task,
            spares: cache?.spares)
        if checksums != nil { try files.checkUnchanged() }
        return program
    }

    /// Starts to read an adapter's files into the system's cache, without waiting for them.
    public static func readAhead(directory: URL) {
        for name in AdapterFiles.weightsNames + [AdapterFiles.configurationName] {
            MappedFile.readAhead(path: directory.appending(path: name).path)
        }
    }

    /// Checks everything that `compile` would, and the numbers themselves, without keeping them.
    ///
    /// - Throws: `AdapterError` naming the file, field or tensor at fault.
    public static func inspect(
        directory: URL, configuration: ModelConfiguration, format: OperandFormat
    ) throws(AdapterError) -> AdapterDescription {
        try checkedPlan(AdapterFiles(directory: directory), configuration, format).description
    }

    /// The same, and makes the operands that are computed, one after the other, so that numbers
    /// that do not do are found: indices outside of a matrix, a matrix without inverse.
    public static func inspect(
        directory: URL, model: DecoderModel, format: OperandFormat
    ) throws(AdapterError) -> AdapterDescription {
        let files = try AdapterFiles(directory: directory)
        let plan = try checkedPlan(files, model.configuration, format)
        try plan.checkComputations(reading: [try files.weights.get().bytes], model: model)
        return plan.description
    }

    /// The plan, once the numbers themselves have been looked at too.
    private static func checkedPlan(
        _ files: AdapterFiles, _ configuration: ModelConfiguration, _ format: OperandFormat
    ) throws(AdapterError) -> AdapterPlan {
        let source = try AdapterSource(files)
        let plan = try plan(source, configuration, format)
        try source.checkElements()
        return plan
    }

    /// Why the adapter cannot run on a base model, by its configuration and its tensors' names and
    /// shapes alone; nil where it can.
    public static func misfit(
        directory: URL, configuration: ModelConfiguration, format: OperandFormat = .f32,
        cache: CompilationCache? = nil
    ) -> String? {
        do throws(AdapterError) {
            _ = try plan(AdapterFiles(directory: directory), configuration, format, cache)
            return nil
        } catch {
            return error.message
        }
    }

    /// The plan that the cache has for such files, or a new one.
    private static func plan(
        _ files: AdapterFiles, _ configuration: ModelConfiguration, _ format: OperandFormat,
        _ cache: CompilationCache?
    ) throws(AdapterError) -> AdapterPlan {
        guard let cache, case .success(let weights) = files.weights else {
            return try plan(AdapterSource(files), configuration, format)
        }
        let key = CompilationCache.Key(
            configuration: Array(files.configuration.bytes),
            header: Array(try files.weightsHeader()),
            fileByteCount: weights.bytes.count, format: format)
        if let plan = cache.plan(key) { return plan }
        let plan = try plan(AdapterSource(files), configuration, format)
        cache.keep(plan, key)
        return plan
    }

    private static func plan(
        _ source: AdapterSource, _ configuration: ModelConfiguration, _ format: OperandFormat
    ) throws(AdapterError) -> AdapterPlan {
        let (builder, method) = try operations(of: source, configuration)
        guard builder.largestComputation <= maximumComputedCount else {
            throw AdapterError(
                .unsupported,
                "\(source.weightsName): \(builder.largestComputation) numbers would be in "
                    + "memory at once to load it, at most \(maximumComputedCount) may be")
        }
        guard builder.virtualTokenCount < configuration.maximumPositions else {
            throw AdapterError(
                .invalid,
                "\(source.weightsName): has \(builder.virtualTokenCount) virtual tokens, the "
                    + "base's context has \(configuration.maximumPositions) positions")
        }
        return builder.plan(method: method, format: format)
    }

    /// Numbers that a load may compute at once: 2 GiB of them, the size of a large layer's factors
    /// of full rank.
    private static let maximumComputedCount = 1 << 29

    /// What an adapter does, with its method's common name.
    static func operations(
        of source: AdapterSource, _ configuration: ModelConfiguration
    ) throws(AdapterError) -> (AdapterProgramBuilder, method: String) {
        if BottleneckMethod.isConfiguration(source.configuration) {
            var builder = AdapterProgramBuilder(configuration: configuration)
            let name = try BottleneckMethod().compile(source, into: &builder)
            return (builder, name)
        }
        guard let type = source.configuration["peft_type"]?.stringValue else {
            throw source.bad("peft_type", "is missing")
        }
        guard let method = PEFTMethods.served.first(where: { $0.peftTypes.contains(type) }) else {
            throw source.unsupported("peft_type", PEFTMethods.refusal(of: type))
        }
        var builder = AdapterProgramBuilder(configuration: configuration)
        let name = try method.compile(source, into: &builder)
        return (builder, name)
    }
}
