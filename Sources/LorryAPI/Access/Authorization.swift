import HTTPTypes
import Hummingbird

extension APIServices {
    /// - Throws: `APIError` 401 without a known key, 403 where the key lacks the role.
    func authorize(_ request: Request, for access: Access) throws(APIError) -> Principal {
        guard case .role(let role) = access else { return .nobody }
        guard let keys else { return .everyone }
        guard let key = request.bearerKey else {
            throw .unauthorized("No API key was sent: use 'Authorization: Bearer KEY'.")
        }
        let principal: Principal
        switch keys.find(key) {
        case .known(let known): principal = known
        case .expired: throw .unauthorized("The API key has expired.")
        case .unknown: throw .unauthorized("The API key is not known.")
        }
        guard principal.roles.contains(role) else {
            throw APIError(.forbidden, "The API key lacks the role '\(role.rawValue)'.")
        }
        return principal
    }

    /// - Throws: as for one of the roles, where the key has none of them.
    func authorize(
        _ request: Request, forAnyOf roles: Set<Role?>
    ) throws(APIError) {
        guard !roles.contains(nil) else { return }
        var refusal: APIError?
        for role in Role.allCases where roles.contains(role) {
            do throws(APIError) {
                _ = try authorize(request, for: .role(role))
                return
            } catch {
                refusal = error
            }
        }
        if let refusal { throw refusal }
    }

    /// Whose key a refused request carries; nil for none or an unknown one.
    func principal(of request: Request) -> Principal? {
        guard let keys, let key = request.bearerKey else { return nil }
        switch keys.find(key) {
        case .known(let principal), .expired(let principal): return principal
        case .unknown: return nil
        }
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
