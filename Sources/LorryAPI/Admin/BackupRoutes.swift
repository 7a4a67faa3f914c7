import HTTPTypes
import Hummingbird
import Logging
import LorryRegistry

/// Backup and check of the whole state directory. They show every tenant's adapters, so that only
/// admin keys of the tenant `default` without a list of adapters may use them.
extension APIRouter {
    mutating func addBackupRoutes(_ services: APIServices) {
        on(.post, "/admin/backup", .role(.admin)) { call in try await services.backUp(call) }
        on(.post, "/admin/check", .role(.admin)) { call in
            try call.requireSharedTenant()
            return .json(JSON(try await services.registry.report(actor: call.principal.actor)))
        }
    }
}

extension APIServices {
    /// What fails once the answer has begun cuts it off: an archive without its manifest is refused
    /// by whoever reads it.
    fileprivate func backUp(_ call: Call) async throws -> Response {
        try call.requireSharedTenant()
        let backup = try await registry.makeBackup(actor: call.principal.actor)
        let logger = call.context.logger
        let body = ResponseBody { writer in
            do {
                while let bytes = try await backup.next() {
                    if !bytes.isEmpty { try await writer.write(ByteBuffer(bytes: bytes)) }
                }
            } catch {
                // Else the client has gone away.
                if error is RegistryError {
                    logger.error("backup ended early", metadata: ["error": "\(error)"])
                }
                throw error
            }
            try await writer.finish(nil)
        }
        let headers: HTTPFields = [
            .contentType: "application/x-tar", .cacheControl: "no-store",
            .contentDisposition: "attachment; filename=\"lorry-backup.tar\"",
            .estimatedByteCount: "\(backup.estimatedByteCount)",
        ]
        return Response(status: .ok, headers: headers, body: body)
    }
}

extension Call {
    fileprivate func requireSharedTenant() throws(APIError) {
        guard principal.tenant == AdapterKey.sharedTenant, principal.allowedAdapters == nil else {
            throw APIError(
                .forbidden,
                "Only admin keys of the tenant '\(AdapterKey.sharedTenant)' without a list of "
                    + "adapters may do this.")
        }
    }
}

extension JSON {
    fileprivate init(_ report: StateReport) {
        self = [
            "names": .integer(report.nameCount), "versions": .integer(report.versionCount),
            "bytes": .integer(report.byteCount),
            "problems": .array(report.problems.map { .string($0) }),
            "leftovers": .array(report.leftovers.map { .string($0) }),
        ]
    }
}
