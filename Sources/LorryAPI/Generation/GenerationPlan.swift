import HTTPTypes
import LorryEngine

/// One request's generations, ready to be submitted.
struct GenerationPlan: Sendable {
    let id: String
    let principal: Principal
    /// The model of each prompt.
    let models: [ServedModel]
    let fields: GenerationFields
    var prompts: [TokenizedPrompt] = []
    /// What a route takes where the request does not say `max_tokens`; nil for all that fits.
    let defaultMaximumTokenCount: Int?
    /// The request's field that `max_tokens` came from, for messages.
    let maximumField: String
    /// The request's field that holds the prompt.
    let promptField: String
    var logprobCount: Int?
    var promptLogprobCount: Int?
    var deadline: ContinuousClock.Instant?

    init(_ order: GenerationOrder, id: String, principal: Principal) {
        self.id = id
        self.principal = principal
        models = order.prompts.map(\.model)
        fields = order.fields
        defaultMaximumTokenCount = order.defaultMaximumTokenCount
        maximumField = order.maximumField
        promptField = order.promptField
        logprobCount = order.logprobCount
        promptLogprobCount = order.promptLogprobCount
    }

    /// The prompt whose answer stands at `index` among all candidates.
    func promptIndex(ofCandidate index: Int) -> Int { index / fields.candidateCount }

    /// What `x-lorry-adapter-version` says: each version once, or nothing where that is more than
    /// clients and proxies take for a header.
    var versionHeader: String? {
        var seen: Set<String> = []
        let versions = models.map(\.versionHeader).filter { seen.insert($0).inserted }
            .joined(separator: ", ")
        return versions.utf8.count <= Self.maximumVersionHeaderByteCount ? versions : nil
    }

    private static let maximumVersionHeaderByteCount = 4096

    /// One engine request per candidate, prompt by prompt.
    ///
    /// - Throws: `APIError` 400 where a prompt is empty or does not fit the context.
    func requests(contextLength: Int) throws(APIError) -> [GenerationRequest] {
        var requests: [GenerationRequest] = []
        for promptIndex in prompts.indices {
            let room = try contextLength - virtualTokenCount(models[promptIndex], contextLength)
            let maximum = try maximumTokenCount(prompts[promptIndex].tokens.count, room)
            for candidate in 0..<fields.candidateCount {
                requests.append(request(promptIndex, candidate, maximum))
            }
        }
        return requests
    }

    /// Tokens that the requests will have in all, prompts and answers: what `max_tokens` says, or a
    /// usual answer where a client leaves it to the context.
    func expectedTokenCount(_ requests: [GenerationRequest]) -> Int {
        let isBounded = fields.maximumTokenCount != nil || defaultMaximumTokenCount != nil
        let bound = isBounded ? Int.max : Self.usualAnswerTokenCount
        let answers = requests.reduce(0) { $0 + min($1.maximumTokenCount, bound) }
        return prompts.reduce(answers) { $0 + $1.tokens.count }
    }

    /// What limits take at first for an answer without `max_tokens`.
    private static let usualAnswerTokenCount = 256

    private func virtualTokenCount(
        _ model: ServedModel, _ contextLength: Int
    ) throws(APIError) -> Int {
        let count = model.adapter?.virtualTokenCount ?? 0
        guard count < contextLength else {
            throw .invalid(
                "model",
                "'\(model.name)' has \(count) tokens of its own before every prompt, which "
                    + "fill the context of \(contextLength).")
        }
        return count
    }

