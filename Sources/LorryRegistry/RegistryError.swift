import Foundation
import LorryModel

/// Why the registry refused or failed; the message names the file, adapter or folder concerned.
public struct RegistryError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Kind: String, Sendable, CaseIterable {
        /// The content, a name or an argument breaks a rule.
        case invalid
        /// Well formed, but of a kind that Lorry does not serve.
        case unsupported
        /// Over a limit on size, count or expansion.
        case tooLarge
        /// More than the tenant may keep.
        case overAllowance
        case notFound
        /// The adapter exists but an operator has switched it off.
        case disabled
        /// The stored files no longer are what was acknowledged.
        case damaged
        /// The request contradicts the present state, such as rolling back a first version.
        case conflict
        /// An `If-Match` or `If-None-Match` does not hold.
        case preconditionFailed
        /// The disk or the database failed.
        case storage
        /// The disk, the owner's quota or the limit on a file's size is used up.
        case full
        /// Too much under way, or the state directory belongs to another process.
        case busy
    }

    public let kind: Kind
    public let message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { message }

    static func misfit(_ name: String, _ problem: String) -> RegistryError {
        RegistryError(
            .unsupported,
            "the adapter \(quoted(name)) does not fit the base model that is served: \(problem)")
    }

    /// Passes a registry error through and takes anything else for a failure of storage.
    static func wrapping(_ error: any Error) -> RegistryError {
        if let known = error as? RegistryError { return known }
        return RegistryError(.storage, String(describing: error))
    }
}

/// A name from outside, to show; see `shown`.
func quoted(_ name: String) -> String { "'\(shown(name))'" }
