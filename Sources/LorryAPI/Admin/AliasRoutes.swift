import HTTPTypes
import Hummingbird
import LorryRegistry

/// Aliases: other names for adapters, which can be moved from one adapter or version to another.
extension APIRouter {
    mutating func addAliasRoutes(_ services: APIServices) {
        on(.get, "/admin/aliases", .role(.admin)) { call in try services.listAliases(call) }
        on(.get, "/admin/aliases/{name}", .role(.admin)) { call in
            let name = call.parameter("name")
            let alias = try services.registry.alias(name: name, tenant: call.principal.tenant)
            guard call.principal.mayUse(adapter: alias.adapter, as: name) else {
                throw RegistryError.noAlias(named: name)
            }
            return Self.answer(alias)
        }
        on(.put, "/admin/aliases/{name}", .role(.admin)) { call in
            let fields = try await call.request.jsonObject(
                byteLimit: services.limits.jsonByteCount)
            guard let target = try fields.string("adapter") else {
                throw fields.fail("adapter", "is required.")
            }
            let (alias, created) = try await AdapterChanges(services, for: call.principal)
                .setAlias(
                    call.parameter("name"), to: target,
                    expecting: Precondition(call.request.headers))
            return Self.answer(alias, status: created ? .created : .ok)
        }
        on(.delete, "/admin/aliases/{name}", .role(.admin)) { call in
            Self.answer(
                try await AdapterChanges(services, for: call.principal).removeAlias(
                    call.parameter("name"), expecting: Precondition(call.request.headers)))
        }
    }

    private static func answer(
        _ alias: AdapterAlias, status: HTTPResponse.Status = .ok
    ) -> Response {
        .json(JSON(alias), status: status, headers: [.eTag: alias.entityTag])
    }
}

/// Uploads under way, for whoever waits for a large one.
extension APIRouter {
    mutating func addUploadRoute(_ services: APIServices) {
        on(.get, "/admin/uploads", .role(.admin)) { call in
            let tenants = call.visibleTenants
            let uploads = services.registry.uploads().filter { upload in
                (tenants.map { $0.contains(upload.key?.tenant ?? "") } ?? true)
                    && call.principal.mayUse(adapter: upload.key?.name ?? "")
            }
            return .json(["uploads": .array(uploads.map { JSON($0) })])
        }
    }
}

extension Call {
    /// Whose adapters an admin key sees: those of its tenant; nil, for the shared tenant's, all.
    var visibleTenants: Set<String>? {
        principal.tenant == AdapterKey.sharedTenant ? nil : [principal.tenant]
    }
}

extension APIServices {
    fileprivate func listAliases(_ call: Call) throws(APIError) -> Response {
        let limit = try call.pageLimit(default: 1000)
        let (after, prefix) = (call.listPosition, call.query("prefix"))
        let adapter = call.query("adapter")
        let matching = registry.aliases(of: call.visibleTenants).filter { alias in
            call.principal.mayUse(adapter: alias.adapter, as: alias.name)
                && (after.map { $0 < alias.key } ?? true)
                && (prefix.map(alias.name.hasPrefix) ?? true)
                && (adapter.map { $0 == alias.adapter } ?? true)
        }
        let page = matching.prefix(limit)
        return .json([
            "aliases": .array(page.map { JSON($0) }),
            "next": .optional(page.count < matching.count ? page.last?.key.listPosition : nil),
            "remaining": .integer(matching.count - page.count),
        ])
    }
}
