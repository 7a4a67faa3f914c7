import Foundation
import HTTPTypes
import LorryRegistry
import Synchronization

/// The time by both clocks: buckets refill by one, days and months end by the other.
public struct Moment: Sendable {
    public var instant: ContinuousClock.Instant
    public var date: Date

    public init(instant: ContinuousClock.Instant, date: Date) {
        self.instant = instant
        self.date = date
    }

    public static var now: Moment { Moment(instant: .now, date: .now) }
}

/// Holds generation requests to the limits of their key and of their tenant.
public final class AdmissionLimits: Sendable {
    let clock: @Sendable () -> Moment
    /// Guards the accounts; held for sums only.
    private let accounts = Mutex<[LimitScope: LimitAccount]>([:])

    public init(clock: @escaping @Sendable () -> Moment = { .now }) { self.clock = clock }

    /// Tells what a tenant has used in the present day and month before this start.
    public func restore(tenant: String, tokensToday: Int, tokensThisMonth: Int) {
        let day = UTCDay(clock().date)
        accounts.withLock {
            $0[.tenant(tenant), default: LimitAccount(on: day)].restore(
                tokensToday: tokensToday, tokensThisMonth: tokensThisMonth, on: day)
        }
    }

    /// Takes one request, its sequences, and the tokens that its prompts are likely to have.
    ///
    /// - Parameter tokenCount: an estimate, which `AdmissionShare.expect` corrects.
    /// - Throws: `APIError` 400 where so many sequences may never be, 429 where a limit has no room.
    func admit(
        sequenceCount: Int, tokenCount: Int, for principal: Principal
    ) throws(APIError) -> AdmissionShare {
        let moment = clock()
        let day = UTCDay(moment.date)
        let limits = Self.limits(of: principal)
        let result = accounts.withLock { accounts -> Result<Int, APIError> in
            var refusals: [LimitRefusal] = []
            // An estimate alone makes no request impossible.
            var wanted = tokenCount
            for (scope, _) in limits {
                accounts[scope, default: LimitAccount(on: day)].apply(
                    limits[scope] ?? TenantLimits(), moment, day)
                wanted = min(wanted, accounts[scope]?.largestTokenCount ?? wanted)
            }
            for scope in limits.keys {
                guard let account = accounts[scope] else { continue }
                if let limit = account.limits.shared.maximumConcurrentSequences,
                    sequenceCount > limit
                {
                    return .failure(.tooManySequences(sequenceCount, limit, scope))
                }
                refusals += account.refusals(sequenceCount, 1, wanted, scope, moment)
            }
            if let worst = refusals.max(by: { $0.wait < $1.wait }) {
                return .failure(worst.error(Self.headers(of: limits.keys, in: accounts)))
            }
            for scope in limits.keys {
                accounts[scope]?.take(requests: 1, sequences: sequenceCount, tokens: wanted)
            }
            return .success(wanted)
        }
        return AdmissionShare(
            self, scopes: Array(limits.keys), sequenceCount: sequenceCount,
            tokenCount: try result.get(), day: day)
    }

    private static func limits(of principal: Principal) -> [LimitScope: TenantLimits] {
        var key = TenantLimits()
        key.shared = principal.limits
        return [
            .key(principal.keyID): key, .tenant(principal.tenant): principal.tenantLimits,
        ]
    }

    /// Takes or gives back tokens, so that `old` becomes `new`.
    ///
    /// - Throws: `APIError` 400 where so many may never be, 429 where there is no room for them now.
    fileprivate func correct(
        from old: Int, to new: Int, _ scopes: [LimitScope], day: UTCDay
    ) throws(APIError) {
        let moment = clock()
        let result = accounts.withLock { accounts -> Result<Void, APIError> in
            var refusals: [LimitRefusal] = []
            for scope in scopes {
                accounts[scope]?.advance(moment)
                guard let account = accounts[scope] else { continue }
                if let refusal = account.impossible(new, scope) { return .failure(refusal) }
                if new > old { refusals += account.refusals(0, 0, new - old, scope, moment) }
            }
            if let worst = refusals.max(by: { $0.wait < $1.wait }) {
                return .failure(worst.error(Self.headers(of: scopes, in: accounts)))
            }
            for scope in scopes { accounts[scope]?.settle(from: old, to: new, day: day) }
            return .success(())
        }
        try result.get()
    }

