import Foundation
import HTTPTypes
import Hummingbird
import Logging
import LorryAPI
import LorryEngine
import LorryHTTP
import LorryMetrics
import LorryModel
import LorryRegistry
import LorryText
import NIOCore
import Synchronization

/// The routes over a fake engine and a real registry in a folder of its own, without any socket.
final class TestServer: Sendable {
    struct Answer {
        let status: Int
        let headers: HTTPFields
        let body: String

        var json: StrictJSON { get throws { try StrictJSON(parsing: body.utf8) } }

        /// The member at a path of keys and positions.
        func value(_ path: String) throws -> StrictJSON? {
            var value: StrictJSON? = try json
            for part in path.split(separator: ".") {
                if let position = Int(part) {
                    let list = value?.arrayValue ?? []
                    value = list.indices.contains(position) ? list[position] : nil
                } else {
                    value = value?.objectValue?[String(part)]
                }
            }
            return value
        }
        func string(_ path: String) throws -> String? { try value(path)?.stringValue }
        func integer(_ path: String) throws -> Int? { try value(path)?.integerValue }

        /// The `data:` payloads of an event stream.
        var events: [String] {
            body.components(separatedBy: "\n\n").filter { !$0.isEmpty }.map { event in
                event.split(separator: "\n").filter { $0.hasPrefix("data: ") }
                    .map { $0.dropFirst("data: ".count) }.joined()
            }
        }
    }

    let engine: FakeEngine
    let registry: AdapterRegistry
    let services: APIServices
    let folder: URL
    private let responder: APIResponder

    /// - Parameter listener: of which the routes are.
    init(
        _ engine: FakeEngine, keys: APIKeys? = nil, template: String? = TestTokenizer.template,
        traits: AdapterTraits = AdapterTraits(), clock: TestClock = TestClock(),
        listener: Listener = .sole, change: (inout APIServices) -> Void = { _ in }
    ) throws {
        self.engine = engine
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lorry-api-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var configuration = RegistryConfiguration()
        configuration.reservedNames = ["base"]
        registry = try AdapterRegistry(
            stateDirectory: folder.appendingPathComponent("state"), configuration: configuration
        ) { _ in
            var description = AdapterDescription(
                method: "lora", rank: 4, targets: ["q_proj"], byteCount: 100, parameterCount: 50)
            description.traits = traits
            return description
        }
        let metrics = ServerMetrics(
            registry: PrometheusRegistry(configuration: ServerMetrics.configuration()),
            modelName: "base")
        let readiness = Readiness()
        readiness.advance(to: .ready)
        let ring = keys.map { KeyRing($0) { clock.now.date } }
        let now: @Sendable () -> Moment = { clock.now }
        var services = APIServices(
            card: ModelCard(name: "base", created: Date(timeIntervalSince1970: 1000)),
            version: "1.2.3", engine: engine, registry: registry,
            text: TextCodec(tokenizer: try TestTokenizer.make(template: template)),
            tokenizerFile: nil, keys: ring,
            metrics: metrics, readiness: readiness, clock: now
        ) { _, task in throw AdapterError(.unreadable, "never loaded here, task \(task)") }
        change(&services)
        self.services = services
        responder = APIRouter.responder(services, for: listener)
    }

    /// Other routes over the registry of a server, which has to live as long.
    init(_ other: TestServer, _ services: APIServices) {
        engine = other.engine
        registry = other.registry
        self.services = services
        folder = other.folder.appendingPathComponent("none")
        responder = APIRouter.responder(services)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    func response(
        _ method: HTTPRequest.Method, _ path: String, headers: HTTPFields = [:], body: RequestBody
    ) async throws -> Response {
        let head = HTTPRequest(
            method: method, scheme: "http", authority: "localhost", path: path,
            headerFields: headers)
        let source = HTTPRequestSource(logger: Logger(label: "test"), requestID: "id1")
        return try await responder.respond(
            to: Request(head: head, body: body), context: LorryRequestContext(source: source))
    }

    func answersImmediately(_ method: HTTPRequest.Method, _ path: String) -> Bool {
        responder.answersImmediately(
            HTTPRequest(method: method, scheme: "http", authority: "localhost", path: path))
    }

    func send(
        _ method: HTTPRequest.Method, _ path: String, headers: HTTPFields = [:],
        chunks: [[UInt8]] = []
    ) async throws -> Answer {
        let body = RequestBody(
            asyncSequence: AsyncStream { continuation in
                for chunk in chunks { continuation.yield(ByteBuffer(bytes: chunk)) }
                continuation.finish()
            })
        let response = try await response(method, path, headers: headers, body: body)
        let collected = Mutex<[UInt8]>([])
        try await response.body.write(
            CollectingWriter { bytes in collected.withLock { $0 += bytes } })
        return Answer(
            status: response.status.code, headers: response.headers,
            body: String(decoding: collected.withLock { $0 }, as: UTF8.self))
    }

    func get(_ path: String, key: String? = nil) async throws -> Answer {
        try await send(.get, path, headers: Self.headers(key))
    }

    func post(_ path: String, _ json: String, key: String? = nil) async throws -> Answer {
        var headers = Self.headers(key)
        headers[.contentType] = "application/json"
        return try await send(.post, path, headers: headers, chunks: [Array(json.utf8)])
    }

    func complete(_ json: String) async throws -> Answer {
        try await post("/v1/completions", json)
    }

    func chat(_ json: String) async throws -> Answer {
        try await post("/v1/chat/completions", json)
    }

    static func headers(_ key: String?) -> HTTPFields {
        key.map { [.authorization: "Bearer \($0)"] } ?? [:]
    }

    /// Registers an adapter whose weights are the given text.
    @discardableResult
    func addAdapter(
        _ name: String, _ content: String = "weights", tenant: String = "default",
        files: [String: String] = [:]
    ) async throws -> AdapterRecord {
        let upload = try registry.makeUpload()
        var all = ["adapter_config.json": "{}", "adapter_model.safetensors": content]
        all.merge(files) { $1 }
        for (name, text) in all.sorted(by: { $0.key < $1.key }) {
            try await upload.beginFile(name)
            try await upload.writeFile(Array(text.utf8))
            try await upload.endFile()
        }
        return try await registry.add(
            name: name, tenant: tenant, from: upload, actor: "test"
        ).record
    }
}

/// The time, or one that stands still until a test moves it.
final class TestClock: Sendable {
    private let moment: Mutex<Moment?>

    init() { moment = Mutex(nil) }

    /// Stands still at a time such as `2026-11-21T12:00:00Z`.
    init(at text: String) throws {
        let date = try Date(text, strategy: .iso8601)
        moment = Mutex(Moment(instant: .now, date: date))
    }

    var now: Moment { moment.withLock { $0 } ?? .now }

    func advance(by seconds: Double) {
        moment.withLock { moment in
            moment?.instant += .seconds(seconds)
            moment?.date += seconds
        }
    }
}

/// Hands what is written to a closure.
struct CollectingWriter: ResponseBodyWriter {
    let take: @Sendable ([UInt8]) async throws -> Void

    mutating func write(_ buffer: ByteBuffer) async throws {
        try await take(Array(buffer.readableBytesView))
    }
    consuming func finish(_ trailingHeaders: HTTPFields?) async throws {}
}
