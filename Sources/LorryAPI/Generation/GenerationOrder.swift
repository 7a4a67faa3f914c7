import Hummingbird

/// What a route has read of a request for generations, whatever API it speaks.
struct GenerationOrder: Sendable {
    /// A prompt and the model that answers it.
    struct Prompt: Sendable {
        let source: PromptSource
        let model: ServedModel
    }

    /// How many prompts a request may have, whatever the queue holds: what is more is refused before
    /// anything is made of it.
    static let maximumPromptCount = 4096

    var fields: GenerationFields
    var prompts: [Prompt]
    var options = PromptSource.Options()
    /// What the route takes where the request does not say how many tokens; nil for all that fits.
    var defaultMaximumTokenCount: Int?
    /// The request's field that `fields.maximumTokenCount` came from, for messages.
    var maximumField = "max_tokens"
    /// The request's field that holds the prompt.
    var promptField = "prompt"
    var logprobCount: Int?
    var promptLogprobCount: Int?

    init(_ fields: GenerationFields, _ prompts: [Prompt]) {
        self.fields = fields
        self.prompts = prompts
    }

    init(_ fields: GenerationFields, _ sources: [PromptSource], for model: ServedModel) {
        self.init(fields, sources.map { Prompt(source: $0, model: model) })
    }

    /// - Throws: `APIError` 400 naming the field.
    static func checkPromptCount(
        _ count: Int, _ field: String, _ reader: FieldReader
    ) throws(APIError) {
        guard count <= maximumPromptCount else {
            throw reader.fail(
                field, "may hold at most \(maximumPromptCount) prompts, got \(count).")
        }
    }

    /// Of all sequences together, told without tokenizing.
    var estimatedTokenCount: Int {
        prompts.reduce(0) { $0 + $1.source.estimatedTokenCount } * fields.candidateCount
    }
}

extension APIServices {
    /// The one way from a request to its answer: places in the queue, prompts, generations, and the
    /// account of each adapter.
    ///
    /// - Parameters:
    ///   - reader: the body, which may say how long its client waits.
    ///   - format: what writes the answer, given the prompts as they were tokenized.
    func generate<Format: AnswerFormat>(
        _ order: GenerationOrder, _ call: Call, _ reader: FieldReader,
        format: @Sendable (GenerationPlan) -> Format
    ) async throws -> Response {
        let accounts = RequestAccounts(
            self, order.prompts.map(\.model), principal: call.principal)
        do {
            let patience = try ClientPatience(reader, call.request.headers)
            let count = order.prompts.count * order.fields.candidateCount
            let (reservation, share) = try reserve(
                count, tokenCount: order.estimatedTokenCount, for: call.principal)
            var plan = GenerationPlan(order, id: call.id, principal: call.principal)
            for prompt in order.prompts {
                plan.prompts.append(
                    try await prompt.source.tokenized(with: prompt.model.text, order.options))
            }
            plan.deadline = patience.deadline
            let running = try submit(plan, reservation, share)
            return try await AnswerResponses(plan: plan, accounts: accounts).respond(
                running, as: format(plan))
        } catch {
            accounts.close(error)
            throw error
        }
    }
}
