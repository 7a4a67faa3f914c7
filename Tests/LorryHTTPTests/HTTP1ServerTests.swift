import Foundation
import HTTPTypes
import LorryHTTP
import NIOCore
import RawTraffic
import Testing

@Suite struct HTTP1ServerTests {
    @Test func keepsAliveAndAnswersPipelinedRequestsInOrder() async throws {
        try await TestServer.run { server in
            let answer = try await RawClient.ask(
                server.port,
                "GET /slow HTTP/1.1\r\nhost: a\r\n\r\nPOST /echo HTTP/1.1\r\nhost: a\r\n"
                    + "content-length: 5\r\n\r\nfirstPOST /echo HTTP/1.1\r\nhost: a\r\n"
                    + "transfer-encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n"
                    + "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            let bodies = answer.components(separatedBy: "\r\n\r\n").dropFirst().map { part in
                String(part.prefix(8)).components(separatedBy: "HTTP/1.1 2")[0]
            }
            #expect(answer.components(separatedBy: "HTTP/1.1 200 OK").count == 5)
            #expect(bodies.map { String($0.prefix(4)) } == ["slow", "firs", "seco", "HTTP"])
            #expect(answer.lowercased().contains("connection: close"))
        }
    }

    @Test func manyPipelinedRequestsInOneWrite() async throws {
        try await TestServer.run { server in
            let many = String(repeating: "GET /health HTTP/1.1\r\nhost: a\r\n\r\n", count: 100)
            let last = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            let answer = try await RawClient.ask(server.port, many + last)
            #expect(answer.components(separatedBy: "HTTP/1.1 200 OK").count == 102)
        }
        try await TestServer.run(configured { $0.limits.pipelinedRequestCount = 3 }) { server in
            let many = String(repeating: "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n", count: 20)
            let answer = try await RawClient.ask(server.port, many)
            #expect(answer.components(separatedBy: "HTTP/1.1 200 OK").count == 5)
            #expect(answer.components(separatedBy: "HTTP/1.1 400 ").count == 2)
        }
    }

    /// A request that is sent ahead may be cut anywhere, and go on after the answer to the first.
    @Test func aRequestSentAheadMayBeCutAnywhere() async throws {
        try await TestServer.run { server in
            let next = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            for first in [
                "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n",
                "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nslow",
            ] {
                try await withThrowingTaskGroup(of: String.self) { group in
                    for cut in 0..<next.utf8.count {
                        group.addTask {
                            let client = try await RawClient.connect(port: server.port)
                            try await client.send(first + next.prefix(cut))
                            _ = try await client.read(until: "\r\n\r\nslow")
                            try await client.send(String(next.dropFirst(cut)))
                            let answer = try await client.readToEnd()
                            try await client.close()
                            return answer
                        }
                    }
                    for try await answer in group {
                        #expect(answer.components(separatedBy: "HTTP/1.1 200 ").count == 3)
                        #expect(!answer.contains(" 400 "))
                    }
                }
            }
        }
    }

    @Test func headHasNoBody() async throws {
        try await TestServer.run { server in
            let answer = try await RawClient.ask(
                server.port,
                "HEAD /events HTTP/1.1\r\nhost: a\r\n\r\nHEAD /health HTTP/1.1\r\nhost: a\r\n"
                    + "connection: close\r\n\r\n")
            #expect(answer.components(separatedBy: "200 OK").count == 3)
            #expect(answer.hasSuffix("\r\n\r\n"))
            #expect(!answer.contains("0\r\n\r\nHTTP"))
        }
    }

