import Foundation
import HTTPTypes
import Hummingbird
import LorryAPI
import LorryEngine
import LorryModel
import LorryRegistry
import NIOCore
import Synchronization
import Testing

@Suite struct LimitTests {
    /// Two keys of the tenant blue, one of red.
    private func keys(key: String = "", tenant: String = "") throws -> APIKeys {
        try APIKeys(
            yaml: """
                keys:
                  - {key: first-key, id: first, tenant: blue, roles: [inference], limits: {\(key)}}
                  - {key: second-key, id: second, tenant: blue, roles: [inference]}
                  - {key: third-key, id: third, tenant: red, roles: [inference]}
                tenants:
                  blue: {\(tenant)}
                """)
    }

    private func ask(
        _ server: TestServer, _ key: String = "first-key", _ maximum: Int = 4,
        prompt: String = "abcd"
    ) async throws -> TestServer.Answer {
        try await server.post(
            "/v1/completions", #"{"prompt": "\#(prompt)", "max_tokens": \#(maximum)}"#, key: key)
    }

    private func header(_ answer: TestServer.Answer, _ name: String) throws -> String? {
        answer.headers[try #require(HTTPField.Name("x-ratelimit-\(name)"))]
    }

    @Test func requestsPerMinute() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine(saying: "abcd"), keys: keys(key: "requests_per_minute: 2"), clock: clock)
        let first = try await ask(server)
        #expect(first.status == 200)
        #expect(try header(first, "limit-requests") == "2")
        #expect(try header(first, "remaining-requests") == "1")
        #expect(try header(first, "reset-requests") == "30s")
        #expect(try header(first, "limit-tokens") == nil)
        #expect(try await ask(server).status == 200)
        let third = try await ask(server)
        #expect(third.status == 429)
        #expect(third.headers[.retryAfter] == "30")
        #expect(try third.string("error.type") == "RateLimitError")
        #expect(try third.integer("error.code") == 429)
        #expect(try #require(try third.string("error.message")).contains("requests_per_minute"))
        #expect(try header(third, "remaining-requests") == "0")
        // Another key of the tenant has limits of its own.
        #expect(try await ask(server, "second-key").status == 200)
        clock.advance(by: 29)
        #expect(try await ask(server).headers[.retryAfter] == "1")
        clock.advance(by: 1)
        #expect(try await ask(server).status == 200)
        #expect(try await ask(server).status == 429)
    }

