import HTTPTypes
import Hummingbird

extension APIRouter {
    mutating func addHealthRoutes(_ services: APIServices) {
        for path in ["/", "/health", "/health/live", "/ping", "/v1/health"] {
            onGetImmediately(path, .anyone) { _ in
                let isAlive = services.engine.isAlive
                return .health(isAlive, isAlive ? "ok" : "the engine does not move")
            }
        }
        onGetImmediately("/health/ready", .anyone) { _ in
            let phase = services.readiness.phase
            guard services.engine.isAlive else { return .health(false, "the engine does not move") }
            return .health(phase == .ready, phase == .ready ? "ok" : phase.rawValue)
        }
        onGetImmediately("/health/startup", .anyone) { _ in
            let phase = services.readiness.phase
            return .health(phase != .starting, phase == .starting ? phase.rawValue : "ok")
        }
        on(.get, "/version", .anyone) { _ in .json(["version": .string(services.version)]) }
    }
}

extension Response {
    static func json(
        _ value: JSON, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]
    ) -> Response {
        var fields = headers
        fields[.contentType] = "application/json"
        return Response(
            status: status, headers: fields, body: .init(byteBuffer: ByteBuffer(bytes: value.bytes))
        )
    }

    /// An answer that may be large, made and written out on a thread of its own.
    static func json(_ make: @escaping @Sendable () -> JSON) async -> Response {
        let bytes = await onDispatch { make().bytes }
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: .init(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    static func text(_ text: String, contentType: String = "text/plain; charset=utf-8") -> Response
    {
        Response(
            status: .ok, headers: [.contentType: contentType],
            body: .init(byteBuffer: ByteBuffer(string: text)))
    }

    fileprivate static func health(_ isGood: Bool, _ status: String) -> Response {
        .json(["status": .string(status)], status: isGood ? .ok : .serviceUnavailable)
    }
}
