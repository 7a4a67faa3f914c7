import HTTPTypes
import Hummingbird
import LorryEngine
import NIOCore

/// What turns deltas into a route's wire format.
protocol AnswerFormat: Sendable {
    /// What a stream remembers of each answer.
    associatedtype ChoiceState: Sendable
    func initialState() -> ChoiceState
    /// The whole answer; `answers` stand prompt by prompt.
    func whole(_ answers: [Answer], usage: TokenUsage) -> JSON
    /// Chunks that tell `delta`; empty where there is nothing to tell yet.
    func chunks(
        _ index: Int, _ delta: AnswerDelta, _ state: inout ChoiceState, usage: TokenUsage
    ) -> [JSON]
    /// The last chunk of `stream_options.include_usage`; nil for APIs that have none.
    func usageChunk(_ usage: TokenUsage) -> JSON?
    /// The event that tells of a failure inside a stream.
    func failure(_ error: APIError) -> ByteBuffer
    /// The event that ends a stream; nil where its last chunk does.
    var streamEnd: ByteBuffer? { get }
}

extension AnswerFormat {
    func usageChunk(_ usage: TokenUsage) -> JSON? { nil }
    func failure(_ error: APIError) -> ByteBuffer { EventStream.failure(error) }
    var streamEnd: ByteBuffer? { EventStream.done }
}

/// Answers one generation request, whole or as a stream.
struct AnswerResponses: Sendable {
    let plan: GenerationPlan
    let accounts: RequestAccounts

    private var promptTokenCount: Int { plan.prompts.reduce(0) { $0 + $1.tokens.count } }

    func respond(
        _ running: RunningAnswers, as format: some AnswerFormat
    ) async throws -> Response {
        accounts.attach(running.share)
        for (index, prompt) in plan.prompts.enumerated() {
            accounts.addPrompt(index, tokenCount: prompt.tokens.count)
        }
        let clock = ContinuousClock()
        let start = clock.now
        let first = try await running.firstEvent()
        if plan.fields.streams {
            return stream(running, after: first, firstTokenTime: clock.now - start, format)
        }
        return try await whole(running, after: first, format)
    }

    private func headers(
        _ share: AdmissionShare?, contentType: String, timing: String
    ) -> HTTPFields {
        var fields = share?.headers ?? [:]
        fields[.contentType] = contentType
        fields[.adapterVersion] = plan.versionHeader
        fields[.serverTiming] = timing
        return fields
    }

    // MARK: Whole answers

    private func whole(
        _ running: RunningAnswers, after first: GenerationEvent?, _ format: some AnswerFormat
    ) async throws -> Response {
        let wanted = plan.fields
        var candidates = [Answer](
            repeating: Answer(), count: plan.prompts.count * wanted.candidateCount)
        var usage = TokenUsage(promptTokenCount: promptTokenCount)
        try await running.forEachDelta(after: first) { index, delta in
            candidates[index].append(delta)
            accounts.add(delta, ofPrompt: plan.promptIndex(ofCandidate: index))
            if let finish = delta.finish { usage.add(finish) }
        }
        var answers: [Answer] = []
        for start in stride(from: 0, to: candidates.count, by: wanted.candidateCount) {
            let group = Array(candidates[start..<start + wanted.candidateCount])
            usage.cachedTokenCount += group.compactMap { $0.finish?.cachedTokenCount }.max() ?? 0
            answers += Self.best(group, count: wanted.answerCount)
        }
        let timing = Self.serverTiming(candidates.compactMap { $0.finish?.timings })
        accounts.close(.succeeded)
        running.share?.finish()
        let fields = headers(running.share, contentType: "application/json", timing: timing)
        return Response(
            status: .ok, headers: fields,
            body: .init(
                byteBuffer: ByteBuffer(bytes: format.whole(answers, usage: usage).bytes)))
    }

    /// The `count` candidates of highest mean log-probability, best first; all of them in the
    /// order in which they were asked for where none is left out.
    static func best(_ candidates: [Answer], count: Int) -> [Answer] {
        guard count < candidates.count else { return candidates }
        return ranking(candidates).prefix(count).map { candidates[$0] }
    }

    /// Positions by mean log-probability, the greatest first.
    static func ranking(_ candidates: [Answer]) -> [Int] {
        candidates.indices.sorted {
            let a = candidates[$0].meanLogprob
            let b = candidates[$1].meanLogprob
            return a == b ? $0 < $1 : a > b
        }
    }

    /// The longest of each phase over the request's sequences, in milliseconds.
    static func serverTiming(_ timings: [GenerationTimings]) -> String {
        let phases: [(String, any KeyPath<GenerationTimings, Duration> & Sendable)] = [
            ("queue", \.queue), ("load", \.load), ("prefill", \.prefill), ("decode", \.decode),
        ]
        return phases.map { name, path in
            "\(name);dur=\(milliseconds(timings.map { $0[keyPath: path] }.max() ?? .zero))"
        }.joined(separator: ", ")
    }

    static func milliseconds(_ duration: Duration) -> Double {
        (duration / .milliseconds(1) * 1000).rounded() / 1000
    }

    // MARK: Streams

    private func stream(
        _ running: RunningAnswers, after first: GenerationEvent?, firstTokenTime: Duration,
        _ format: some AnswerFormat
    ) -> Response {
        let timing = "first-token;dur=\(Self.milliseconds(firstTokenTime))"
        var fields = EventStream.headers
        for field in running.share?.headers ?? [:] { fields.append(field) }
        fields[.adapterVersion] = plan.versionHeader
        fields[.serverTiming] = timing
        let body = ResponseBody { writer in
            do {
                try await write(running, after: first, format, to: &writer)
                accounts.close(.succeeded)
            } catch let error as APIError {
                accounts.close(.failed)
                try await writer.write(format.failure(error))
            } catch {
                accounts.close(error)
                throw error
            }
            if let end = format.streamEnd { try await writer.write(end) }
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: fields, body: body)
    }

    private func write<Format: AnswerFormat>(
        _ running: RunningAnswers, after first: GenerationEvent?, _ format: Format,
        to writer: inout any ResponseBodyWriter
    ) async throws {
        let count = plan.prompts.count * plan.fields.candidateCount
        var states = [Format.ChoiceState](repeating: format.initialState(), count: count)
        var usage = TokenUsage(promptTokenCount: promptTokenCount)
        var cached = [Int](repeating: 0, count: plan.prompts.count)
        try await running.forEachDelta(after: first) { index, delta in
            let prompt = plan.promptIndex(ofCandidate: index)
            accounts.add(delta, ofPrompt: prompt)
            usage.completionTokenCount += delta.completionTokenCount
            if let finish = delta.finish {
                cached[prompt] = max(cached[prompt], finish.cachedTokenCount)
                usage.cachedTokenCount = cached.reduce(0, +)
            }
            for chunk in format.chunks(index, delta, &states[index], usage: usage) {
                try await writer.write(EventStream.event(chunk))
            }
        }
        if plan.fields.includesUsage, let chunk = format.usageChunk(usage) {
            try await writer.write(EventStream.event(chunk))
        }
    }
}
