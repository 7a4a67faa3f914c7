import Foundation
import HTTPTypes
import Hummingbird
import LorryEngine
import LorryRegistry

extension APIRouter {
    mutating func addAdapterRoutes(_ services: APIServices) {
        on(.get, "/admin/adapters", .role(.admin)) { call in try services.listAdapters(call) }
        on(.put, "/admin/adapters/{name}", .role(.admin)) { call in
            try await services.putAdapter(call)
        }
        on(.get, "/admin/adapters/{name}", .role(.admin)) { call in
            let record = try services.record(call)
            let wanted = Precondition(call.request.headers).ifNoneMatch
            if let wanted, wanted.contains(record.version.digest) {
                return Response(status: .notModified, headers: [.eTag: record.entityTag])
            }
            return services.answer(record)
        }
        on(.delete, "/admin/adapters/{name}", .role(.admin)) { call in
            let record = try await AdapterChanges(services, for: call.principal).remove(
                name: call.parameter("name"), expecting: Precondition(call.request.headers))
            return services.answer(record)
        }
        on(.get, "/admin/adapters/{name}/versions", .role(.admin)) { call in
            let name = call.parameter("name")
            let versions = try services.registry.versions(
                name: name, tenant: call.principal.tenant)
            return .json(["name": .string(name), "versions": .array(versions.map { JSON($0) })])
        }
        for change in AdapterChanges.Switch.allCases {
            on(.post, "/admin/adapters/{name}/\(change.rawValue)", .role(.admin)) { call in
                let record = try await AdapterChanges(services, for: call.principal).apply(
                    change, name: call.parameter("name"))
                return services.answer(record)
            }
        }
        on(.post, "/admin/adapters/{name}/rollback", .role(.admin)) { call in
            try await services.rollBack(call)
        }
        on(.post, "/admin/adapters/{name}/merge", .role(.admin)) { call in
            try await services.merge(call)
        }
    }
}

extension APIServices {
    private var residentVersions: Set<String> {
        Set(engine.statistics().residentAdapters.map(\.id.digest))
    }

    fileprivate func record(_ call: Call) throws(RegistryError) -> AdapterRecord {
        try registry.record(name: call.parameter("name"), tenant: call.principal.tenant)
    }

    func answer(
        _ record: AdapterRecord, status: HTTPResponse.Status = .ok, ignoredFiles: [String] = []
    ) -> Response {
        let isResident = residentVersions.contains(record.version.digest)
        guard case .object(var members) = JSON(record, isResident: isResident) else {
            return .json(.null)
        }
        if !ignoredFiles.isEmpty {
            members.append(("ignoredFiles", .array(ignoredFiles.map { .string($0) })))
        }
        return .json(
            .object(members), status: status,
            headers: [
                .eTag: record.entityTag, .adapterVersion: record.version.digest,
            ])
    }

    fileprivate func putAdapter(_ call: Call) async throws -> Response {
        let body = try AdapterUploadBody(call.request)
        let changes = AdapterChanges(self, for: call.principal)
        let name = call.parameter("name")
        try changes.checkAddition(name)
        let upload = try changes.makeUpload(
            for: name, byteCount: call.request.headers[.contentLength].flatMap { Int($0) })
        do {
            try await body.write(call.request, to: upload, self)
        } catch {
            await upload.discard()
            throw error
        }
        let outcome = try await changes.add(
            name: name, from: upload,
            expecting: Precondition(call.request.headers))
        return answer(
            outcome.record, status: outcome.created ? .created : .ok,
            ignoredFiles: outcome.ignoredFiles)
    }

    fileprivate func rollBack(_ call: Call) async throws -> Response {
        var version: String?
        if call.request.contentType != nil {
            let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
            version = try fields.string("version")
        }
        let record = try await AdapterChanges(self, for: call.principal).rollBack(
            name: call.parameter("name"), to: version,
            expecting: Precondition(call.request.headers))
        return answer(record)
    }

    /// Pages by `limit` and `after`, a name; `next` is what to ask for as `after`.
    ///
    /// The shared tenant's keys see every tenant's adapters, other keys their own.
    fileprivate func listAdapters(_ call: Call) throws(APIError) -> Response {
        var query = ListQuery()
        query.tenants = call.visibleTenants
        query.names = call.principal.allowedAdapters
        query.method = call.query("method")
        query.namePrefix = call.query("prefix")
        if let text = call.query("state") {
            guard let state = AdapterState(rawValue: text) else {
                let states = AdapterState.allCases.map(\.rawValue).joined(separator: ", ")
                throw .invalid("state", "state must be one of \(states).")
            }
            // What is in memory, only the engine knows.
            query.state = state == .resident ? .ready : state
            query.versions = state == .resident ? residentVersions : nil
        }
        query.limit = try call.pageLimit(default: 1000)
        query.after = call.listPosition
        let page = registry.list(query)
        let resident = residentVersions
        return .json([
            "adapters": .array(
                page.adapters.map { JSON($0, isResident: resident.contains($0.version.digest)) }),
            "next": .optional(page.next?.listPosition),
            "remaining": .integer(page.remainingCount),
        ])
    }
}

extension AdapterKey {
    /// What a list's `next` says of the entry where a page ended.
    var listPosition: String { "\(tenant)/\(name)" }
}

extension Call {
    /// Where the page before ended: `next` of that page, or a name.
    var listPosition: AdapterKey? {
        query("after").map { text in
            let parts = text.split(separator: "/", maxSplits: 1).map(String.init)
            return AdapterKey(
                name: parts.last ?? "", tenant: parts.count == 2 ? parts[0] : principal.tenant)
        }
    }

    func pageLimit(default standard: Int) throws(APIError) -> Int {
        guard let text = query("limit") else { return standard }
        guard let limit = Int(text), (1...10_000).contains(limit) else {
            throw .invalid("limit", "limit must be between 1 and 10000.")
        }
        return limit
    }

    func eventID(_ name: String) throws(APIError) -> Int64? {
        guard let text = query(name) else { return nil }
        guard let id = Int64(text), id >= 0 else {
            throw .invalid(name, "\(name) must be an event's id.")
        }
        return id
    }
}
