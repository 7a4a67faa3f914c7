import Foundation
import Synchronization

/// A tokenizer as its `tokenizer.json` describes it: text to ids and back, exactly as Hugging Face's
/// tokenizers library does it. Immutable; any thread may use it.
public final class Tokenizer: Sendable {
    let model: BytePairModel
    let normalizer: Normalizer?
    let preTokenizer: PreTokenizer?
    let postProcessor: PostProcessor
    let decoder: [DecoderStep]
    private let rawMatcher: AddedTokenMatcher
    private let normalizedMatcher: AddedTokenMatcher
    /// Added tokens by id, as decoding shows them.
    private let addedBytes: [Int32: [UInt8]]
    private let addedIDs: [[UInt8]: Int32]
    /// Ids that `skipSpecialTokens` leaves out.
    private let specialIDs: Set<Int32>
    private let scratchPool = Mutex<[EncodingScratch]>([])

    /// The number of distinct tokens, added ones included.
    public let vocabularySize: Int
    /// One more than the largest id that stands for a token.
    public let idLimit: Int
    public let bosToken: String?
    public let eosToken: String?
    public let padToken: String?
    public let unknownToken: String?
    /// The model's chat template, when its files have one. Of several named ones, `default`.
    public let chatTemplate: ChatTemplate?
    /// Further templates by name, such as `tool_use`.
    public let namedChatTemplates: [String: ChatTemplate]

    init(
        parts: TokenizerParts, settings: TokenizerSettings,
        templates: (main: ChatTemplate?, named: [String: ChatTemplate])
    ) {
        model = parts.model
        normalizer = parts.normalizer
        preTokenizer = parts.preTokenizer
        decoder = parts.decoder
        let added = AddedTokenTable(parts.addedTokens, model.vocabulary, parts.normalizer)
        rawMatcher = added.rawMatcher
        normalizedMatcher = added.normalizedMatcher
        addedBytes = added.bytesOfID
        addedIDs = added.idOfContent
        specialIDs = added.specialIDs
        vocabularySize = added.vocabularySize
        idLimit = max(model.vocabulary.idLimit, Int((added.bytesOfID.keys.max() ?? -1) + 1))
        postProcessor = settings.postProcessor(
            declared: parts.postProcessor,
            id: {
                added.idOfContent[Array($0.utf8)] ?? parts.model.vocabulary.id(of: Array($0.utf8))
            }
        )
        bosToken = settings.bosToken
        eosToken = settings.eosToken
        padToken = settings.padToken
        unknownToken = settings.unknownToken
        chatTemplate = templates.main
        namedChatTemplates = templates.named
    }

    /// Ids of a text. With `addSpecialTokens`, those that the post-processor adds (such as a
    /// beginning-of-text token) are included. Added tokens that the text contains, special ones
    /// too, become their ids.
    /// - Complexity: close to O(n), at worst O(n log n) for a text that cannot be split.
    public func encode(_ text: String, addSpecialTokens: Bool) -> [Int32] {
        var scratch = scratchPool.withLock { $0.popLast() } ?? EncodingScratch()
        var ids: [Int32] = []
        let bytes = Array(text.utf8)
        ids.reserveCapacity(bytes.count / 3 + 8)
        for part in rawMatcher.parts(of: bytes) {
            switch part {
            case .token(let id): ids.append(id)
            case .text(let start, let end):
                let isWhole = start == 0 && end == bytes.count
                encodeText(
                    isWhole ? bytes : Array(bytes[start..<end]), isFirst: start == 0, &scratch,
                    &ids)
            }
        }
        scratch.trim()
        scratchPool.withLock { $0.append(scratch) }
        return addSpecialTokens ? postProcessor.apply(ids) : ids
    }

    private func encodeText(
        _ text: [UInt8], isFirst: Bool, _ scratch: inout EncodingScratch, _ ids: inout [Int32]
    ) {
        var text = text
        normalizer?.apply(&text)
        for part in normalizedMatcher.parts(of: text) {
            switch part {
            case .token(let id): ids.append(id)
            case .text(let start, let end):
                let isWhole = start == 0 && end == text.count
                var list = PieceList(
                    isWhole ? text : Array(text[start..<end]), isFirst: isFirst && start == 0)
                preTokenizer?.apply(&list)
                for piece in list.pieces {
                    model.encode(
                        list.bytes, piece.start, piece.end, scratch: &scratch, into: &ids)
                }
            }
        }
    }

    /// Text of ids. Ids that stand for no token are left out, as the reference does; bytes that are
    /// not UTF-8 become U+FFFD.
    public func decode(_ ids: [Int32], skipSpecialTokens: Bool) -> String {
        var stream = DecoderStream(decoder)
        for id in ids {
            if let token = tokenBytes(id, skipSpecialTokens: skipSpecialTokens) {
                stream.append(token)
            }
        }
        stream.finish()
        return String(decoding: stream.output, as: UTF8.self)
    }

    /// The token that decoding sees for an id; nil when it is to be left out.
    func tokenBytes(_ id: Int32, skipSpecialTokens: Bool) -> [UInt8]? {
        if skipSpecialTokens, specialIDs.contains(id) { return nil }
        if let added = addedBytes[id] { return added }
        return model.vocabulary.bytes(of: Int(id)).map { Array($0) }
    }

    /// The token of an id as the vocabulary spells it, such as `Ġthe` or `<0x0A>`.
    public func piece(_ id: Int32) -> String? {
        tokenBytes(id, skipSpecialTokens: false).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The bytes of text that an id contributes in the middle of a text; they may be a part of a
    /// scalar. Empty for an id that stands for no token.
    public func pieceBytes(_ id: Int32) -> [UInt8] {
        guard let token = tokenBytes(id, skipSpecialTokens: false) else { return [] }
        if addedBytes[id] != nil { return token }
        var bytes = token
        for step in decoder {
            switch step {
            case .byteLevel:
                var decoded: [UInt8] = []
                ByteAlphabet.decode(bytes, into: &decoded)
                bytes = decoded
            case .byteFallback:
                if let byte = DecoderStream.byteToken(bytes) { return [byte] }
            case .replaceText(let pattern, let content):
                bytes = bytes.replacing(text: pattern, with: content)
            case .replacePattern(let pattern, let content):
                bytes = bytes.replacing(pattern: pattern, with: content)
            case .metaspace(let replacement, _):
                bytes = bytes.replacing(text: UTF8Bytes.bytes(of: replacement), with: [0x20])
            case .wordSuffix(let suffix):
                bytes = bytes.replacing(text: suffix, with: [0x20])
            default:
                break
            }
        }
        return bytes
    }

    /// The id of a token as the vocabulary spells it.
    public func id(of token: String) -> Int32? {
        let bytes = Array(token.utf8)
        return addedIDs[bytes] ?? model.vocabulary.id(of: bytes)
    }

    public func isSpecial(_ id: Int32) -> Bool {
        specialIDs.contains(id)
    }

    public var bosTokenID: Int32? { bosToken.flatMap { id(of: $0) } }
    public var eosTokenID: Int32? { eosToken.flatMap { id(of: $0) } }
}
