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
                of: try await conversation.rendered(with: model.text),
                addingSpecialTokens: conversation.addsSpecialTokens)
        } else {
            guard let prompt = try reader.string("prompt") else {
                throw reader.fail("prompt", "messages or content is required.")
            }
            tokens = await model.text.tokens(
                of: prompt, addingSpecialTokens: try reader.bool("add_special_tokens") ?? true)
        }
        let wantsPieces = try reader.bool("return_token_strs") == true
        let contextLength = engine.maximumContextLength
        return await .json {
            let tokenizer = model.text.tokenizer
            return [
                "count": .integer(tokens.count), "max_model_len": .integer(contextLength),
                "tokens": .tokenIDs(tokens),
                "token_strs": wantsPieces
                    ? .array(tokens.map { .optional(tokenizer.piece($0)) }) : .null,
            ]
        }
    }

    fileprivate func detokenize(_ call: Call) async throws -> Response {
        let reader = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let model = try resolve(ModelSelection(reader), for: call.principal)
        let ids = try reader.tokenIDs(
            "tokens", vocabularySize: model.text.tokenizer.vocabularySize)
        guard let ids else { throw reader.fail("tokens", "is required.") }
        guard ids.count <= Self.maximumDetokenizedCount else {
            throw reader.fail(
                "tokens",
                "may hold at most \(Self.maximumDetokenizedCount) tokens, got \(ids.count).")
        }
        return await .json {
            let text = model.text.tokenizer.decode(ids, skipSpecialTokens: false)
            // The same body means the same to vLLM, llama.cpp and SGLang, which name the answer so.
            return ["prompt": .string(text), "content": .string(text), "text": .string(text)]
        }
    }

    private static let maximumDetokenizedCount = 1 << 20
}
