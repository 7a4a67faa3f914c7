import Foundation
import Hummingbird
import LorryText

extension APIRouter {
    mutating func addCompletionRoute(_ services: APIServices) {
        on(.post, "/v1/completions", .role(.inference)) { call in
            try await services.complete(call)
        }
    }
}

extension APIServices {
    func complete(_ call: Call) async throws -> Response {
        let reader = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let model = try resolve(ModelSelection(reader), for: call.principal)
        let request = try CompletionRequest(reader, vocabularySize: vocabularySize(of: model))
        var order = GenerationOrder(request.fields, request.prompts, for: model)
        order.options = PromptSource.Options(
            addsSpecialTokens: request.addsSpecialTokens, showsText: request.echoes,
            skipsSpecialTokens: request.fields.skipsSpecialTokens)
        order.defaultMaximumTokenCount = CompletionRequest.defaultMaximumTokenCount
        order.logprobCount = request.logprobCount
        order.promptLogprobCount = request.echoes ? request.logprobCount : nil
        return try await generate(order, call, reader) { plan in
            CompletionAnswer(
                id: "cmpl-\(call.id)", created: Int(Date.now.timeIntervalSince1970),
                model: model.name, request: request, prompts: plan.prompts,
                names: TokenNames(
                    tokenizer: model.text.tokenizer, byID: request.fields.namesTokensByID))
        }
    }
}
