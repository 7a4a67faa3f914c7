import Hummingbird
import LorryText

extension APIRouter {
    mutating func addTokenizeRoutes(_ services: APIServices) {
        on(.post, "/tokenize", .role(.inference)) { call in try await services.tokenize(call) }
        on(.post, "/detokenize", .role(.inference)) { call in try await services.detokenize(call) }
    }
}

extension APIServices {
    fileprivate func tokenize(_ call: Call) async throws -> Response {
        let reader = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let model = try resolve(ModelSelection(reader), for: call.principal)
        if let content = try reader.string("content") {
            return try await tokenizeAsLlamaCpp(content, reader, model.text)
        }
        let tokens: [Int32]
        if reader.value("messages") != nil {
            let conversation = try Conversation(reader)
            tokens = await model.text.tokens(
                of: try conversation.rendered(with: model.text),
                addingSpecialTokens: conversation.addsSpecialTokens)
        } else {
            guard let prompt = try reader.string("prompt") else {
                throw reader.fail("prompt", "messages or content is required.")
            }
            tokens = await model.text.tokens(
                of: prompt, addingSpecialTokens: try reader.bool("add_special_tokens") ?? true)
        }
        var pieces = JSON.null
        if try reader.bool("return_token_strs") == true {
            pieces = .array(tokens.map { .optional(model.text.tokenizer.piece($0)) })
        }
        return .json([
            "count": .integer(tokens.count),
            "max_model_len": .integer(engine.maximumContextLength),
            "tokens": .tokenIDs(tokens), "token_strs": pieces,
        ])
    }

    fileprivate func detokenize(_ call: Call) async throws -> Response {
        let reader = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let model = try resolve(ModelSelection(reader), for: call.principal)
        let ids = try reader.tokenIDs(
            "tokens", vocabularySize: model.text.tokenizer.vocabularySize)
        guard let ids else { throw reader.fail("tokens", "is required.") }
        let text = model.text.tokenizer.decode(ids, skipSpecialTokens: false)
        // The same body means the same to vLLM, llama.cpp and SGLang, which name the answer so.
        return .json(["prompt": .string(text), "content": .string(text), "text": .string(text)])
    }
}
