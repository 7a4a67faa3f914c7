import Foundation
import LorryTensor

/// Everything that can be told of an adapter's folder before it is registered.
public struct AdapterReport: Sendable {
    /// What a token costs: with the adapter's operations alone, or in the base model.
    public struct Cost: Sendable, Equatable {
        /// Products and sums, counted as two.
        public let operationCount: Int
        /// Of weights that are read.
        public let readByteCount: Int
    }

    /// What is wrong, each as `AdapterCompiler.inspect` would say it; empty where the adapter is
    /// good.
    public internal(set) var problems: [String] = []
    /// Nil where there are problems.
    public internal(set) var description: AdapterDescription?
    /// What is changed where: `layers 0-3: q_proj v_proj`, `lm_head`.
    public internal(set) var places: [String] = []
    public internal(set) var cost: Cost?
    public internal(set) var baseCost: Cost?
}

extension AdapterCompiler {
    /// Checks an adapter's folder as `inspect` does, and goes on after what is wrong as long as the
    /// rest can be judged without it.
    public static func report(
        directory: URL, configuration: ModelConfiguration, format: OperandFormat
    ) -> AdapterReport {
        var report = AdapterReport()
        do throws(AdapterError) {
            let files = try AdapterFiles(directory: directory)
            report.problems = AdapterSource.problems(of: files)
            guard report.problems.isEmpty else { return report }
            let source = try AdapterSource(files)
            report.problems = source.elementProblems
            if let builder = examine(source, configuration, &report.problems) {
                guard report.problems.isEmpty else { return report }
                report.describe(builder, format)
            }
        } catch {
            report.problems.append(error.message)
        }
        return report
    }

    /// Compiles again and again, each time without what was found to be wrong.
    private static func examine(
        _ source: AdapterSource, _ configuration: ModelConfiguration, _ problems: inout [String]
    ) -> (AdapterProgramBuilder, method: String)? {
        var source = source
        var removed: Set<String> = []
        for _ in 0..<maximumProblemCount {
            do throws(AdapterError) {
                return try operations(of: source, configuration)
            } catch {
                if !isConsequence(error, of: removed) { problems.append(error.message) }
                guard let subject = error.subject, let rest = source.without(subject),
                    !rest.tensors.isEmpty
                else { return nil }
                removed.formUnion(Set(source.tensors.keys).subtracting(rest.tensors.keys))
                source = rest
            }
        }
        return nil
    }

    /// Nobody reads more of them, and each takes a compilation.
    private static let maximumProblemCount = 500

    /// Whether a module lacks a tensor only because it was taken away.
    private static func isConsequence(_ error: AdapterError, of removed: Set<String>) -> Bool {
        guard case .module(let path) = error.subject else { return false }
        return removed.contains { $0.hasPrefix("\(AdapterTensors.prefix)\(path).") }
    }
}

extension AdapterReport {
    fileprivate mutating func describe(
        _ compiled: (AdapterProgramBuilder, method: String), _ format: OperandFormat
    ) {
        let (builder, method) = compiled
        let description = builder.describe(method: method, format: format)
        self.description = description
        places = Self.places(builder.changedModules, builder.configuration)
        cost = Cost(
            operationCount: builder.operationCount,
            readByteCount: max(
                0, description.byteCount - builder.embeddingByteCount(format)))
        let weightCount = builder.configuration.linearModules.reduce(0) { count, module in
            let (outFeatures, inFeatures) = builder.configuration.dimensions(of: module)
            return count + outFeatures * inFeatures
        }
        baseCost = Cost(
            operationCount: 2 * weightCount,
            readByteCount: weightCount * (format == .f32 ? 4 : 2))
    }

