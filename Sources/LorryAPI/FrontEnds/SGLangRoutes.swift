import HTTPTypes
import Hummingbird
import LorryModel
import LorryRegistry
import LorryText

/// SGLang's native routes, after `sglang/srt/entrypoints/http_server.py`.
extension APIRouter {
    mutating func addSGLangRoutes(_ services: APIServices) {
        on(.post, "/load_lora_adapter", .role(.admin)) { call in
            try await services.loadSGLangAdapter(call)
        }
        on(.post, "/unload_lora_adapter", .role(.admin)) { call in
            try await services.unloadSGLangAdapter(call)
        }
        for path in ["/get_model_info", "/model_info"] {
            on(.get, path, .role(.inference)) { _ in .json(services.sgLangModel) }
        }
        on(.get, "/health_generate", .role(.inference)) { call in
            try await services.generateForHealth(call)
        }
    }

    /// `POST /generate` is SGLang's and LoRAX's; the field that holds the prompt tells whose.
    mutating func addGenerateRoute(_ services: APIServices) {
        on(.post, "/generate", .role(.inference)) { call in
            let reader = try await call.request.jsonObject(byteLimit: services.limits.jsonByteCount)
            if reader.value("inputs") != nil {
                return try await telling(errorsAs: .loRAX) {
                    try await services.generateAsLoRAX(call, reader, .generate)
                }
            }
            return try await services.generateAsSGLang(call, reader)
        }
    }
}

// MARK: - Generating

extension APIServices {
    fileprivate func generateAsSGLang(_ call: Call, _ reader: FieldReader) async throws -> Response
    {
        let input = try SGLangRequest.Input(reader)
        try GenerationOrder.checkPromptCount(input.values.count, input.field, reader)
        let choices = try SGLangRequest.choices(reader, count: input.values.count)
        var models: [ServedModel] = []
        for choice in choices {
            models.append(try resolve(ModelSelection(choice), for: call.principal))
        }
        let vocabularySize = models.map(vocabularySize(of:)).min() ?? engine.vocabularySize
        let request = try SGLangRequest(reader, input, vocabularySize: vocabularySize)
        var order = GenerationOrder(
            request.fields,
            zip(request.sources, models).map { GenerationOrder.Prompt(source: $0, model: $1) })
        order.defaultMaximumTokenCount = SGLangRequest.defaultMaximumTokenCount
        order.maximumField = "sampling_params.max_new_tokens"
        order.promptField = input.field
        order.logprobCount = request.logprobCount
        order.promptLogprobCount = request.logprobStart == nil ? nil : request.logprobCount
        return try await generate(order, call, reader) { plan in
            SGLangAnswer(id: call.id, request: request, models: plan.models, prompts: plan.prompts)
        }
    }

    /// One token of the base model, as proof that the whole way works.
    fileprivate func generateForHealth(_ call: Call) async throws -> Response {
        var fields = GenerationFields()
        fields.maximumTokenCount = 1
        let order = GenerationOrder(fields, [.text("s")], for: baseModel)
        let reader = FieldReader(object: .empty)
        _ = try await generate(order, call, reader) { plan in
            SGLangAnswer(
                id: call.id, request: SGLangRequest(plan.fields), models: plan.models,
                prompts: plan.prompts)
        }
        return Response(status: .ok)
    }

    fileprivate var sgLangModel: JSON {
        [
            "model_path": .string(card.name), "tokenizer_path": .string(card.name),
            "is_generation": true, "preferred_sampling_params": nil, "weight_version": "base",
            "has_image_understanding": false, "has_audio_understanding": false,
        ]
    }
}

// MARK: - Adapters

extension APIServices {
    fileprivate func loadSGLangAdapter(_ call: Call) async throws -> Response {
        let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let name = try fields.required("lora_name")
        let path = try fields.required("lora_path")
        let isPinned = try fields.bool("pinned") ?? false
        return try await changed(for: call.principal) { changes in
            if isPinned { try changes.checkPin(name) }
            do throws(FolderLoad.Failure) {
                _ = try await FolderLoad(services: self, principal: call.principal).add(
                    name: name, path: path, replaces: false)
            } catch .nameIsTaken {
                throw APIError(.badRequest, "LoRA with name \(name) already exists.")
            } catch .noFolder {
                throw APIError(
                    .badRequest, "Failed to load LoRA adapter \(name): nothing at \(path)")
            } catch .refused(let error) {
                throw RegistryError(
                    error.kind, "Failed to load LoRA adapter \(name): \(error.message)")
            }
            if isPinned { _ = try await changes.apply(.pin, name: name) }
        }
    }

    fileprivate func unloadSGLangAdapter(_ call: Call) async throws -> Response {
        let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let name = try fields.required("lora_name")
        return try await changed(for: call.principal) { changes in
            do throws(RegistryError) {
                _ = try await changes.remove(name: name, expecting: .none)
            } catch {
                guard error.kind == .notFound else { throw error }
                throw APIError(.badRequest, "LoRA with name \(name) does not exist.")
            }
        }
    }

    /// Answers a change, or its failure, with the adapters that there are after it.
    private func changed(
        for principal: Principal, _ change: (AdapterChanges) async throws -> Void
    ) async throws -> Response {
        do {
            try await change(AdapterChanges(self, for: principal))
        } catch let error as CancellationError {
            throw error
        } catch {
            throw FormedError(form: .sgLangAdapters(loaded(by: principal)), underlying: error)
        }
        return .json(ErrorForm.sgLangAdapters(loaded(by: principal), failure: ""))
    }

    /// The tenant's own, as administrators see them.
    private func loaded(by principal: Principal) -> [String] {
        visibleAdapters(for: principal).filter { $0.tenant == principal.tenant }.map(\.name)
    }
}

extension FieldReader {
    fileprivate func required(_ key: String) throws(APIError) -> String {
        guard let text = try string(key), !text.isEmpty else { throw fail(key, "is required.") }
        return text
    }
}
