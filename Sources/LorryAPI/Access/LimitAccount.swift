import Foundation
import HTTPTypes
import LorryRegistry

/// Whose limits: both levels hold.
enum LimitScope: Hashable, Sendable, CustomStringConvertible {
    /// By the key's id.
    case key(String)
    case tenant(String)

    var description: String {
        switch self {
        case .key(let id): "API key '\(id)'"
        case .tenant(let name): "tenant '\(name)'"
        }
    }
}

/// What a key or a tenant has taken of its limits.
struct LimitAccount: Sendable {
    private(set) var limits = TenantLimits()
    private(set) var requests: TokenBucket?
    private(set) var tokens: TokenBucket?
    private var sequenceCount = 0
    private var day: TokenQuota
    private var month: TokenQuota

    init(on day: UTCDay) {
        self.day = TokenQuota(.day, on: day)
        month = TokenQuota(.month, on: day)
    }

    mutating func restore(tokensToday: Int, tokensThisMonth: Int, on day: UTCDay) {
        self.day = TokenQuota(.day, used: tokensToday, on: day)
        month = TokenQuota(.month, used: tokensThisMonth, on: day)
    }

    /// Takes limits over, which may have changed since, and brings the account up to the present.
    mutating func apply(_ limits: TenantLimits, _ moment: Moment, _ today: UTCDay) {
        self.limits = limits
        Self.fit(&requests, to: limits.shared.requestsPerMinute, moment.instant)
        Self.fit(&tokens, to: limits.shared.tokensPerMinute, moment.instant)
        advance(moment)
    }

    private static func fit(
        _ bucket: inout TokenBucket?, to limit: Int?, _ now: ContinuousClock.Instant
    ) {
        guard let limit else {
            bucket = nil
            return
        }
        if bucket == nil { bucket = TokenBucket(capacity: limit, at: now) }
        if bucket?.capacity != limit { bucket?.resize(to: limit, at: now) }
    }

    mutating func advance(_ moment: Moment) {
        requests?.refill(at: moment.instant)
        tokens?.refill(at: moment.instant)
        let today = UTCDay(moment.date)
        day.advance(to: today)
        month.advance(to: today)
    }

    /// What one request may ask for at most.
    var largestTokenCount: Int? {
        [tokens?.capacity, limits.tokensPerDay, limits.tokensPerMonth].compactMap { $0 }.min()
    }

    /// Nil where a request of so many tokens can be admitted at some time.
    func impossible(_ tokenCount: Int, _ scope: LimitScope) -> APIError? {
        let bounds = [
            (tokens?.capacity, "tokens_per_minute"), (limits.tokensPerDay, "tokens_per_day"),
            (limits.tokensPerMonth, "tokens_per_month"),
        ]
        for case (let limit?, let name) in bounds where tokenCount > limit {
            return APIError(
                .badRequest,
                "The request asks for \(tokenCount) tokens of prompt and answer; the limit "
                    + "\(name) of \(scope) is \(limit).", parameter: "max_tokens")
        }
        return nil
    }

    /// The limits that have no room for so much now.
    func refusals(
        _ sequences: Int, _ requestCount: Int, _ tokenCount: Int, _ scope: LimitScope,
        _ moment: Moment
    ) -> [LimitRefusal] {
        var refusals: [LimitRefusal] = []
        func refuse(_ name: String, _ limit: Int, _ wait: Duration) {
            refusals.append(LimitRefusal(scope: scope, name: name, limit: limit, wait: wait))
        }
        if let limit = limits.shared.maximumConcurrentSequences, sequences > 0,
            sequenceCount + sequences > limit
        {
            // Nobody knows when one of them ends.
            refuse("max_concurrent", limit, .seconds(1))
        }
        if let requests, requests.wait(for: requestCount) > .zero {
            refuse("requests_per_minute", requests.capacity, requests.wait(for: requestCount))
        }
        if let tokens, tokens.wait(for: tokenCount) > .zero {
            refuse("tokens_per_minute", tokens.capacity, tokens.wait(for: tokenCount))
        }
        let quotas = [
            ("tokens_per_day", limits.tokensPerDay, day),
            ("tokens_per_month", limits.tokensPerMonth, month),
        ]
        for case (let name, let limit?, let quota) in quotas
        where quota.used + tokenCount > limit || quota.used >= limit {
            let wait = quota.end.start.timeIntervalSince(moment.date)
            refuse(name, limit, .seconds(max(0, wait)))
        }
        return refusals
    }

    mutating func take(requests count: Int, sequences: Int, tokens tokenCount: Int) {
        requests?.take(count)
        tokens?.take(tokenCount)
        day.take(tokenCount)
        month.take(tokenCount)
        sequenceCount += sequences
    }

    /// - Parameter takenOn: when the tokens that are given back were taken.
    mutating func settle(from old: Int, to new: Int, day takenOn: UTCDay) {
        if new > old {
            take(requests: 0, sequences: 0, tokens: new - old)
        } else {
            tokens?.giveBack(old - new)
            day.giveBack(old - new, from: takenOn)
            month.giveBack(old - new, from: takenOn)
        }
    }

    mutating func release(_ sequences: Int, requests count: Int) {
        sequenceCount -= sequences
        requests?.giveBack(count)
    }
}

/// A limit that has no room, and how long that lasts.
struct LimitRefusal: Sendable {
    let scope: LimitScope
    let name: String
    let limit: Int
    let wait: Duration

    func error(_ headers: HTTPFields) -> APIError {
        let seconds = max(1, Int((wait / .seconds(1)).rounded(.up)))
        var headers = headers
        headers[.retryAfter] = "\(seconds)"
        return APIError(
            .tooManyRequests,
            "The limit \(name) of \(scope) is \(limit), and is reached; try again in \(seconds) s.",
            headers: headers)
    }
}

extension APIError {
    static func tooManySequences(_ count: Int, _ limit: Int, _ scope: LimitScope) -> APIError {
        APIError(
            .badRequest,
            "The request asks for \(count) sequences; the limit max_concurrent of \(scope) is "
                + "\(limit).")
    }
}

/// OpenAI's response headers about limits: of the key's and the tenant's the one with less left.
package enum RateLimitHeaders {
    static func fields(requests: [TokenBucket], tokens: [TokenBucket]) -> HTTPFields {
        var fields = HTTPFields()
        for (kind, buckets) in [("requests", requests), ("tokens", tokens)] {
            guard let bucket = buckets.min(by: { $0.remaining < $1.remaining }) else { continue }
            let values = [
                ("limit", "\(bucket.capacity)"), ("remaining", "\(bucket.remaining)"),
                ("reset", text(bucket.reset)),
            ]
            for (what, value) in values {
                if let name = HTTPField.Name("x-ratelimit-\(what)-\(kind)") { fields[name] = value }
            }
        }
        return fields
    }

    /// As OpenAI writes it: `6m0s`, `1.5s`, `20ms`.
    package static func text(_ duration: Duration) -> String {
        let milliseconds = Int((duration / .milliseconds(1)).rounded(.up))
        guard milliseconds >= 1000 else { return "\(milliseconds)ms" }
        let (minutes, rest) = (milliseconds / 60000, milliseconds % 60000)
        let seconds =
            rest.isMultiple(of: 1000) ? "\(rest / 1000)" : "\(Double(rest) / 1000)"
        return minutes == 0 ? "\(seconds)s" : "\(minutes)m\(seconds)s"
    }
}