    /// Consecutive layers with the same modules make one line.
    private static func places(
        _ modules: [BaseModule], _ configuration: ModelConfiguration
    ) -> [String] {
        var byLayer: [Int: [BaseModule]] = [:]
        var others: [BaseModule] = []
        for module in modules.sorted(by: { $0.order < $1.order }) {
            if let layer = module.layer {
                byLayer[layer, default: []].append(module)
            } else {
                others.append(module)
            }
        }
        var runs: [(layers: ClosedRange<Int>, names: [String])] = []
        for layer in 0..<configuration.layerCount {
            guard let names = byLayer[layer]?.map(\.name) else { continue }
            if let last = runs.last, last.layers.upperBound == layer - 1, last.names == names {
                runs[runs.count - 1].layers = last.layers.lowerBound...layer
            } else {
                runs.append((layer...layer, names))
            }
        }
        return runs.map { layers, names in
            let text =
                layers.count == 1
                ? "layer \(layers.lowerBound)"
                : "layers \(layers.lowerBound)-\(layers.upperBound)"
            return "\(text): \(names.joined(separator: " "))"
        } + others.map(\.path)
    }
}

extension BaseModule {
    fileprivate var layer: Int? {
        switch self {
        case .linear(let layer, _), .norm(.attention(let layer)), .norm(.feedForward(let layer)):
            layer
        case .head, .embedding, .norm(.final): nil
        }
    }
}

extension AdapterProgramBuilder {
    /// Of tables of which a token reads one row.
    fileprivate func embeddingByteCount(_ format: OperandFormat) -> Int {
        let rows = (tables[.embedding]?.count ?? 0) + (tableRows[.embedding]?.rows.count ?? 0)
        let factors = embeddingLowRanks.reduce(0) { $0 + $1.down.count }
        return rows * (format == .f32 ? 4 : 2) + factors * 4
    }
}

extension AdapterSource {
    /// What keeps each of the files from being read.
    fileprivate static func problems(of files: AdapterFiles) -> [String] {
        var problems: [String] = []
        do throws(StrictJSON.ParseError) {
            let value = try files.parsedConfiguration()
            if value.objectValue == nil {
                problems.append("\(configurationFile): is not a JSON object")
            }
        } catch {
            problems.append("\(configurationFile): \(error)")
        }
        switch files.weights {
        case .failure(let error): problems.append(error.message)
        case .success(let file):
            do throws(SafetensorsError) {
                _ = try AdapterFiles.tensors(of: file)
            } catch {
                problems.append("\(files.weightsName): \(error.reason)")
            }
        }
        return problems
    }

    /// The same files without what an error is about, so that the rest can be judged.
    ///
    /// - Returns: nil where that is nothing that can be taken away.
    fileprivate func without(_ subject: AdapterError.Subject) -> AdapterSource? {
        switch subject {
        case .field(let name):
            // Nothing could be said of tensors without the type or the rank.
            guard configuration[name] != nil, !["peft_type", "r", "rank_pattern"].contains(name)
            else { return nil }
            return replacing([name: nil], removing: [])
        case .tensor(let name):
            guard tensors[name] != nil else { return nil }
            return replacing([:], removing: [name])
        case .module(let path):
            let prefix = "\(AdapterTensors.prefix)\(path)."
            let names = tensors.keys.filter { $0.hasPrefix(prefix) }
            return excluding(path).flatMap { $0.replacing([:], removing: Set(names)) }
        }
    }

    /// The same with a module that is no target.
    private func excluding(_ path: String) -> AdapterSource? {
        let field = "exclude_modules"
        guard let excluded = present(field) else {
            return replacing([field: .array([.string(path)])], removing: [])
        }
        guard let paths = excluded.arrayValue else {
            guard present("target_modules") != nil else { return nil }
            return replacing(["target_modules": nil, field: nil], removing: [])
        }
        guard !paths.contains(.string(path)) else { return nil }
        return replacing([field: .array(paths + [.string(path)])], removing: [])
    }

    private func replacing(
        _ fields: [String: StrictJSON?], removing names: Set<String>
    ) -> AdapterSource? {
        var rest = StrictJSON.Object()
        for (key, value) in configuration.members where fields[key] == nil {
            guard rest.insert(key, value) else { return nil }
        }
        for case (let key, let value?) in fields {
            guard rest.insert(key, value) else { return nil }
        }
        return AdapterSource(
            configuration: rest, tensors: tensors.filter { !names.contains($0.key) },
            weightsName: weightsName)
    }
}