    @Test func tokensPerMinuteAreWhatWasUsed() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        // The answer has 4 tokens, whatever is asked for; so has the prompt.
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: TestTokenizer.tokens("abcd"), reason: .length) },
            keys: keys(key: "tokens_per_minute: 60"), clock: clock)
        let first = try await ask(server, "first-key", 40)
        #expect(first.status == 200)
        #expect(try header(first, "limit-tokens") == "60")
        // What was not used is back already.
        #expect(try header(try await ask(server), "remaining-tokens") == "44")
        clock.advance(by: 16)
        // 60 at most, although the clock went on.
        for _ in 0..<6 { #expect(try await ask(server).status == 200) }
        let full = try await ask(server, "first-key", 20)
        #expect(full.status == 429)
        // 12 are left, 24 asked for: 12 more come in 12 seconds.
        #expect(full.headers[.retryAfter] == "12")
        clock.advance(by: 12)
        #expect(try await ask(server, "first-key", 20).status == 200)
    }

    @Test func aRefusalByTokensTakesNoRequest() async throws {
        let server = try TestServer(
            FakeEngine(saying: "abcd"),
            keys: keys(key: "requests_per_minute: 2, tokens_per_minute: 20"),
            clock: try TestClock(at: "2026-11-21T12:00:00Z"))
        #expect(try await ask(server).status == 200)
        for _ in 0..<5 { #expect(try await ask(server, "first-key", 16).status == 429) }
        #expect(try header(try await ask(server), "remaining-requests") == "0")
        #expect(try await ask(server).status == 429)
    }

    @Test func whatCanNeverPassIs400() async throws {
        let server = try TestServer(
            FakeEngine(saying: "x"), keys: keys(key: "tokens_per_minute: 20"))
        let answer = try await ask(server, "first-key", 17)
        #expect(answer.status == 400)
        #expect(answer.headers[.retryAfter] == nil)
        let message = try #require(try answer.string("error.message"))
        #expect(message.contains("21 tokens") && message.contains("tokens_per_minute"))
        #expect(message.contains("API key 'first' is 20"))
        #expect(try await ask(server, "first-key", 16).status == 200)
        let long = try await ask(
            server, "first-key", 1, prompt: String(repeating: "a", count: 30))
        #expect(long.status == 400)
        #expect(server.engine.requests.count == 1)
    }

    @Test func bothLevelsHold() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine(saying: "x"),
            keys: keys(key: "requests_per_minute: 2", tenant: "requests_per_minute: 3"),
            clock: clock)
        #expect(try await ask(server).status == 200)
        #expect(try await ask(server).status == 200)
        #expect(try await ask(server).status == 429)
        let last = try await ask(server, "second-key")
        #expect(last.status == 200)
        #expect(try header(last, "limit-requests") == "3")
        let over = try await ask(server, "second-key")
        #expect(over.status == 429)
        #expect(try #require(try over.string("error.message")).contains("tenant 'blue'"))
        #expect(over.headers[.retryAfter] == "20")
        #expect(try await ask(server, "third-key").status == 200)
    }

    @Test func refusedRequestsTakeNothing() async throws {
        let server = try TestServer(
            FakeEngine(saying: "x"),
            keys: keys(
                key: "requests_per_minute: 2, tokens_per_minute: 30", tenant: "max_tokens: 9")
        )
        // Of two limits, one has no room: neither is touched.
        server.engine.state.withLock { $0.reserveError = .queueFull(retryAfter: .seconds(4)) }
        for _ in 0..<5 {
            let full = try await ask(server)
            #expect(full.status == 429)
            #expect(full.headers[.retryAfter] == "4")
        }
        server.engine.state.withLock { $0.reserveError = nil }
        #expect(try await ask(server, "first-key", 10).status == 400)
        let answer = try await ask(server)
        #expect(answer.status == 200)
        #expect(try header(answer, "remaining-requests") == "0")
    }

    @Test func sequencesOfTheKeyAndOfTheTenant() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], hangs: true) },
            keys: keys(key: "max_concurrent: 2", tenant: "max_concurrent: 3"))
        func start(_ key: String) -> Task<Void, any Error> {
            Task { _ = try await ask(server, key, 9) }
        }
        let first = [start("first-key"), start("first-key")]
        while server.engine.requests.count < 2 { await Task.yield() }
        #expect(try await ask(server).status == 429)
        let second = start("second-key")
        while server.engine.requests.count < 3 { await Task.yield() }
        let over = try await ask(server, "second-key")
        #expect(over.status == 429)
        #expect(over.headers[.retryAfter] == "1")
        for task in first + [second] {
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
        let again = start("first-key")
        while server.engine.requests.count < 4 { await Task.yield() }
        again.cancel()
        await #expect(throws: CancellationError.self) { try await again.value }
    }

    @Test func aCancelledRequestGivesBackWhatItDidNotUse() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let isFirst = Mutex(true)
        let server = try TestServer(
            FakeEngine { _ in
                let hangs = isFirst.withLock { first in
                    defer { first = false }
                    return first
                }
                return .init(tokens: [72, 73], hangs: hangs)
            }, keys: keys(key: "tokens_per_minute: 60"), clock: clock)
        let written = Mutex("")
        let task = Task {
            let response = try await server.response(
                .post, "/v1/completions",
                headers: [.authorization: "Bearer first-key", .contentType: "application/json"],
                body: .init(
                    buffer: .init(string: #"{"prompt": "abcd", "stream": true, "max_tokens": 50}"#))
            )
            try await response.body.write(
                CollectingWriter { bytes in
                    written.withLock { $0 += String(decoding: bytes, as: UTF8.self) }
                })
        }
        while written.withLock({ $0.components(separatedBy: "data: ").count }) < 3 {
            await Task.yield()
        }
        // 54 of 60 are taken.
        #expect(try await ask(server, "first-key", 4).status == 429)
        task.cancel()
        await #expect(throws: (any Error).self) { try await task.value }
        // The prompt's 4 and the answer's 2 are gone.
        let next = try await ask(server, "first-key", 50)
        #expect(next.status == 200)
        #expect(try header(next, "remaining-tokens") == "48")
    }

    @Test func tokensOfADay() async throws {
        let clock = try TestClock(at: "2026-11-30T23:58:00Z")
        let server = try TestServer(
            FakeEngine(saying: "abcd"),
            keys: keys(tenant: "tokens_per_day: 20, tokens_per_month: 1000"), clock: clock)
        for key in ["first-key", "second-key"] {
            #expect(try await ask(server, key).status == 200)
        }
        let over = try await ask(server)
        #expect(over.status == 429)
        #expect(over.headers[.retryAfter] == "120")
        #expect(try #require(try over.string("error.message")).contains("tokens_per_day"))
        #expect(try await ask(server, "first-key", 17).status == 400)
        clock.advance(by: 120)
        #expect(try await ask(server).status == 200)
    }

    @Test func quotasSurviveARestart() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine(saying: "abcd"), keys: keys(tenant: "tokens_per_month: 20"), clock: clock)
        for _ in 0..<2 { #expect(try await ask(server).status == 200) }
        try await server.services.usage.flush()
        // The same registry under new limits, as after a restart.
        let limits = AdmissionLimits { clock.now }
        try await server.services.usage.restore(limits)
        var services = server.services
        services.admission = limits
        let next = TestServer(server, services)
        #expect(try await ask(next, "second-key").status == 429)
        #expect(try await ask(next, "third-key").status == 200)
    }

    @Test func anAnswerWithoutABoundTakesAUsualOne() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], hangs: true) },
            keys: keys(key: "tokens_per_minute: 100"), clock: clock)
        let task = Task {
            _ = try await server.post(
                "/v1/chat/completions", #"{"messages": [{"role": "user", "content": "a"}]}"#,
                key: "first-key")
        }
        while server.engine.requests.isEmpty { await Task.yield() }
        let bound = try #require(server.engine.requests.first).maximumTokenCount
        // The context has 64 tokens, fewer than the usual answer.
        let prompt = try #require(server.engine.requests.first).promptTokens.count
        #expect(bound + prompt == 64)
        #expect(try await ask(server, "first-key", 33).status == 429)
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test func newLimitsHoldForTheNextRequest() async throws {
        let clock = try TestClock(at: "2026-11-21T12:00:00Z")
        let server = try TestServer(
            FakeEngine(saying: "x"), keys: keys(key: "requests_per_minute: 1"), clock: clock)
        #expect(try await ask(server).status == 200)
        #expect(try await ask(server).status == 429)
        let ring = try #require(server.services.keys)
        ring.replace(with: try keys(key: "requests_per_minute: 3"))
        // One of three is taken.
        for _ in 0..<2 { #expect(try await ask(server).status == 200) }
        #expect(try await ask(server).status == 429)
        ring.replace(with: try keys())
        #expect(try await ask(server).status == 200)
    }
}
