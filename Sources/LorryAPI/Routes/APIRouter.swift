import Foundation
import HTTPTypes
import Hummingbird
import Logging
import LorryHTTP
import LorryRegistry

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

/// Which routes a listener answers.
public enum Listener: Sendable {
    /// Everything: the only listener.
    case sole
    /// Beside a listener for administration.
    case serving
    /// What administrators and their tools call, on an address of its own.
    case administration

    /// Whoever needs no key may call either.
    func answers(_ access: Access) -> Bool {
        switch (self, access) {
        case (.sole, _), (_, .anyone): true
        case (.serving, .role(let role)): role == .inference
        case (.administration, .role(let role)): role != .inference
        }
    }
}

/// Lorry's routes. Each is registered with the role that it asks for; whatever is not registered
/// is 404, and another method on a registered path is 405.
public struct APIRouter {
    /// A registered route.
    package struct Route: Sendable {
        package let method: HTTPRequest.Method
        /// With its parameters in braces.
        package let path: String
        /// Nil for whoever calls.
        package let role: Role?
    }

    private let services: APIServices
    private let listener: Listener
    private let router = Router(
        context: LorryRequestContext.self, options: .autoGenerateHeadEndpoints)
    private var routes: [Route] = []
    private var immediatePaths: Set<Substring> = []

    /// The responder to hand to an `HTTPServer`.
    public static func responder(
        _ services: APIServices, for listener: Listener = .sole
    ) -> APIResponder {
        APIRouter(all: services, listener).finish()
    }

    /// Every route that a listener answers.
    package static func routes(
        _ services: APIServices, for listener: Listener = .sole
    ) -> [Route] {
        APIRouter(all: services, listener).routes
    }

    private init(all services: APIServices, _ listener: Listener) {
        self.init(services, listener)
        addHealthRoutes(services)
        addMetricsRoute(services)
        addModelRoutes(services)
        addTokenizeRoutes(services)
        addCompletionRoute(services)
        addChatRoute(services)
        addAdapterRoutes(services)
        addAliasRoutes(services)
        addUploadRoute(services)
        addAuditRoute(services)
        addUsageRoute(services)
        addBackupRoutes(services)
        addVLLMRoutes(services)
        addLlamaCppRoutes(services)
        addSGLangRoutes(services)
        addLoRAXRoutes(services)
        addGenerateRoute(services)
    }

    init(_ services: APIServices, _ listener: Listener = .sole) {
        self.services = services
        self.listener = listener
        let limits = services.limits
        router.add(middleware: GzipMiddleware())
        router.add(middleware: AnswerMiddleware())
        router.add(middleware: ExactPathMiddleware())
        router.add(middleware: GunzipMiddleware { limits.bodyByteCount(for: $0.head) })
    }

    mutating func on(
        _ method: HTTPRequest.Method, _ path: String, _ access: Access,
        errors: ErrorForm = .openAI,
        _ handle: @escaping @Sendable (Call) async throws -> Response
    ) {
        guard listener.answers(access) else { return }
        routes.append(Route(method: method, path: path, role: access.role))
        let services = services
        let namesAdapter = path.hasPrefix(AdapterPath.prefix)
        router.on(RouterPath(path), method: method) { request, context -> Response in
            try await telling(errorsAs: errors) {
                let log = RefusalLog(request, context, access)
                let principal: Principal
                do throws(APIError) {
                    principal = try services.authorize(request, for: access)
                } catch {
                    log.refused(error, services.principal(of: request))
                    throw error
                }
                do {
                    let call = Call(request: request, context: context, principal: principal)
                    if namesAdapter { try call.checkAdapter() }
                    return try await handle(call)
                } catch {
                    log.failed(error, principal)
                    throw error
                }
            }
        }
    }

    /// A `GET` that is answered on its connection's own thread, also while requests hold all others:
    /// what it tells is in memory, and nothing of its body is read.
    mutating func onGetImmediately(
        _ path: String, _ access: Access,
        _ handle: @escaping @Sendable (Call) throws -> Response
    ) {
        precondition(!path.contains("{") && !path.contains("*"), "such a path has no parameters")
        guard listener.answers(access) else { return }
        immediatePaths.insert(path[...])
        on(.get, path, access) { try handle($0) }
    }

    /// Adds the 405 answers and builds the responder. Only who may call a path learns its methods.
    private func finish() -> APIResponder {
        let all: [HTTPRequest.Method] = [.get, .post, .put, .delete, .patch, .options]
        let services = services
        for (path, routes) in Dictionary(grouping: routes, by: \.path) {
            let allowed = routes.map(\.method)
            let list = allowed.map(\.rawValue).sorted().joined(separator: ", ")
            let roles = Set(routes.map(\.role))
            for method in all where !allowed.contains(method) {
                router.on(RouterPath(path), method: method) { request, _ -> Response in
                    try services.authorize(request, forAnyOf: roles)
                    throw APIError(
                        .methodNotAllowed, "Method \(method.rawValue) is not allowed; use \(list).",
                        headers: [.allow: list])
                }
            }
        }
        return APIResponder(router.buildResponder(), immediatePaths: immediatePaths)
    }
}

/// Paths below which the parameter `name` is an adapter.
private enum AdapterPath {
    static let prefix = "/admin/adapters/{name}"
}

extension Access {
    /// Nil for whoever calls.
    var role: Role? {
        switch self {
        case .anyone: nil
        case .role(let role): role
        }
    }
}

extension Call {
    /// A key's list of adapters holds for administrators, too.
    ///
    /// - Throws: `RegistryError` as for an adapter that there is not.
    fileprivate func checkAdapter() throws(RegistryError) {
        let name = parameter("name")
        guard principal.mayUse(adapter: name) else { throw .noAdapter(named: name) }
    }
}

extension HTTPField.Name {
    private static func own(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else {
            preconditionFailure("'\(name)' is not a field name")
        }
        return name
    }
    static let estimatedByteCount = own("x-lorry-estimated-bytes")
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