    @Test func streamsInChunks() async throws {
        try await TestServer.run { server in
            let answer = try await RawClient.ask(
                server.port, "GET /events HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            #expect(answer.lowercased().contains("transfer-encoding: chunked"))
            #expect(answer.hasSuffix("\r\ndata: 2\n\n\r\n0\r\n\r\n"))
            let old = try await RawClient.ask(server.port, "GET /events HTTP/1.0\r\n\r\n")
            #expect(!old.lowercased().contains("chunked"))
            #expect(old.hasSuffix("\r\n\r\ndata: 0\n\ndata: 1\n\ndata: 2\n\n"))
        }
    }

    @Test func expectContinueIsAnsweredWhenTheBodyIsWanted() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            let head = "host: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
            try await client.send("POST /echo HTTP/1.1\r\n" + head)
            #expect(try await client.read(until: "100 Continue\r\n\r\n").hasPrefix("HTTP/1.1 100"))
            #expect(server.observations["echo"] == 0)
            try await client.send("abc")
            #expect(try await client.read(until: "\r\n\r\nabc").contains("HTTP/1.1 200"))
            try await client.close()
            // A handler that does not read gets no body, and the connection ends.
            let ignored = try await RawClient.ask(server.port, "POST /ignore HTTP/1.1\r\n" + head)
            #expect(ignored.hasPrefix("HTTP/1.1 200"))
            #expect(ignored.lowercased().contains("connection: close"))
        }
    }

    @Test(arguments: [
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded: 2\r\n\r\n",
        "GET /health HTTP/1.1\nhost: a\n\n", "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nx: a\u{0}b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nx: a\rb: c\r\n\r\n",
        "NONSENSE\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n",
        "GET /health HTTP/1.1\r\n: a\r\nhost: a\r\n\r\n",
    ])
    func smugglingShapesAre400AndClose(request: String) async throws {
        try await TestServer.run { server in
            // What follows must not be taken for a second request.
            let answer = try await RawClient.ask(
                server.port, request + "GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 400 "), "\(answer)")
            #expect(answer.components(separatedBy: "HTTP/1.1 ").count == 2, "\(answer)")
            #expect(server.observations["echo"] == 0)
        }
    }

    @Test func limitsAreAnsweredWithTheirStatus() async throws {
        try await TestServer.run(
            configured {
                $0.limits.bodyByteCount = 10
                $0.bodyLimit = { $0.path == "/ignore" ? 20 : nil }
            }
        ) { server in
            func status(_ request: String) async throws -> String {
                String(try await RawClient.ask(server.port, request).prefix(12).suffix(3))
            }
            let long = String(repeating: "a", count: 10_000)
            let longer = String(repeating: "a", count: 40_000)
            let many = (0..<150).map { "x\($0): y\r\n" }.joined()
            let head = "host: a\r\nconnection: close\r\n"
            #expect(try await status("GET /\(long) HTTP/1.1\r\n\(head)\r\n") == "414")
            #expect(try await status("GET / HTTP/1.1\r\n\(head)x: \(longer)\r\n\r\n") == "431")
            #expect(try await status("GET / HTTP/1.1\r\n\(head)\(many)\r\n") == "431")
            let post = "POST /echo HTTP/1.1\r\n\(head)"
            #expect(try await status(post + "content-length: 11\r\n\r\n") == "413")
            #expect(try await status(post + "content-length: 10\r\n\r\n0123456789") == "200")
            #expect(
                try await status(
                    post + "transfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n")
                    == "413")
            let other = "POST /ignore HTTP/1.1\r\n\(head)content-length: "
            #expect(try await status(other + "20\r\n\r\n" + String(long.prefix(20))) == "200")
            #expect(try await status(other + "21\r\n\r\n") == "413")
            #expect(try await status("CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n") == "501")
            let version = try await status("GET / HTTP/3.0\r\nhost: a\r\n\r\n")
            #expect(version == "400")
        }
    }

    @Test func slowClientsAreTimedOut() async throws {
        try await TestServer.run(
            configured {
                $0.limits.headerTimeout = .milliseconds(200)
                $0.limits.bodyIdleTimeout = .milliseconds(200)
                $0.limits.idleTimeout = .milliseconds(400)
            }
        ) { server in
            let head = try await RawClient.ask(server.port, "GET /health HTTP/1.1\r\nhost:")
            #expect(head.hasPrefix("HTTP/1.1 408 "))
            #expect(try await RawClient.ask(server.port, "") == "")
            #expect(try await RawClient.ask(server.port, "PR") == "")
            let body = try await RawClient.ask(
                server.port, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
            #expect(body.hasPrefix("HTTP/1.1 408 "))
            let idle = try await RawClient.ask(
                server.port, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            #expect(idle.hasSuffix("HTTP/1.1"))
        }
    }

    @Test func tooManyConnectionsAreRefusedPolitely() async throws {
        try await TestServer.run(configured { $0.limits.connectionCount = 1 }) { server in
            let first = try await RawClient.connect(port: server.port)
            try await first.send("GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            _ = try await first.read(until: "\r\n\r\nHTTP/1.1")
            let second = try await RawClient.ask(server.port, "")
            #expect(second.hasPrefix("HTTP/1.1 503 "))
            try await first.close()
        }
    }

    @Test(arguments: ["close", "half-close"])
    func clientThatGoesAwayCancelsItsTask(how: String) async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            try await client.send("GET /forever HTTP/1.1\r\nhost: a\r\n\r\n")
            try await server.observations.wait(for: "forever")
            if how == "close" { try await client.close() } else { try await client.closeOutput() }
            try await server.observations.wait(for: "cancelled")
            if how != "close" { #expect(try await client.readToEnd() == "") }
            try await client.close()
        }
    }

    @Test func halfClosedClientStillGetsShortAnswers() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            try await client.send("GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            try await client.closeOutput()
            #expect(try await client.readToEnd().hasPrefix("HTTP/1.1 200 "))
            try await client.close()
        }
    }

    @Test func slowReaderSuspendsItsProducer() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port, readsAtOnce: false)
            try await client.send("GET /flood HTTP/1.1\r\nhost: a\r\n\r\n")
            try await expectSuspension(server)
            try await client.close()
            try await server.observations.wait(for: "cancelled")
        }
    }

    @Test func brokenHandlersEndInATrueAnswer() async throws {
        try await TestServer.run { server in
            let head = "host: a\r\nconnection: close\r\n\r\n"
            let thrown = try await RawClient.ask(server.port, "GET /throws HTTP/1.1\r\n" + head)
            #expect(thrown.hasPrefix("HTTP/1.1 500 "))
            #expect(thrown.contains("\"type\":\"server_error\""))
            // No last chunk: the client can tell that the answer is not whole.
            let broken = try await RawClient.ask(server.port, "GET /breaks HTTP/1.1\r\n" + head)
            #expect(broken.contains("begun"))
            #expect(!broken.hasSuffix("0\r\n\r\n"))
        }
    }

    @Test func drainLetsTheRunningRequestFinish() async throws {
        try await TestServer.run { server in
            let client = try await RawClient.connect(port: server.port)
            let idle = try await RawClient.connect(port: server.port)
            try await client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            try await server.observations.wait(for: "slow")
            await server.shutDown()
            let answer = try await client.readToEnd()
            #expect(answer.hasSuffix("\r\n\r\nslow"))
            #expect(answer.lowercased().contains("connection: close"))
            #expect(try await idle.readToEnd() == "")
            await #expect(throws: (any Error).self) {
                _ = try await RawClient.connect(port: server.port)
            }
        }
    }

    @Test func drainTimeoutCancelsWhatStillRuns() async throws {
        try await TestServer.run(configured { $0.drainTimeout = .milliseconds(100) }) { server in
            let client = try await RawClient.connect(port: server.port)
            try await client.send("GET /forever HTTP/1.1\r\nhost: a\r\n\r\n")
            try await server.observations.wait(for: "forever")
            await server.shutDown()
            #expect(try await client.readToEnd() == "")
            try await server.observations.wait(for: "cancelled")
        }
    }
}

/// Waits until `/flood` makes no progress, far from its 100 MB.
func expectSuspension(_ server: TestServer) async throws {
    var last = -1
    while last != server.observations["flooded"] || last == 0 {
        last = server.observations["flooded"]
        try await Task.sleep(for: .milliseconds(150))
    }
    #expect(last > 0)
    #expect(last < 20_000_000)
    #expect(server.observations["cancelled"] == 0)
}
