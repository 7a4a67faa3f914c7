import Foundation
import Synchronization

/// The keys in force, which may be replaced while requests run.
public final class KeyRing: Sendable {
    private let keys: Mutex<APIKeys>
    private let now: @Sendable () -> Date

    /// - Parameter now: the time by which keys expire.
    public init(_ keys: APIKeys, now: @escaping @Sendable () -> Date = { .now }) {
        self.keys = Mutex(keys)
        self.now = now
    }

    enum Finding {
        case known(Principal)
        case expired(Principal)
        case unknown
    }

    func find(_ key: String) -> Finding {
        let entry = keys.withLock { $0 }.entry(for: key)
        guard let principal = entry?.principal else { return .unknown }
        return isExpired(principal) ? .expired(principal) : .known(principal)
    }

    /// Whether a key may still do what it was allowed at the start of a long request.
    func isCurrent(_ principal: Principal) -> Bool {
        let entries = keys.withLock { $0.entries }
        guard
            let now = entries.map(\.principal).first(where: {
                $0.keyDigest == principal.keyDigest
            })
        else { return false }
        return now.tenant == principal.tenant && now.roles.isSuperset(of: principal.roles)
            && now.allowedAdapters == principal.allowedAdapters && !isExpired(now)
    }

    /// Takes the place of the keys before. Requests that run already go on.
    @discardableResult
    public func replace(with new: APIKeys) -> KeyChanges {
        keys.withLock { keys in
            defer { keys = new }
            return KeyChanges(from: keys, to: new)
        }
    }

    private func isExpired(_ principal: Principal) -> Bool {
        principal.expires.map { $0 <= now() } ?? false
    }
}
