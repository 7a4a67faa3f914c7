import Foundation
import Yams

/// A YAML file whose top level maps the names of settings to a value, or to a list of them.
public struct ConfigurationFile: Sendable, Equatable {
    /// For messages.
    let name: String
    let values: [ServeSetting: [String]]

    /// Reads the file at `path`.
    public init(path: String) throws(ConfigurationError) {
        let text: String
        do {
            text = try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw ConfigurationError("cannot read --config '\(path)' as UTF-8 text")
        }
        try self.init(yaml: text, name: path)
    }

    /// - Throws: `ConfigurationError` naming an unknown key, a key without a value, or the place
    ///   where the text is not YAML.
    public init(yaml: String, name: String) throws(ConfigurationError) {
        self.name = name
        let root: Node?
        do {
            root = try Yams.compose(yaml: yaml)
        } catch {
            throw ConfigurationError("\(name): not valid YAML: \(error)")
        }
        guard let root, root.null == nil else {
            values = [:]
            return
        }
        guard case .mapping(let mapping) = root else {
            throw ConfigurationError("\(name): the top level must map settings to values")
        }
        var values: [ServeSetting: [String]] = [:]
        for (keyNode, value) in mapping {
            let key = keyNode.scalar?.string ?? "?"
            guard let setting = ServeSetting(rawValue: key) else {
                throw ConfigurationError("\(name): unknown key '\(key)'\(suggestion(for: key))")
            }
            values[setting] = try Self.texts(value, key: key, name: name)
        }
        self.values = values
    }

    private static func texts(
        _ node: Node, key: String, name: String
    ) throws(ConfigurationError) -> [String] {
        switch node {
        case .scalar(let scalar) where node.null == nil:
            return [scalar.string]
        case .sequence(let sequence):
            var texts: [String] = []
            for element in sequence {
                guard let text = element.scalar?.string, element.null == nil else {
                    throw ConfigurationError("\(name): \(key): a list holds plain values only")
                }
                texts.append(text)
            }
            return texts
        default:
            throw ConfigurationError("\(name): \(key): needs a value or a list of values")
        }
    }
}

/// `; did you mean '…'?` when a setting's name is at most two edits away.
func suggestion(for name: String) -> String {
    let near = ServeSetting.allCases.map { ($0.rawValue, editDistance($0.rawValue, name)) }
        .min { $0.1 < $1.1 }
    guard let near, near.1 <= 2 else { return "" }
    return "; did you mean '\(near.0)'?"
}

/// Levenshtein's distance.
/// - Complexity: O(n · m).
private func editDistance(_ left: String, _ right: String) -> Int {
    let right = Array(right)
    var row = Array(0...right.count)
    for (leftIndex, leftCharacter) in left.enumerated() {
        var diagonal = row[0]
        row[0] = leftIndex + 1
        for (index, rightCharacter) in right.enumerated() {
            let substituted = diagonal + (leftCharacter == rightCharacter ? 0 : 1)
            diagonal = row[index + 1]
            row[index + 1] = min(substituted, diagonal + 1, row[index] + 1)
        }
    }
    return row[right.count]
}