    /// Books tokens whether there is room or not.
    fileprivate func settle(from old: Int, to new: Int, _ scopes: [LimitScope], day: UTCDay) {
        guard old != new else { return }
        let moment = clock()
        accounts.withLock { accounts in
            for scope in scopes {
                accounts[scope]?.advance(moment)
                accounts[scope]?.settle(from: old, to: new, day: day)
            }
        }
    }

    fileprivate func release(sequences: Int, requests: Int, _ scopes: [LimitScope]) {
        accounts.withLock { accounts in
            for scope in scopes { accounts[scope]?.release(sequences, requests: requests) }
        }
    }

    fileprivate func headers(of scopes: [LimitScope]) -> HTTPFields {
        let moment = clock()
        return accounts.withLock { accounts in
            for scope in scopes { accounts[scope]?.advance(moment) }
            return Self.headers(of: scopes, in: accounts)
        }
    }

    private static func headers(
        of scopes: some Sequence<LimitScope>, in accounts: [LimitScope: LimitAccount]
    ) -> HTTPFields {
        let accounts = scopes.compactMap { accounts[$0] }
        return RateLimitHeaders.fields(
            requests: accounts.compactMap(\.requests), tokens: accounts.compactMap(\.tokens))
    }
}

/// What one generation request has taken of its limits. What it did not use goes back when it ends
/// or is dropped.
final class AdmissionShare: Sendable {
    private struct Taken {
        var sequenceCount: Int
        var tokenCount: Int
        var usedCount = 0
    }

    private let limits: AdmissionLimits
    private let scopes: [LimitScope]
    private let day: UTCDay
    private let taken: Mutex<Taken>

    fileprivate init(
        _ limits: AdmissionLimits, scopes: [LimitScope], sequenceCount: Int, tokenCount: Int,
        day: UTCDay
    ) {
        self.limits = limits
        self.scopes = scopes
        self.day = day
        taken = Mutex(Taken(sequenceCount: sequenceCount, tokenCount: tokenCount))
    }

    deinit {
        let rest = taken.withLock { $0 }
        limits.settle(from: rest.tokenCount, to: rest.usedCount, scopes, day: day)
        limits.release(sequences: rest.sequenceCount, requests: 0, scopes)
    }

    /// Puts what the request asks for in the estimate's place.
    ///
    /// - Throws: `APIError` 400 naming the limit that it can never pass, 429 where there is no room.
    func expect(tokenCount: Int) throws(APIError) {
        let old = taken.withLock { $0.tokenCount }
        do throws(APIError) {
            try limits.correct(from: old, to: tokenCount, scopes, day: day)
        } catch {
            if error.status == .tooManyRequests { cancel() }
            throw error
        }
        taken.withLock { $0.tokenCount = tokenCount }
    }

    /// Adds to what has been used; more than was taken is booked at once. A negative count takes
    /// back what turned out not to be used.
    func use(_ tokenCount: Int) {
        let (old, new) = taken.withLock { taken in
            let old = taken.tokenCount
            taken.usedCount += tokenCount
            taken.tokenCount = max(old, taken.usedCount)
            return (old, taken.tokenCount)
        }
        limits.settle(from: old, to: new, scopes, day: day)
    }

    /// Gives back what was not used, at once rather than when it is dropped.
    func finish() {
        let (old, new) = taken.withLock { taken in
            defer { taken.tokenCount = taken.usedCount }
            return (taken.tokenCount, taken.usedCount)
        }
        limits.settle(from: old, to: new, scopes, day: day)
    }

    /// Gives everything back, the request as well: the server has no room for it.
    func cancel() {
        let count = taken.withLock { taken in
            taken.usedCount = 0
            defer { taken.sequenceCount = 0 }
            return taken.sequenceCount
        }
        finish()
        if count > 0 { limits.release(sequences: count, requests: 1, scopes) }
    }

    /// `x-ratelimit-…`; none where neither the key nor its tenant has such limits.
    var headers: HTTPFields { limits.headers(of: scopes) }
}
