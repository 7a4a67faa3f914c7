import HTTPTypes
import LorryAPI
import Synchronization
import Testing

/// What orchestrators ask, however busy the server is.
@Suite struct HealthTests {
    private static let probes = [
        "/", "/health", "/health/live", "/health/ready", "/health/startup", "/ping", "/v1/health",
    ]

    /// The listener answers them on its own threads, so that nothing in them may wait.
    @Test(arguments: probes, [Listener.sole, .serving, .administration])
    func probesAreAnsweredWithoutAWait(path: String, listener: Listener) throws {
        guard #available(macOS 26, *) else { return }
        let server = try TestServer(FakeEngine(saying: "x"), listener: listener)
        for method in [HTTPRequest.Method.get, .head] {
            #expect(server.answersImmediately(method, path))
            let status = Mutex<Int?>(nil)
            Task.immediate {
                let answer = try await server.send(
                    method, path, headers: [.acceptEncoding: "gzip"])
                status.withLock { $0 = answer.status }
            }
            #expect(status.withLock { $0 } == 200, "\(method) \(path) has ended")
        }
        #expect(server.answersImmediately(.get, path + "?verbose=1"))
        #expect(!server.answersImmediately(.post, path))
        #expect(!server.answersImmediately(.get, path + "/"))
    }

    @Test func whatWorksIsNot() throws {
        let server = try TestServer(FakeEngine(saying: "x"))
        for path in ["/metrics", "/v1/models", "/admin/adapters", "/health_generate", "/nothing"] {
            #expect(!server.answersImmediately(.get, path))
        }
    }
}
