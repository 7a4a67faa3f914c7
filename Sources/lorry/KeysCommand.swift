import ArgumentParser
import Foundation
import LorryAPI

/// `lorry keys`: makes keys and their entries of the file that `--api-keys` names.
struct KeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Make API keys, and what the keys file says of them.",
        discussion: """
            A server reads its keys file again when it changes, so a key is rotated by adding an \
            entry, moving the clients over, and removing the old one.
            """,
        subcommands: [New.self, Hash.self])

    struct New: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a new random key, once, and its entry of the keys file.")
        @Option(help: "Whose key it is.") var tenant = "default"
        @Option(help: "inference, admin or metrics; may be given several times.")
        var role: [String] = []
        @Option(
            help: "A public name, for the audit log and usage. (default: 8 digits of the digest)")
        var id: String?
        @Option(help: "An adapter that it may use; may be given several times. (default: all)")
        var adapter: [String] = []
        @Option(help: "When it ends, such as 2027-01-31T00:00:00Z.") var expires: String?

        func run() throws {
            let key = APIKeys.randomKey()
            let entry = entry(APIKeys.digest(of: key))
            do throws(APIKeys.FileError) {
                _ = try APIKeys(yaml: entry)
            } catch {
                throw ValidationError(error.description)
            }
            print("# The key. It is shown only here:\n# \(key)\n\(entry)", terminator: "")
        }

        private func entry(_ digest: String) -> String {
            func list(_ texts: [String]) -> String {
                "[\(texts.map(Self.quoted).joined(separator: ", "))]"
            }
            var lines = [
                "- id: \(Self.quoted(id ?? String(digest.prefix(8))))",
                "  key_sha256: \(Self.quoted(digest))", "  tenant: \(Self.quoted(tenant))",
                "  roles: \(list(role.isEmpty ? ["inference"] : role))",
            ]
            if !adapter.isEmpty { lines.append("  adapters: \(list(adapter))") }
            if let expires { lines.append("  expires: \(Self.quoted(expires))") }
            return lines.map { $0 + "\n" }.joined()
        }

        /// As a single-quoted scalar of YAML, in which only the quote itself is doubled.
        private static func quoted(_ text: String) -> String {
            "'\(text.replacing("'", with: "''"))'"
        }
    }

    struct Hash: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read a key from standard input and print its key_sha256.")

        func run() throws {
            guard let key = readLine(strippingNewline: true), key.utf8.count >= 8 else {
                throw ValidationError("A key of at least 8 bytes is expected on standard input.")
            }
            print(APIKeys.digest(of: key))
        }
    }
}
