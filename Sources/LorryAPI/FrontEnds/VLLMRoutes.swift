import HTTPTypes
import Hummingbird
import LorryEngine
import LorryRegistry

/// vLLM's routes beside those that it shares with OpenAI, after `vllm/entrypoints/serve`.
extension APIRouter {
    mutating func addVLLMRoutes(_ services: APIServices) {
        on(.post, "/v1/load_lora_adapter", .role(.admin)) { call in
            try await services.loadVLLMAdapter(call)
        }
        on(.post, "/v1/unload_lora_adapter", .role(.admin)) { call in
            try await services.unloadVLLMAdapter(call)
        }
        on(.get, "/load", .role(.metrics)) { _ in
            let statistics = services.engine.statistics()
            let count = statistics.runningCount + statistics.waitingCount
            return .json(["server_load": .integer(count)])
        }
    }
}

extension APIServices {
    fileprivate func loadVLLMAdapter(_ call: Call) async throws -> Response {
        let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        guard let name = try fields.string("lora_name"), !name.isEmpty,
            let path = try fields.string("lora_path"), !path.isEmpty
        else {
            throw Self.userError("Both 'lora_name' and 'lora_path' must be provided.")
        }
        try fields.refuse(["is_3d_lora_weight"], zeroIsOff: true)
        let replaces = try fields.bool("load_inplace") ?? false
        do throws(FolderLoad.Failure) {
            _ = try await FolderLoad(services: self, principal: call.principal).add(
                name: name, path: path, replaces: replaces)
        } catch .nameIsTaken {
            throw Self.userError(
                "The lora adapter '\(name)' has already been loaded. If you want to load the "
                    + "adapter in place, set 'load_inplace' to True.")
        } catch .noFolder {
            throw APIError(.notFound, "Loading lora \(name) failed: No adapter found for \(path)")
        } catch .refused(let error) {
            // The base model's name.
            throw error.kind == .conflict ? Self.userError(error.message) : APIError(error)
        }
        return .text("Success: LoRA adapter '\(name)' added successfully.")
    }

    fileprivate func unloadVLLMAdapter(_ call: Call) async throws -> Response {
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
