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
        let account = RequestAccount(
            self, adapter: model.adapterName, principal: call.principal)
        do {
            return try await complete(call, reader, request, model, account)
        } catch {
            account.close(error)
            throw error
        }
    }

    private func complete(
        _ call: Call, _ reader: FieldReader, _ request: CompletionRequest, _ model: ServedModel,
        _ account: RequestAccount
    ) async throws -> Response {
        let count = request.prompts.count * request.fields.candidateCount
        let patience = try ClientPatience(reader, call.request.headers)
        let tokenCount = request.estimatedTokenCount * request.fields.candidateCount
        let (reservation, share) = try reserve(
            count, tokenCount: tokenCount, for: call.principal)
        var prompts: [TokenizedPrompt] = []
        for prompt in request.prompts {
            prompts.append(await tokenize(prompt, request, model.text))
        }
        var plan = GenerationPlan(
            id: call.id, principal: call.principal, model: model, fields: request.fields,
            prompts: prompts,
            defaultMaximumTokenCount: CompletionRequest.defaultMaximumTokenCount,
            maximumField: "max_tokens", promptField: "prompt")
        plan.logprobCount = request.logprobCount
        plan.promptLogprobCount = request.echoes ? request.logprobCount : nil
        plan.deadline = patience.deadline
        let running = try submit(plan, reservation, share)
        let format = CompletionAnswer(
            id: "cmpl-\(call.id)", created: Int(Date.now.timeIntervalSince1970), model: model.name,
            request: request, prompts: prompts,
            names: TokenNames(
                tokenizer: model.text.tokenizer, byID: request.fields.namesTokensByID))
        return try await AnswerResponses(plan: plan, account: account).respond(running, as: format)
    }

    private func tokenize(
        _ prompt: CompletionRequest.Prompt, _ request: CompletionRequest, _ text: TextCodec
    ) async -> TokenizedPrompt {
        switch prompt {
        case .text(let string):
            let tokens = await text.tokens(
                of: string, addingSpecialTokens: request.addsSpecialTokens)
            return TokenizedPrompt(text: string, tokens: tokens)
        case .tokens(let ids):
            guard request.echoes else { return TokenizedPrompt(text: "", tokens: ids) }
            let string = text.tokenizer.decode(
                ids, skipSpecialTokens: request.fields.skipsSpecialTokens)
            return TokenizedPrompt(text: string, tokens: ids)
        }
    }
}
