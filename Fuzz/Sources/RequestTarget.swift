import Dispatch
import HTTPTypes
import LorryText

/// The routes that take JSON, over an engine that always says the same. The first byte chooses the
/// route, the rest is the body.
struct RequestTarget: FuzzTarget {
    private static let routes: [(HTTPRequest.Method, String)] = [
        (.post, "/v1/completions"), (.post, "/v1/chat/completions"), (.post, "/tokenize"),
        (.post, "/detokenize"), (.post, "/admin/adapters/a/merge"),
        (.post, "/admin/adapters/a/rollback"), (.put, "/admin/adapters/a"),
        (.post, "/v1/load_lora_adapter"),
    ]

    private let server: TestServer

    init() throws { server = try TestServer(FakeEngine(saying: "so it is")) }

    func run(_ input: [UInt8]) {
        guard let first = input.first else { return }
        let (method, path) = Self.routes[Int(first) % Self.routes.count]
        let server = server
        let done = DispatchSemaphore(value: 0)
        Task {
            let answer = try? await server.send(
                method, path, headers: [.contentType: "application/json"],
                chunks: [Array(input.dropFirst())])
            precondition((answer?.status ?? 500) < 500, "an answer that blames the server")
            done.signal()
        }
        done.wait()
    }
}
