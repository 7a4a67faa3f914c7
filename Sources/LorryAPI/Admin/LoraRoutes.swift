import Foundation
import HTTPTypes
import Hummingbird
import LorryModel
import LorryRegistry

/// The routes by which vLLM, SGLang and llama.cpp manage adapters, over the same registry.
extension APIRouter {
    mutating func addLoraRoutes(_ services: APIServices) {
        on(.post, "/v1/load_lora_adapter", .role(.admin)) { call in
            try await services.loadLora(call)
        }
        on(.post, "/v1/unload_lora_adapter", .role(.admin)) { call in
            try await services.unloadLora(call)
        }
        on(.get, "/lora-adapters", .role(.inference)) { call in
            let records = services.visibleAdapters(for: call.principal)
            return .json(
                .array(
                    records.enumerated().map { position, record in
                        ["id": .integer(position), "path": .string(record.name), "scale": 0]
                    }))
        }
    }
}

extension APIServices {
    fileprivate func loadLora(_ call: Call) async throws -> Response {
        let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        guard let name = try fields.string("lora_name"), !name.isEmpty,
            let path = try fields.string("lora_path"), !path.isEmpty
        else {
            throw Self.userError("Both 'lora_name' and 'lora_path' must be provided.")
        }
        let changes = AdapterChanges(self, for: call.principal)
        try changes.checkAddition(name)
        let replaces = try fields.bool("load_inplace") ?? false
        let tenant = call.principal.tenant
        let known = try? registry.record(name: name, tenant: tenant)
        guard replaces || known == nil else {
            throw Self.userError(
                "The lora adapter '\(name)' has already been loaded. If you want to load the "
                    + "adapter in place, set 'load_inplace' to True.")
        }
        guard let folder = try? LocalFolder.resolve(path, below: allowedRoots) else {
            throw APIError(.notFound, "Loading lora \(name) failed: No adapter found for \(path)")
        }
        let upload = try await stagedFolder(folder, for: name, changes)
        _ = try await changes.add(
            name: name, from: upload,
            expecting: replaces ? .none : Precondition(ifNoneMatch: .any))
        return .text("Success: LoRA adapter '\(name)' added successfully.")
    }

    private func stagedFolder(
        _ folder: URL, for name: String, _ changes: AdapterChanges
    ) async throws(RegistryError) -> AdapterUpload {
        let upload = try changes.makeUpload(for: name)
        do {
            try await upload.copyFolder(folder)
        } catch {
            await upload.discard()
            throw error
        }
        return upload
    }

    fileprivate func unloadLora(_ call: Call) async throws -> Response {
        let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        guard let name = try fields.string("lora_name"), !name.isEmpty else {
            throw Self.userError("'lora_name' needs to be provided to unload a LoRA adapter.")
        }
        do {
            _ = try await AdapterChanges(self, for: call.principal).remove(
                name: name, expecting: .none)
        } catch {
            guard error.kind == .notFound else { throw error }
            throw APIError(.notFound, "The lora adapter '\(name)' cannot be found.")
        }
        return .text("Success: LoRA adapter '\(name)' removed successfully.")
    }

    private static func userError(_ message: String) -> APIError {
        APIError(.badRequest, type: "InvalidUserInput", message)
    }
}
