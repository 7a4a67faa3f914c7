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
        let account = RequestAccount(
            self, adapter: model.adapterName, principal: call.principal)
        do {
            return try await chat(call, reader, request, model, account)
        } catch {
            account.close(error)
            throw error
        }
    }

    private func chat(
        _ call: Call, _ reader: FieldReader, _ request: ChatRequest, _ model: ServedModel,
        _ account: RequestAccount
    ) async throws -> Response {
        let patience = try ClientPatience(reader, call.request.headers)
        let count = request.fields.candidateCount
        let (reservation, share) = try reserve(
            count, tokenCount: request.conversation.estimatedTokenCount * count,
            for: call.principal)
        let text = try request.conversation.rendered(with: model.text)
        let tokens = await model.text.tokens(
            of: text, addingSpecialTokens: request.conversation.addsSpecialTokens)
        let prompt = TokenizedPrompt(text: text, tokens: tokens)
        var plan = GenerationPlan(
            id: call.id, principal: call.principal, model: model, fields: request.fields,
            prompts: [prompt], defaultMaximumTokenCount: nil,
            maximumField: "max_tokens", promptField: "messages")
        plan.logprobCount = request.logprobCount
        plan.deadline = patience.deadline
        let running = try submit(plan, reservation, share)
        let format = ChatAnswer(
            id: "chatcmpl-\(call.id)", created: Int(Date.now.timeIntervalSince1970),
            model: model.name, fields: request.fields, logprobCount: request.logprobCount,
            prompt: prompt,
            names: TokenNames(
                tokenizer: model.text.tokenizer, byID: request.fields.namesTokensByID))
        return try await AnswerResponses(plan: plan, account: account).respond(running, as: format)
    }
}
