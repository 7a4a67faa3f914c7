import Foundation
import HTTPTypes
import Hummingbird
import Logging
import LorryHTTP

/// Who may call a route. There is no default: a route states it.
enum Access: Sendable {
    case anyone
    case role(Role)
}

/// A request that has passed its route's access check.
struct Call: Sendable {
    let request: Request
    let context: LorryRequestContext
    let principal: Principal

    var id: String { context.requestID }
    func parameter(_ name: String) -> String {
        let raw = context.parameters.get(name) ?? ""
        return raw.removingPercentEncoding ?? raw
    }
    func query(_ name: String) -> String? {
        request.uri.queryParameters[name[...]].map(String.init)
    }
}

/// Lorry's routes. Each is registered with the role that it asks for; whatever is not registered
/// is 404, and another method on a registered path is 405.
public struct APIRouter {
    private let services: APIServices
    private let router = Router(
        context: LorryRequestContext.self, options: .autoGenerateHeadEndpoints)
    private var methods: [String: [HTTPRequest.Method]] = [:]

    /// The responder to hand to an `HTTPServer`.
    public static func responder(
        _ services: APIServices
    ) -> RouterResponder<LorryRequestContext> {
        var routes = APIRouter(services)
        routes.addHealthRoutes(services)
        routes.addMetricsRoute(services)
        routes.addModelRoutes(services)
        routes.addTokenizeRoutes(services)
        routes.addCompletionRoute(services)
        routes.addChatRoute(services)
        routes.addAdapterRoutes(services)
        routes.addAuditRoute(services)
        routes.addLoraRoutes(services)
        return routes.finish()
    }

    init(_ services: APIServices) {
        self.services = services
        let limits = services.limits
        router.add(middleware: GzipMiddleware())
        router.add(middleware: AnswerMiddleware())
        router.add(middleware: GunzipMiddleware { limits.bodyByteCount(for: $0.head) })
    }

    mutating func on(
        _ method: HTTPRequest.Method, _ path: String, _ access: Access,
        _ handle: @escaping @Sendable (Call) async throws -> Response
    ) {
        methods[path, default: []].append(method)
        let services = services
        router.on(RouterPath(path), method: method) { request, context -> Response in
            let principal = try services.authorize(request, for: access)
            return try await handle(
                Call(request: request, context: context, principal: principal))
        }
    }

    /// Adds the 405 answers and builds the responder.
    private func finish() -> RouterResponder<LorryRequestContext> {
        let all: [HTTPRequest.Method] = [.get, .post, .put, .delete, .patch, .options]
        for (path, allowed) in methods {
            let list = allowed.map(\.rawValue).sorted().joined(separator: ", ")
            for method in all where !allowed.contains(method) {
                router.on(RouterPath(path), method: method) { _, _ -> Response in
                    throw APIError(
                        .methodNotAllowed, "Method \(method.rawValue) is not allowed; use \(list).",
                        headers: [.allow: list])
                }
            }
        }
        return router.buildResponder()
    }
}

extension APIServices {
    /// - Throws: `APIError` 401 without a known key, 403 where the key lacks the role.
    func authorize(_ request: Request, for access: Access) throws(APIError) -> Principal {
        guard case .role(let role) = access, let keys else { return .everyone }
        guard let key = request.bearerKey else {
            throw .unauthorized("No API key was sent: use 'Authorization: Bearer KEY'.")
        }
        guard let principal = keys.principal(for: key) else {
            throw .unauthorized("The API key is not known.")
        }
        guard principal.roles.contains(role) else {
            throw APIError(.forbidden, "The API key lacks the role '\(role.rawValue)'.")
        }
        return principal
    }
}

extension APIError {
    static func unauthorized(_ message: String) -> APIError {
        APIError(.unauthorized, message, headers: [.wwwAuthenticate: "Bearer"])
    }
}

extension Request {
    /// The key of `Authorization: Bearer`, or of `x-api-key`.
    var bearerKey: String? {
        if let value = headers[.authorization] {
            guard value.lowercased().hasPrefix("bearer ") else { return nil }
            return value.dropFirst("bearer ".count).trimmingSpaces
        }
        return headers[.xAPIKey]
    }
}

extension HTTPField.Name {
    private static func own(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else {
            preconditionFailure("'\(name)' is not a field name")
        }
        return name
    }
    static let lastEventID = own("last-event-id")
    static let prefer = own("prefer")
    static let envoyTimeout = own("x-envoy-expected-rq-timeout-ms")
    static let xAPIKey = own("x-api-key")
    static let xRequestID = own("x-request-id")
    static let adapterVersion = own("x-lorry-adapter-version")
    static let serverTiming = own("server-timing")
}

/// Gives every answer its request id, and every error its JSON body.
struct AnswerMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: LorryRequestContext,
        next: (Request, LorryRequestContext) async throws -> Response
    ) async throws -> Response {
        var response: Response
        do {
            response = try await next(request, context)
        } catch let error as CancellationError {
            throw error
        } catch let error as ConnectionClosed {
            // Nobody is left to answer, and a client that goes away is no failure of the server's.
            throw error
        } catch {
            let answer = APIError(request.method, request.uri.path, error)
            if answer.status.code >= 500 {
                context.logger.error(
                    "Request failed",
                    metadata: [
                        "path": "\(request.uri.path)", "status": "\(answer.status.code)",
                        "error": "\(error)",
                    ])
            }
            response = answer.response
        }
        response.headers[.xRequestID] = context.requestID
        return response
    }
}

extension APIError {
    fileprivate init(_ method: HTTPRequest.Method, _ path: String, _ error: any Error) {
        if let error = error as? HTTPError, error.status == .notFound, error.body == nil {
            self.init(.notFound, "There is no route \(method.rawValue) \(path).")
        } else {
            self.init(any: error)
        }
    }
}
