import HTTPTypes
import LorryAPI
import LorryEngine
import Synchronization
import Testing

@Suite struct ClientPatienceTests {
    /// The least of what a request says counts.
    @Test(
        arguments: [
            (#""timeout": 7.5"#, [:], 7.5), ("", ["prefer": "wait=3"], 3),
            ("", ["prefer": "return=minimal; foo, wait=\"12\""], 12),
            ("", ["x-envoy-expected-rq-timeout-ms": "250"], 0.25),
            (
                #""timeout": 7.5"#, ["prefer": "wait=9", "x-envoy-expected-rq-timeout-ms": "8000"],
                7.5
            ),
            ("", ["prefer": "wait=soon", "x-envoy-expected-rq-timeout-ms": "-1"], nil),
            ("", [:], nil),
        ] as [(String, [String: String], Double?)])
    func theDeadlineReachesTheEngine(
        _ field: String, _ headers: [String: String], _ seconds: Double?
    ) async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        var fields: HTTPFields = [.contentType: "application/json"]
        for (name, value) in headers { fields[try #require(HTTPField.Name(name))] = value }
        let body = #"{"prompt": "a"\#(field.isEmpty ? "" : ", " + field)}"#
        let before = ContinuousClock.now
        let answer = try await server.send(
            .post, "/v1/completions", headers: fields, chunks: [Array(body.utf8)])
        #expect(answer.status == 200, "\(answer.body)")
        let deadline = try #require(server.engine.requests.first).deadline
        guard let seconds else {
            #expect(deadline == nil)
            return
        }
        let left = try #require(deadline) - before
        #expect(left >= .seconds(seconds) && left < .seconds(seconds + 60))
    }

    @Test func placesAreReservedByTheTextsBytesAndThenCorrected() async throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        let text = String(repeating: "a", count: 40)
        _ = try await server.complete(#"{"prompt": ["\#(text)", "abc"], "n": 2}"#)
        // Forty bytes are ten tokens by the estimate, and forty to the tests' tokenizer.
        #expect(server.engine.state.withLock { $0.reservedTokenCounts } == [22, 86])
    }
}