    private func maximumTokenCount(
        _ promptCount: Int, _ contextLength: Int
    ) throws(APIError) -> Int {
        guard promptCount > 0 else { throw .invalid(promptField, "The prompt has no token.") }
        let room = contextLength - promptCount
        let needed = fields.maximumTokenCount == 0 ? 0 : 1
        guard room >= needed else {
            throw .promptTooLong(
                tokenCount: promptCount, limit: contextLength, parameter: promptField)
        }
        var maximum = min(defaultMaximumTokenCount ?? room, room)
        if let asked = fields.maximumTokenCount {
            guard asked <= room else {
                let (sum, overflow) = promptCount.addingReportingOverflow(asked)
                throw .invalid(
                    maximumField,
                    "This model's maximum context length is \(contextLength) tokens. However, you "
                        + "requested \(overflow ? Int.max : sum) tokens (\(promptCount) in the "
                        + "messages, \(asked) in the completion). Please reduce the length of the "
                        + "messages or completion.")
            }
            maximum = asked
        }
        if let limit = principal.maximumTokenCount {
            guard fields.maximumTokenCount.map({ $0 <= limit }) ?? true else {
                throw .invalid(
                    maximumField, "\(maximumField) may be at most \(limit) for this API key.")
            }
            maximum = min(maximum, limit)
        }
        try fields.checkMinimum(against: maximum)
        return maximum
    }

    private func request(
        _ promptIndex: Int, _ candidate: Int, _ maximum: Int
    ) -> GenerationRequest {
        let isOnly = prompts.count == 1 && fields.candidateCount == 1
        var request = GenerationRequest(
            id: isOnly ? id : "\(id)-\(promptIndex * fields.candidateCount + candidate)",
            promptTokens: prompts[promptIndex].tokens, adapter: models[promptIndex].adapter,
            maximumTokenCount: maximum)
        request.sampling = fields.sampling
        // Equal seeds would make all candidates the same.
        request.sampling.seed = fields.sampling.seed.map { $0 &+ UInt64(candidate) }
        request.minimumTokenCount = fields.minimumTokenCount
        request.ignoresEndTokens = fields.ignoresEndTokens
        request.stopTokenIDs = fields.stopTokenIDs
        request.logprobCount = logprobCount
        if logprobCount == nil, fields.candidateCount > fields.answerCount {
            request.logprobCount = 0  // best_of ranks by them
        }
        request.promptLogprobCount = promptLogprobCount
        request.priority = fields.priority
        request.tenant = principal.tenant
        request.weight = principal.weight
        request.deadline = deadline
        request.cacheSalt = fields.cacheSalt
        return request
    }
}

extension APIServices {
    /// Places in the queue for `count` sequences and room in the limits of key and tenant, taken
    /// before any tokenizing.
    ///
    /// - Parameter tokenCount: an estimate of the tokens of all their prompts.
    func reserve(
        _ count: Int, tokenCount: Int, for principal: Principal
    ) throws(APIError) -> (any GenerationReservation, AdmissionShare?) {
        guard readiness.phase != .stopping else { throw .shuttingDown }
        let share =
            keys == nil
            ? nil
            : try admission.admit(sequenceCount: count, tokenCount: tokenCount, for: principal)
        do {
            let reservation = try engine.reserve(
                count: count, tokenCount: tokenCount, tenant: principal.tenant)
            return (reservation, share)
        } catch {
            share?.cancel()
            throw APIError(error)
        }
    }

    func submit(
        _ plan: GenerationPlan, _ reservation: any GenerationReservation, _ share: AdmissionShare?
    ) throws(APIError) -> RunningAnswers {
        let requests = try plan.requests(contextLength: engine.maximumContextLength)
        try share?.expect(tokenCount: plan.expectedTokenCount(requests))
        var streams: [any GenerationStream] = []
        do {
            let tokenCount = requests.reduce(0) { $0 + $1.promptTokens.count }
            try reservation.correct(tokenCount: tokenCount)
            for request in requests { streams.append(try reservation.submit(request)) }
        } catch {
            for stream in streams { stream.cancel() }
            share?.cancel()
            throw APIError(error)
        }
        return RunningAnswers(
            streams, maximumTokenCounts: requests.map(\.maximumTokenCount), plan: plan,
            share: share)
    }
}
