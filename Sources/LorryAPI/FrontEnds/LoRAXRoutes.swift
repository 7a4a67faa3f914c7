import Hummingbird
import LorryModel

/// LoRAX's own routes, after its `router/src/server.rs`. `POST /generate` is registered beside
/// SGLang's.
extension APIRouter {
    mutating func addLoRAXRoutes(_ services: APIServices) {
        on(.post, "/", .role(.inference), errors: .loRAX) { call in
            let reader = try await call.request.jsonObject(byteLimit: services.limits.jsonByteCount)
            let streams = try reader.bool("stream") ?? false
            return try await services.generateAsLoRAX(
                call, reader, streams ? .generateStream : .compatible)
        }
        on(.post, "/generate_stream", .role(.inference), errors: .loRAX) { call in
            let reader = try await call.request.jsonObject(byteLimit: services.limits.jsonByteCount)
            return try await services.generateAsLoRAX(call, reader, .generateStream)
        }
        on(.get, "/info", .role(.inference), errors: .loRAX) { _ in .json(services.loRAXProperties)
        }
    }
}

extension APIServices {
    func generateAsLoRAX(
        _ call: Call, _ reader: FieldReader, _ route: LoRAXRequest.Route
    ) async throws -> Response {
        let parameters = try reader.fields("parameters") ?? FieldReader(object: .empty)
        let choice = try LoRAXRequest.choice(parameters)
        let model = try resolve(ModelSelection(choice), for: call.principal)
        let request = try LoRAXRequest(
            reader, parameters, route, vocabularySize: vocabularySize(of: model))
        var order = GenerationOrder(request.fields, [.text(request.inputs)], for: model)
        order.options.keptTokenCount = request.keptTokenCount
        order.maximumField = "parameters.max_new_tokens"
        order.promptField = "inputs"
        order.logprobCount = request.logprobCount
        order.promptLogprobCount = request.showsPrefill ? 0 : nil
        return try await generate(order, call, reader) { plan in
            LoRAXAnswer(request: request, model: model, prompts: plan.prompts)
        }
    }

    fileprivate var loRAXProperties: JSON {
        [
            "model_id": .string(card.name), "model_sha": nil, "model_device_type": "cpu",
            "model_pipeline_tag": "text-generation",
            "max_best_of": .integer(GenerationFields.maximumAnswerCount),
            "max_stop_sequences": .integer(GenerationFields.maximumStopStringCount),
            "max_input_length": .integer(engine.maximumContextLength - 1),
            "max_total_tokens": .integer(engine.maximumContextLength),
            "version": .string(version), "sha": nil, "docker_label": nil,
            "request_logger_url": nil,
        ]
    }
}
