import HTTPTypes
import Hummingbird
import LorryHTTP

/// A listener's routes, as an `HTTPServer` asks them.
public struct APIResponder: ImmediateResponder {
    private let router: RouterResponder<LorryRequestContext>
    /// Of routes that answer `GET`, and `HEAD`, immediately.
    private let immediatePaths: Set<Substring>

    init(_ router: RouterResponder<LorryRequestContext>, immediatePaths: Set<Substring>) {
        self.router = router
        self.immediatePaths = immediatePaths
    }

    public func respond(
        to request: Request, context: LorryRequestContext
    ) async throws -> Response {
        try await router.respond(to: request, context: context)
    }

    public func answersImmediately(_ request: HTTPRequest) -> Bool {
        (request.method == .get || request.method == .head)
            && immediatePaths.contains(request.sentPath)
    }
}

/// Takes a path as its client sent it. An empty segment is a segment (RFC 3986 §3.3), and no route
/// has one: the router, which leaves empty ones out, would answer `//admin/x` and `/admin/x/` like
/// `/admin/x`, and so help past a proxy's rules on paths.
struct ExactPathMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: LorryRequestContext,
        next: (Request, LorryRequestContext) async throws -> Response
    ) async throws -> Response {
        let path = request.head.sentPath
        let hasEmptySegment = path.contains("//") || path.last == "/"
        guard path == "/" || (path.first == "/" && !hasEmptySegment) else {
            throw HTTPError(.notFound)
        }
        return try await next(request, context)
    }
}

extension HTTPRequest {
    /// Without the query.
    fileprivate var sentPath: Substring { path?.prefix { $0 != "?" } ?? "" }
}
