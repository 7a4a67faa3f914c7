import Crypto
import Foundation
import HTTPTypes
import LorryModel
import LorryRegistry
import LorryText
import Synchronization

/// The tokenizer and chat template that a model speaks through.
public struct TextCodec: Sendable {
    public let tokenizer: Tokenizer
    /// Nil where the model has no chat template.
    public let template: ChatTemplate?

    public init(tokenizer: Tokenizer, template: ChatTemplate? = nil) {
        self.tokenizer = tokenizer
        self.template = template ?? tokenizer.chatTemplate
    }
}

/// The tokenizer and the chat template that an adapter's folder may have.
public enum AdapterTexts {
    /// - Throws: `RegistryError` of kind `invalid` naming the file that could not be used.
    public static func check(_ directory: URL) throws(RegistryError) {
        let tokenizer = directory.appendingPathComponent("tokenizer.json")
        do {
            _ = try template(in: directory)
            if FileManager.default.fileExists(atPath: tokenizer.path) {
                _ = try Tokenizer(directory: directory)
            }
        } catch let error as RegistryError {
            throw error
        } catch {
            throw RegistryError(.invalid, shown("\(error)", maximumCount: 1000))
        }
    }

    /// Of chat_template.jinja, or else of the tokenizer's configuration.
    fileprivate static func template(in directory: URL) throws(RegistryError) -> ChatTemplate? {
        func read<Value>(_ name: String, _ body: (Data) throws -> Value?) throws(RegistryError)
            -> Value?
        {
            let path = directory.appendingPathComponent(name)
            guard let data = try? Data(contentsOf: path) else { return nil }
            do { return try body(data) } catch {
                throw RegistryError(.invalid, "\(name): \(shown("\(error)", maximumCount: 1000))")
            }
        }
        if let template = try read(
            "chat_template.jinja",
            { data in
                guard let source = String(validating: data, as: UTF8.self) else {
                    throw RegistryError(.invalid, "is not valid UTF-8")
                }
                return try ChatTemplate(source: source)
            })
        {
            return template
        }
        return try read("tokenizer_config.json") { data in
            let source = try StrictJSON(parsing: data).objectValue?["chat_template"]?.stringValue
            return try source.map { try ChatTemplate(source: $0) }
        }
    }
}

/// Tokenizers and templates that adapters bring along, kept for the versions used last.
final class AdapterTextCache: Sendable {
    private struct Entry {
        let codec: TextCodec
        var lastUse: UInt64
    }
    private struct State {
        var entries: [String: Entry] = [:]
        var clock: UInt64 = 0
    }

    /// A tokenizer may take tens of megabytes.
    private let capacity: Int
    private let base: TextCodec
    /// SHA-256 of the base model's tokenizer.json: an adapter often carries an unchanged copy.
    private let baseDigest: Data?
    private let state = Mutex(State())

    init(base: TextCodec, baseTokenizerFile: URL?, capacity: Int = 8) {
        self.base = base
        self.capacity = capacity
        baseDigest = baseTokenizerFile.flatMap { try? Self.digest(of: $0) }
    }

    /// What the adapter version with these files speaks through; the base model's where it brings
    /// nothing of its own.
    ///
    /// - Parameter problem: what is wrong with the files; asked before they are read.
    /// - Throws: `APIError` 500 naming the file where one cannot be read.
    func codec(
        version: String, directory: URL, problem: () -> String? = { nil }
    ) throws(APIError) -> TextCodec {
        let cached = state.withLock { state in
            state.clock += 1
            state.entries[version]?.lastUse = state.clock
            return state.entries[version]?.codec
        }
        if let cached { return cached }
        if let problem = problem() {
            throw APIError(.internalServerError, "The adapter is damaged: \(problem)")
        }
        let codec: TextCodec
        do {
            codec = try load(directory)
        } catch {
            throw APIError(
                .internalServerError, "The adapter's tokenizer or template cannot be used: \(error)"
            )
        }
        state.withLock { state in
            if state.entries.count >= capacity,
                let oldest = state.entries.min(by: { $0.value.lastUse < $1.value.lastUse })
            {
                state.entries[oldest.key] = nil
            }
            state.entries[version] = Entry(codec: codec, lastUse: state.clock)
        }
        return codec
    }

    var count: Int { state.withLock { $0.entries.count } }

    private func load(_ directory: URL) throws -> TextCodec {
        let file = directory.appendingPathComponent("tokenizer.json")
        var tokenizer = base.tokenizer
        var template = base.template
        if FileManager.default.fileExists(atPath: file.path),
            try Self.digest(of: file) != baseDigest
        {
            tokenizer = try Tokenizer(directory: directory)
            template = tokenizer.chatTemplate ?? template
        }
        template = try AdapterTexts.template(in: directory) ?? template
        return TextCodec(tokenizer: tokenizer, template: template)
    }

    private static func digest(of file: URL) throws -> Data {
        Data(SHA256.hash(data: try Data(contentsOf: file)))
    }
}
