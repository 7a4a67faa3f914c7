import Foundation
import OrderedCollections

extension Tokenizer {
    /// Reads `tokenizer.json` of a model's folder and, beside it, `tokenizer_config.json`,
    /// `special_tokens_map.json`, `chat_template.jinja` and `additional_chat_templates/*.jinja`.
    /// - Throws: `TokenizerError` naming the file and what is wrong or unsupported in it.
    public convenience init(directory: URL) throws(TokenizerError) {
        guard let json = try Self.contents(directory, "tokenizer.json") else {
            throw TokenizerError(
                kind: .unreadable, message: "\(directory.path): there is no tokenizer.json")
        }
        var sources: [String: String] = [:]
        if let file = try Self.contents(directory, "chat_template.jinja") {
            sources["default"] = String(decoding: file, as: UTF8.self)
        }
        let folder = directory.appendingPathComponent("additional_chat_templates")
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names.sorted() where name.hasSuffix(".jinja") {
            if let file = try Self.contents(folder, name) {
                sources[String(name.dropLast(6))] = String(decoding: file, as: UTF8.self)
            }
        }
        try self.init(
            json: json, configuration: try Self.contents(directory, "tokenizer_config.json"),
            specialTokens: try Self.contents(directory, "special_tokens_map.json"),
            templateFiles: sources)
    }

    /// - Parameters:
    ///   - json: the contents of `tokenizer.json`
    ///   - configuration: the contents of `tokenizer_config.json`
    public convenience init(json: Data, configuration: Data?) throws(TokenizerError) {
        try self.init(
            json: Array(json), configuration: configuration.map { Array($0) }, specialTokens: nil,
            templateFiles: [:])
    }

    private convenience init(
        json: [UInt8], configuration: [UInt8]?, specialTokens: [UInt8]?,
        templateFiles: [String: String]
    ) throws(TokenizerError) {
        let parts = try TokenizerParts(json: json)
        let settings = try TokenizerSettings(
            configuration: try Self.parse(configuration, "tokenizer_config.json") ?? .object([:]),
            specialTokens: try Self.parse(specialTokens, "special_tokens_map.json"))
        // Files take the place of what the configuration holds.
        let sources = settings.templateSources.merging(templateFiles) { $1 }
        var templates: [String: ChatTemplate] = [:]
        for (name, source) in sources { templates[name] = try ChatTemplate(source: source) }
        self.init(
            parts: parts, settings: settings,
            templates: (templates.removeValue(forKey: "default"), templates))
    }

    private static func parse(
        _ bytes: [UInt8]?, _ name: String
    ) throws(TokenizerError) -> JSONValue? {
        guard let bytes else { return nil }
        do {
            return try JSONValue(parsing: bytes)
        } catch {
            throw .invalid("\(name): \(error)")
        }
    }

    /// The contents of a file; nil when there is none.
    private static func contents(
        _ directory: URL, _ name: String
    ) throws(TokenizerError) -> [UInt8]? {
        let file = directory.appendingPathComponent(name)
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        do {
            return Array(try Data(contentsOf: file))
        } catch {
            throw TokenizerError(
                kind: .unreadable, message: "\(file.path) cannot be read: \(error)")
        }
    }
}
