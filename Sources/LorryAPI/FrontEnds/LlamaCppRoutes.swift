import HTTPTypes
import Hummingbird
import LorryEngine
import LorryModel
import LorryRegistry
import LorryText

/// The routes of llama.cpp's server that OpenAI's API has not, after `tools/server/README.md`.
extension APIRouter {
    mutating func addLlamaCppRoutes(_ services: APIServices) {
        for path in ["/completion", "/completions"] {
            on(.post, path, .role(.inference), errors: .llamaCpp) { call in
                try await services.completeAsLlamaCpp(call)
            }
        }
        on(.post, "/apply-template", .role(.inference), errors: .llamaCpp) { call in
            let reader = try await call.request.jsonObject(byteLimit: services.limits.jsonByteCount)
            let model = try services.resolve(ModelSelection(reader), for: call.principal)
            let text = try await Conversation(reader).rendered(with: model.text)
            return .json(["prompt": .string(text)])
        }
        on(.get, "/props", .role(.inference), errors: .llamaCpp) { _ in
            .json(services.llamaCppProperties)
        }
        on(.get, "/lora-adapters", .role(.inference), errors: .llamaCpp) { call in
            services.listOfScales(for: call.principal)
        }
        on(.post, "/lora-adapters", .role(.admin), errors: .llamaCpp) { call in
            try await services.setDefaultScales(call)
        }
    }
}

// MARK: - Generating

extension APIServices {
    fileprivate func completeAsLlamaCpp(_ call: Call) async throws -> Response {
        let reader = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let model = try resolve(ModelSelection(reader), for: call.principal)
        let request = try LlamaCppRequest(
            reader, model.text.tokenizer, vocabularySize: vocabularySize(of: model))
        var order = GenerationOrder(request.fields, request.prompts, for: model)
        order.options.showsText = true
        order.options.skipsSpecialTokens = false
        order.maximumField = "n_predict"
        order.logprobCount = request.logprobCount
        let contextLength = engine.maximumContextLength
        return try await generate(order, call, reader) { plan in
            LlamaCppAnswer(
                request: request, model: model, prompts: plan.prompts, contextLength: contextLength)
        }
    }

    fileprivate var llamaCppProperties: JSON {
        let contextLength = engine.maximumContextLength
        return [
            "default_generation_settings": [
                "n_ctx": .integer(contextLength),
                "params": LlamaCppRequest.settings(LlamaCppRequest.defaults),
            ],
            "total_slots": .integer(engine.statistics().maximumRunningCount),
            "model_alias": .string(card.name), "model_path": .string(card.name),
            "chat_template": .string(text.template?.source ?? ""),
            "bos_token": .string(text.tokenizer.bosToken ?? ""),
            "eos_token": .string(text.tokenizer.eosToken ?? ""),
            "modalities": ["vision": false, "audio": false],
            "build_info": .string("lorry \(version)"), "is_sleeping": false,
        ]
    }
}

// MARK: - Tokens

extension APIServices {
    /// llama.cpp's form of `POST /tokenize`, told from vLLM's by the field `content`.
    func tokenizeAsLlamaCpp(
        _ content: String, _ reader: FieldReader, _ text: TextCodec
    ) async throws -> Response {
        guard try reader.bool("parse_special") ?? true else {
            throw reader.fail("parse_special", "may only be true.")
        }
        let tokens = await text.tokens(
            of: content, addingSpecialTokens: try reader.bool("add_special") ?? false)
        guard try reader.bool("with_pieces") ?? false else {
            return .json(["tokens": .tokenIDs(tokens)])
        }
        let pieces = tokens.map { id -> JSON in
            let bytes = text.tokenizer.pieceBytes(id)
            // What is no whole text is told as bytes.
            let piece = String(validating: bytes, as: UTF8.self).map { JSON.string($0) }
            return [
                "id": .integer(Int(id)),
                "piece": piece ?? .array(bytes.map { .integer(Int($0)) }),
            ]
        }
        return .json(["tokens": .array(pieces)])
    }
}

// MARK: - Scales

extension APIServices {
    /// `GET /lora-adapters`, whose entity tag stands for what its ids mean.
    fileprivate func listOfScales(for principal: Principal) -> Response {
        let records = visibleAdapters(for: principal)
        var scales: [String: Float] = [:]
        for summand in defaultScales[principal.tenant] ?? [] {
            guard case .named(let reference) = summand.adapter else { continue }
            scales[String(reference.prefix { $0 != "@" }), default: 0] += summand.scale
        }
        let list = records.enumerated().map { position, record -> JSON in
            [
                "id": .integer(position), "path": .string(record.name),
                "scale": .float(scales[record.name] ?? 0),
            ]
        }
        return .json(.array(list), headers: [.eTag: "\"\(Self.positionTag(records))\""])
    }

    private static func positionTag(_ records: [AdapterRecord]) -> String {
        let names = records.map(\.name).joined(separator: "\n")
        return LorryEngine.AdapterVersionID(hashing: "lorry-positions 1\n\(names)").digest
    }

    /// `POST /lora-adapters`: adapters that are not listed have scale 0, as in llama.cpp.
    fileprivate func setDefaultScales(_ call: Call) async throws -> Response {
        let body = try await call.request.json(byteLimit: limits.jsonByteCount)
        guard let entries = body.arrayValue else {
            throw APIError(
                .badRequest, "The body must be an array of objects with 'id' and 'scale'.")
        }
        guard call.principal.allowedAdapters == nil else {
            throw APIError(
                .forbidden,
                "The scales are those of all the tenant's requests: a key with a list of adapters "
                    + "may not set them.")
        }
        let records = visibleAdapters(for: call.principal)
        let wanted = Precondition(call.request.headers).ifMatch
        guard wanted?.contains(Self.positionTag(records)) ?? true else {
            throw APIError(
                .preconditionFailed, "If-Match does not hold: the adapters have changed.")
        }
        let list = "adapters"
        var summands = try ModelSelection.summands(entries, of: list)
        let leases = try leases(
            summands.map(\.adapter), of: list, call.principal, among: records)
        for (index, lease) in leases.enumerated() {
            var name = lease.record.name
            // A version that was named is meant.
            if case .named(let wanted) = summands[index].adapter {
                name += wanted.drop { $0 != "@" }
            }
            summands[index].adapter = .named(name)
        }
        summands.removeAll { $0.scale == 0 }
        // What cannot be summed is refused here, not at every request.
        _ = try sumModel(summands, call.principal, of: list)
        try await AdapterChanges(self, for: call.principal).note(summands)
        defaultScales[call.principal.tenant] = summands.isEmpty ? nil : summands
        return .json(["success": true])
    }
}

extension AdapterChanges {
    fileprivate func note(_ summands: [ModelSelection.Summand]) async throws(RegistryError) {
        let parts = summands.map { summand -> String in
            guard case .named(let name) = summand.adapter else { return "" }
            return "\(name)=\(summand.scale)"
        }
        try await services.registry.note(
            .scales, detail: parts.joined(separator: " "), tenant: tenant, actor: actor)
    }
}
