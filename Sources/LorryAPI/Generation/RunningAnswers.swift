import HTTPTypes
import LorryEngine
import LorryText

/// The generations of one request, running side by side: prompt `p`'s candidate `c` stands at
/// `p * candidateCount + c`. Dropping it cancels them.
final class RunningAnswers: Sendable {
    private let streams: [any GenerationStream]
    /// How many tokens each may generate.
    private let maximumTokenCounts: [Int]
    private let plan: GenerationPlan
    /// Keeps the request's part of its limits until the answers have ended.
    let share: AdmissionShare?

    init(
        _ streams: [any GenerationStream], maximumTokenCounts: [Int], plan: GenerationPlan,
        share: AdmissionShare?
    ) {
        self.streams = streams
        self.maximumTokenCounts = maximumTokenCounts
        self.plan = plan
        self.share = share
    }

    deinit { cancel() }

    func cancel() {
        for stream in streams { stream.cancel() }
    }

    /// The first event of the first generation, awaited so that a failure before any token still
    /// becomes an HTTP status.
    ///
    /// - Throws: `APIError`, or `CancellationError` where the task was cancelled.
    func firstEvent() async throws -> GenerationEvent? {
        let event = await withTaskCancellationHandler {
            await streams[0].next()
        } onCancel: {
            cancel()
        }
        try Task.checkCancellation()
        if case .failed(let error) = event {
            cancel()
            throw APIError(error)
        }
        return event
    }

    /// Hands each delta, with its answer's index, to `body`; returns when all answers have ended.
    ///
    /// No further event of an answer is taken before `body` has returned, so that a slow reader
    /// slows its own generations.
    /// - Parameter first: what `firstEvent()` returned.
    /// - Throws: what `body` throws, `APIError` where a generation fails, `CancellationError`;
    ///   all generations are cancelled then.
    func forEachDelta(
        after first: GenerationEvent?, _ body: (Int, AnswerDelta) async throws -> Void
    ) async throws {
        try await withTaskCancellationHandler {
            do {
                if streams.count == 1 {
                    try await consumeOne(first, body)
                } else {
                    try await consumeAll(first, body)
                }
            } catch {
                cancel()
                throw error
            }
        } onCancel: {
            cancel()
        }
    }

    private func consumeOne(
        _ first: GenerationEvent?, _ body: (Int, AnswerDelta) async throws -> Void
    ) async throws {
        var decoder = decoder(of: 0)
        var event = first
        while !decoder.isFinished {
            let delta = try decode(event, of: 0, with: &decoder)
            if !delta.isEmpty { try await body(0, delta) }
            if decoder.isFinished { break }
            event = await streams[0].next()
        }
    }

    private func consumeAll(
        _ first: GenerationEvent?, _ body: (Int, AnswerDelta) async throws -> Void
    ) async throws {
        var decoders = streams.indices.map(decoder(of:))
        try await withThrowingTaskGroup(of: (Int, GenerationEvent?).self) { group in
            group.addTask { (0, first) }
            for index in streams.indices.dropFirst() {
                let stream = streams[index]
                group.addTask { (index, await stream.next()) }
            }
            do {
                while let (index, event) = try await group.next() {
                    let delta = try decode(event, of: index, with: &decoders[index])
                    if !delta.isEmpty { try await body(index, delta) }
                    if decoders[index].isFinished { continue }
                    let stream = streams[index]
                    group.addTask { (index, await stream.next()) }
                }
            } catch {
                // The group waits for its children, which wait for events.
                cancel()
                throw error
            }
        }
    }

    private func decoder(of index: Int) -> AnswerDecoder {
        let prompt = plan.promptIndex(ofCandidate: index)
        return AnswerDecoder(
            plan.fields, tokenizer: plan.models[prompt].text.tokenizer,
            prompt: plan.prompts[prompt].tokens, maximumTokenCount: maximumTokenCounts[index])
    }

    private func decode(
        _ event: GenerationEvent?, of index: Int, with decoder: inout AnswerDecoder
    ) throws -> AnswerDelta {
        try Task.checkCancellation()
        guard let event else {
            throw APIError(.internalServerError, "The engine ended the answer without a reason.")
        }
        let hadStop = decoder.wantsCancel
        do {
            let delta = try decoder.consume(event)
            if decoder.wantsCancel, !hadStop { streams[index].stop() }
            return delta
        } catch {
            throw APIError(error)
        }
    }
}

/// A whole answer, for requests that do not stream.
struct Answer: Sendable {
    var text = ""
    var tokens: [GeneratedToken] = []
    var promptLogprobs: [TokenLogprobs?] = []
    var finish: AnswerFinish?

    mutating func append(_ delta: AnswerDelta) {
        text += delta.text
        tokens += delta.tokens
        promptLogprobs = delta.promptLogprobs ?? promptLogprobs
        finish = delta.finish ?? finish
    }

    /// Mean log-probability per token, by which `best_of` ranks; an empty answer comes last.
    var meanLogprob: Float {
        guard !tokens.isEmpty else { return -.infinity }
        let sum = tokens.reduce(Float(0)) { $0 + ($1.logprobs?.logprob ?? 0) }
        return sum / Float(tokens.count)
    }
}
