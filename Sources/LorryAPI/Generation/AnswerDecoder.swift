import LorryEngine
import LorryText

/// What one more event of the engine adds to an answer.
struct AnswerDelta: Sendable {
    /// Whole characters only, and never the beginning of a possible stop string.
    var text = ""
    var tokens: [GeneratedToken] = []
    /// No token follows: the answer has all that it may have, or met a stop string.
    var hasLastToken = false
    /// Of the prompt's tokens, where asked for.
    var promptLogprobs: [TokenLogprobs?]?
    var finish: AnswerFinish?

    /// What it adds to the usage.
    var completionTokenCount: Int { tokens.count + (finish?.untoldTokenCount ?? 0) }

    var isEmpty: Bool {
        text.isEmpty && tokens.isEmpty && promptLogprobs == nil && finish == nil
    }
}

/// How an answer ended.
struct AnswerFinish: Sendable {
    enum Cause: Sendable, Equatable {
        case endToken(Int32)
        case stopToken(Int32)
        case stopString(String)
        case length
        case aborted
    }
    let cause: Cause
    let completionTokenCount: Int
    /// Of them, those that no delta told: the end or stop token.
    let untoldTokenCount: Int
    let cachedTokenCount: Int
    let timings: GenerationTimings

    /// OpenAI's `finish_reason`; `abort` is vLLM's.
    var reason: String {
        switch cause {
        case .endToken, .stopToken, .stopString: "stop"
        case .length: "length"
        case .aborted: "abort"
        }
    }

    /// vLLM's `stop_reason`: the stop string or stop token, null at an end token.
    var stopReason: JSON {
        switch cause {
        case .stopToken(let id): .integer(Int(id))
        case .stopString(let text): .string(text)
        default: .null
        }
    }
}

/// Turns one generation's events into text: a state machine without I/O.
///
/// At a stop string it asks for the generation to be cancelled, ignores tokens that come after it,
/// and reports the end when the engine does, so that the counts and times are the engine's.
struct AnswerDecoder {
    private var detokenizer: StreamingDetokenizer
    private let requestStopTokenIDs: Set<Int32>
    private let maximumTokenCount: Int
    private var tokenCount = 0
    private var matchedStop: String?
    private(set) var isFinished = false

    /// - Parameter prompt: what the answer continues; decides whether a leading space stays.
    init(
        _ fields: GenerationFields, tokenizer: Tokenizer, prompt: [Int32], maximumTokenCount: Int
    ) {
        detokenizer = tokenizer.makeDetokenizer(
            .init(
                stopStrings: fields.stopStrings, skipSpecialTokens: fields.skipsSpecialTokens,
                includesStopString: fields.includesStopString,
                minimumTokenCount: fields.minimumTokenCount))
        detokenizer.prime(prompt: prompt)
        requestStopTokenIDs = fields.stopTokenIDs
        self.maximumTokenCount = maximumTokenCount
    }

    /// A stop string was met: the generation is of no more use.
    var wantsCancel: Bool { matchedStop != nil && !isFinished }

    /// - Throws: the engine's error where the generation failed.
    mutating func consume(_ event: GenerationEvent) throws(EngineError) -> AnswerDelta {
        var delta = AnswerDelta()
        switch event {
        case .prompt(let logprobs):
            delta.promptLogprobs = logprobs
        case .token(let token):
            guard matchedStop == nil else { break }
            tokenCount += 1
            delta.tokens = [token]
            let output = detokenizer.append(token.id)
            delta.text = output.text
            matchedStop = output.stop
            delta.hasLastToken = output.stop != nil || tokenCount == maximumTokenCount
        case .finished(let summary):
            isFinished = true
            if matchedStop == nil {
                let rest = detokenizer.finish()
                delta.text = rest.text
                matchedStop = rest.stop
            }
            delta.finish = finish(summary)
        case .failed(let error):
            isFinished = true
            throw error
        }
        return delta
    }

    private func finish(_ summary: GenerationSummary) -> AnswerFinish {
        let cause: AnswerFinish.Cause
        if let matchedStop {
            cause = .stopString(matchedStop)
        } else {
            switch summary.reason {
            case .stop(let token):
                cause = requestStopTokenIDs.contains(token) ? .stopToken(token) : .endToken(token)
            case .length: cause = .length
            case .cancelled, .readerSatisfied: cause = .aborted
            }
        }
        let count = matchedStop == nil ? summary.completionTokenCount : tokenCount
        return AnswerFinish(
            cause: cause, completionTokenCount: count, untoldTokenCount: max(0, count - tokenCount),
            cachedTokenCount: summary.cachedTokenCount, timings: summary.timings)
    }
}
