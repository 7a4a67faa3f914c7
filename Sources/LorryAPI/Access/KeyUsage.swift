import HTTPTypes
import Synchronization

/// Counts the sequences that each limited tenant has waiting or running.
final class KeyUsage: Sendable {
    private let counts = Mutex<[String: Int]>([:])

    /// Gives its sequences back when it goes.
    final class Share: Sendable {
        private let usage: KeyUsage
        private let tenant: String
        private let count: Int

        fileprivate init(usage: KeyUsage, tenant: String, count: Int) {
            self.usage = usage
            self.tenant = tenant
            self.count = count
        }

        deinit { usage.release(count, of: tenant) }
    }

    /// Nil where the principal has no limit.
    /// - Throws: `APIError` 400 where `count` alone passes the limit, 429 where `count` more would pass the limit.
    func take(_ count: Int, for principal: Principal) throws(APIError) -> Share? {
        guard let limit = principal.limits.maximumConcurrentSequences else { return nil }
        guard count <= limit else {
            throw APIError(
                .badRequest,
                "The request asks for \(count) sequences; tenant '\(principal.tenant)' may have "
                    + "\(limit) at one time.")
        }
        let taken = counts.withLock { counts in
            let running = counts[principal.tenant, default: 0]
            guard running + count <= limit else { return false }
            counts[principal.tenant] = running + count
            return true
        }
        guard taken else {
            throw APIError(
                .tooManyRequests,
                "Tenant '\(principal.tenant)' may have \(limit) sequences at one time.",
                headers: [.retryAfter: "1"])
        }
        return Share(usage: self, tenant: principal.tenant, count: count)
    }

    private func release(_ count: Int, of tenant: String) {
        counts.withLock { counts in
            let left = counts[tenant, default: 0] - count
            counts[tenant] = left > 0 ? left : nil
        }
    }
}
