import Foundation
import Logging
import LorryConfiguration

/// Writes log lines to standard error, for people or as JSON.
struct LineLogHandler: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level
    private let label: String
    private let format: ServeConfiguration.LogFormat
    private let usesColor: Bool
    var metadataProvider: Logger.MetadataProvider?
    private static let timeFormat = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

    init(label: String, format: ServeConfiguration.LogFormat, level: Logger.Level) {
        self.label = label
        self.format = format
        logLevel = level
        usesColor = isatty(STDERR_FILENO) == 1
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var fields = metadata.merging(metadataProvider?.get() ?? [:]) { $1 }
        fields.merge(event.metadata ?? [:]) { $1 }
        if let error = event.error { fields["error"] = "\(error)" }
        let time = Self.timeFormat.format(Date.now)
        let line =
            switch format {
            case .text: text(event, time, fields)
            case .json: json(event, time, fields)
            }
        FileHandle.standardError.write(Data((line + "\n").utf8))
    }

    private func text(_ event: LogEvent, _ time: String, _ fields: Logger.Metadata) -> String {
        let level = event.level.rawValue.uppercased().padding(
            toLength: 8, withPad: " ", startingAt: 0)
        let pairs = fields.sorted { $0.key < $1.key }.map { " \($0.key)=\(quoted("\($0.value)"))" }
        let shown = usesColor ? "\(color(event.level))\(level)\u{1B}[0m" : level
        return "\(time) \(shown) \(event.message)\(pairs.joined())"
    }

    private func color(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "\u{1B}[2m"
        case .info, .notice: "\u{1B}[32m"
        case .warning: "\u{1B}[33m"
        case .error, .critical: "\u{1B}[31m"
        }
    }

    /// Values with spaces or quotes stay one word for whoever splits the line.
    private func quoted(_ value: String) -> String {
        let isPlain =
            !value.isEmpty && value.allSatisfy { !$0.isWhitespace && $0 != "\"" && $0 != "=" }
        return isPlain ? value : String(reflecting: value)
    }

    private func json(_ event: LogEvent, _ time: String, _ fields: Logger.Metadata) -> String {
        // Fields of their own object cannot hide the line's own.
        var object: [String: Any] = [:]
        if !fields.isEmpty { object["fields"] = fields.mapValues { plain($0) } }
        object["time"] = time
        object["level"] = event.level.rawValue
        object["logger"] = label
        object["message"] = event.message.description
        let data = try? JSONSerialization.data(
            withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
        return String(decoding: data ?? Data(), as: UTF8.self)
    }

    private func plain(_ value: Logger.MetadataValue) -> Any {
        switch value {
        case .string(let text): text
        case .stringConvertible(let value): value.description
        case .array(let values): values.map { plain($0) }
        case .dictionary(let values): values.mapValues { plain($0) }
        }
    }
}
