import HTTPTypes
import Hummingbird
import LorryAPI
import LorryEngine
import NIOCore
import Synchronization
import Testing

@Suite struct FailureTests {
    @Test func fullQueueIs429BeforeAnyTokenizing() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        server.engine.state.withLock {
            $0.reserveError = .queueFull(retryAfter: .milliseconds(2300))
        }
        let answer = try await server.complete(#"{"prompt": "a"}"#)
        #expect(answer.status == 429)
        #expect(answer.headers[.retryAfter] == "3")
        #expect(try answer.string("error.type") == "RateLimitError")
        #expect(server.engine.requests.isEmpty)
    }

    @Test(arguments: [
        (EngineError.shuttingDown, 503), (.adapterLoadFailed(name: "a", reason: "gone"), 500),
        (.exceedsMemory(requiredByteCount: 9, budgetByteCount: 5), 400),
        (.promptTooLong(tokenCount: 9, limit: 5), 400),
        (.invalidToken(9, vocabularySize: 5), 400),
        (.queueFull(retryAfter: .seconds(1)), 429),
        (.deadlineUnreachable(needed: .seconds(9), left: .seconds(5)), 503),
        (.deadlinePassed, 504), (.numbersOverflow(adapter: "a"), 500),
    ])
    func failureBeforeTheFirstTokenIsAStatus(_ error: EngineError, _ status: Int) async throws {
        let server = try TestServer(FakeEngine { _ in .init(failure: error) })
        for stream in [false, true] {
            let answer = try await server.complete(#"{"prompt": "a", "stream": \#(stream)}"#)
            #expect(answer.status == status)
            #expect(try answer.integer("error.code") == status)
        }
    }

    @Test func aDeadlineThatCannotBeMetSaysWhy() async throws {
        let error = EngineError.deadlineUnreachable(needed: .seconds(9), left: .milliseconds(2_500))
        let server = try TestServer(FakeEngine { _ in .init(failure: error) })
        let answer = try await server.complete(#"{"prompt": "a", "timeout": 2.5}"#)
        #expect(answer.headers[.retryAfter] == "7")
        #expect(try answer.string("error.type") == "DeadlineExceededError")
        let message = try #require(try answer.string("error.message"))
        #expect(message.contains("9.0 s") && message.contains("2.5 s"))
    }

    @Test func failureInsideAStreamIsAnErrorEvent() async throws {
        let server = try TestServer(
            FakeEngine { _ in .init(tokens: [72], failure: .shuttingDown) })
        let answer = try await server.complete(#"{"prompt": "a", "stream": true}"#)
        #expect(answer.status == 200)
        #expect(
            answer.body.hasSuffix(
                "event: error\ndata: {\"error\":{\"message\":\"The server is shutting down.\","
                    + "\"type\":\"ServiceUnavailableError\",\"param\":null,\"code\":503}}\n\n"
                    + "data: [DONE]\n\n"), "\(answer.body)")
    }

    @Test func oneFailingAnswerEndsAll() async throws {
        let server = try TestServer(
            FakeEngine { request in
                request.promptTokens == [97]
                    ? .init(tokens: [72], hangs: true) : .init(failure: .shuttingDown)
            })
        let answer = try await server.complete(#"{"prompt": ["a", "b"]}"#)
        #expect(answer.status == 503)
        #expect(server.engine.cancelCount >= 1)
    }

    @Test func clientThatGoesAwayBeforeTheAnswer() async throws {
        let server = try TestServer(FakeEngine { _ in .init(tokens: [72], hangs: true) })
        let task = Task { try await server.complete(#"{"prompt": "a", "max_tokens": 9}"#) }
        while server.engine.requests.isEmpty { await Task.yield() }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(server.engine.cancelCount == 1)
        #expect(try await server.get("/metrics").body.contains(#"outcome="cancelled""#))
    }

    @Test(arguments: [1, 3])
    func clientThatGoesAwayDuringTheStream(_ count: Int) async throws {
        let server = try TestServer(FakeEngine { _ in .init(tokens: [72], hangs: true) })
        let written = Mutex(0)
        let task = Task {
            let response = try await server.response(
                .post, "/v1/completions", headers: [.contentType: "application/json"],
                body: RequestBody(
                    buffer: ByteBuffer(
                        string: #"{"prompt": "a", "stream": true, "max_tokens": 9, "n": \#(count)}"#
                    )
                ))
            try await response.body.write(
                CollectingWriter { _ in written.withLock { $0 += 1 } })
        }
        while written.withLock({ $0 }) == 0 { await Task.yield() }
        task.cancel()
        await #expect(throws: (any Error).self) { try await task.value }
        #expect(server.engine.cancelCount == count)
    }

    @Test func clientThatCannotBeWrittenTo() async throws {
        struct Gone: Error {}
        let server = try TestServer(FakeEngine { _ in .init(tokens: [72], hangs: true) })
        let response = try await server.response(
            .post, "/v1/completions", headers: [.contentType: "application/json"],
            body: RequestBody(
                buffer: ByteBuffer(string: #"{"prompt": "a", "stream": true, "max_tokens": 9}"#)))
        await #expect(throws: Gone.self) {
            try await response.body.write(CollectingWriter { _ in throw Gone() })
        }
        #expect(server.engine.cancelCount == 1)
    }

    @Test func streamThatNobodyReadsIsCancelled() async throws {
        let server = try TestServer(FakeEngine { _ in .init(tokens: [72], hangs: true) })
        do {
            _ = try await server.response(
                .post, "/v1/completions", headers: [.contentType: "application/json"],
                body: RequestBody(
                    buffer: ByteBuffer(
                        string: #"{"prompt": "a", "stream": true, "max_tokens": 9}"#)))
        }
        #expect(server.engine.cancelCount == 1)
    }

    @Test func unknownRouteAndMethod() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let missing = try await server.get("/v2/nothing")
        #expect(missing.status == 404)
        #expect(try missing.string("error.message") == "There is no route GET /v2/nothing.")
        let wrong = try await server.get("/v1/completions")
        #expect(wrong.status == 405)
        #expect(wrong.headers[.allow] == "POST")
        #expect(try wrong.string("error.type") == "MethodNotAllowedError")
        #expect(try await server.send(.patch, "/admin/adapters/x").status == 405)
    }

    @Test func malformedBodies() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let broken = try await server.complete(#"{"prompt": "a",}"#)
        #expect(broken.status == 400)
        #expect(
            try broken.string("error.message")
                == "The body is invalid JSON at byte 15: expected a key.")
        #expect(try await server.complete("[]").status == 400)
        #expect(try await server.complete("").status == 400)
        let deep = String(repeating: "[", count: 100_000)
        #expect(try await server.complete(#"{"prompt": \#(deep)"#).status == 400)
        let typed = try await server.send(
            .post, "/v1/completions", headers: [.contentType: "text/plain"],
            chunks: [Array(#"{"prompt": "a"}"#.utf8)])
        #expect(typed.status == 415)
        let parameters = try await server.send(
            .post, "/v1/completions", headers: [.contentType: "Application/JSON; charset=utf-8"],
            chunks: [Array(#"{"prompt": "#.utf8), Array(#""a"}"#.utf8)])
        #expect(parameters.status == 200)
    }

    @Test func largeBodies() async throws {
        let server = try TestServer(FakeEngine(saying: "x")) { $0.limits.jsonByteCount = 100 }
        let announced = try await server.send(
            .post, "/v1/completions", headers: [.contentLength: "101"], chunks: [])
        #expect(announced.status == 413)
        let sent = try await server.send(
            .post, "/v1/completions", chunks: [[UInt8]](repeating: [32, 32, 32], count: 40))
        #expect(sent.status == 413)
        #expect(try sent.string("error.type") == "BadRequestError")
    }

    @Test func boundsByRoute() {
        let limits = APILimits()
        let bound = { (method: HTTPRequest.Method, path: String) in
            limits.bodyByteCount(
                for: HTTPRequest(method: method, scheme: nil, authority: nil, path: path))
        }
        #expect(bound(.put, "/admin/adapters/a") == limits.uploadByteCount)
        #expect(bound(.post, "/admin/adapters/a/pin") == limits.jsonByteCount)
        #expect(bound(.put, "/v1/completions") == limits.jsonByteCount)
    }

    @Test func stoppingServerTakesNothingMore() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        server.services.readiness.advance(to: .stopping)
        #expect(try await server.complete(#"{"prompt": "a"}"#).status == 503)
        #expect(try await server.get("/health/ready").status == 503)
        #expect(try await server.get("/health/live").status == 200)
        server.services.readiness.advance(to: .ready)
        #expect(server.services.readiness.phase == .stopping)
    }
}
