import Foundation
import LorryTensor

/// Turns a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`) into an adapter program.
public enum AdapterCompiler {
    /// The PEFT methods that are served.
    static let methods: [any PEFTMethod] = [LoRAMethod()]

    /// Reads, checks and lays out an adapter for a base model.
    ///
    /// - Parameter format: how factors are held; nil: the format that goes with the base's.
    /// - Throws: `AdapterError` naming the file, field or tensor at fault.
    public static func compile(
        directory: URL, model: DecoderModel, format: OperandFormat? = nil
    ) throws(AdapterError) -> AdapterProgram {
        let (method, builder) = try read(directory, model.configuration)
        return builder.build(
            method: method, format: format ?? model.format.operandFormat, model: model)
    }

    /// Checks everything that `compile` would, and the numbers themselves, without keeping them.
    ///
    /// - Throws: `AdapterError` naming the file, field or tensor at fault.
    public static func inspect(
        directory: URL, configuration: ModelConfiguration, format: OperandFormat
    ) throws(AdapterError) -> AdapterDescription {
        let (method, builder) = try read(directory, configuration, checkingElements: true)
        return builder.describe(method: method, format: format)
    }

    /// Why the adapter cannot run on a base model, by its configuration and its tensors' names and
    /// shapes alone; nil where it can.
    public static func misfit(directory: URL, configuration: ModelConfiguration) -> String? {
        do throws(AdapterError) {
            _ = try read(directory, configuration)
            return nil
        } catch {
            return error.message
        }
    }

    private static func read(
        _ directory: URL, _ configuration: ModelConfiguration, checkingElements: Bool = false
    ) throws(AdapterError) -> (method: String, builder: AdapterProgramBuilder) {
        let source = try AdapterSource(directory: directory)
        guard let type = source.configuration["peft_type"]?.stringValue else {
            throw source.bad("peft_type", "is missing")
        }
        guard let method = methods.first(where: { $0.peftType == type }) else {
            let served = methods.map(\.peftType).sorted().joined(separator: ", ")
            throw source.unsupported("peft_type", "\(type) is not supported; served are \(served)")
        }
        var builder = AdapterProgramBuilder(configuration: configuration)
        let name = try method.compile(source, into: &builder)
        if checkingElements { try source.checkElements() }
        return (name, builder)
    }
}

/// One PEFT method: how its files become operations of an adapter program.
protocol PEFTMethod: Sendable {
    /// The value of `peft_type` in `adapter_config.json`.
    var peftType: String { get }

    /// Checks the files against the base model and adds their operations to the builder. Every
    /// tensor is used, every target has its tensors, and no option is ignored: else it throws.
    ///
    /// - Returns: the method's common name.
    func compile(_ source: AdapterSource, into builder: inout AdapterProgramBuilder)
        throws(AdapterError) -> String
}
