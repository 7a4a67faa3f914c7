import Foundation
import Hummingbird
import LorryText

extension APIRouter {
    mutating func addChatRoute(_ services: APIServices) {
        on(.post, "/v1/chat/completions", .role(.inference)) { call in
            try await services.chat(call)
        }
    }
}

extension APIServices {
    func chat(_ call: Call) async throws -> Response {
        let reader = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let model = try resolve(ModelSelection(reader), for: call.principal)
        let request = try ChatRequest(reader, vocabularySize: vocabularySize(of: model))
        var order = GenerationOrder(
            request.fields, [.conversation(request.conversation)], for: model)
        order.promptField = "messages"
        order.logprobCount = request.logprobCount
        return try await generate(order, call, reader) { plan in
            ChatAnswer(
                id: "chatcmpl-\(call.id)", created: Int(Date.now.timeIntervalSince1970),
                model: model.name, fields: request.fields, logprobCount: request.logprobCount,
                promptTokens: plan.prompts.flatMap(\.tokens),
                names: TokenNames(
                    tokenizer: model.text.tokenizer, byID: request.fields.namesTokensByID))
        }
    }
}
