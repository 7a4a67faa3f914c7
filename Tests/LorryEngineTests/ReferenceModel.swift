import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

/// A model folder with `base/`, `adapters/NAME/` and the answers that are expected of it.
struct ReferenceModel {
    struct Step: Decodable {
        let token: Int32
        let logprob: Float
        let top: [Alternative]
    }

    /// Written as `[token, log-probability]`.
    struct Alternative: Decodable {
        let id: Int32
        let logprob: Float

        init(from decoder: any Decoder) throws {
            var values = try decoder.unkeyedContainer()
            id = try values.decode(Int32.self)
            logprob = try values.decode(Float.self)
        }
    }

    private struct Expected: Decodable {
        let prompts: [[Int32]]
        let answers: [String: [[Step]]]
        let ownPrompts: [String: [[Int32]]]?

        enum CodingKeys: String, CodingKey {
            case prompts, answers
            case ownPrompts = "own_prompts"
        }
    }

    static let bundledRoot = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "lorryTests/Fixtures")

    let folder: URL
    let prompts: [[Int32]]
    let answers: [String: [[Step]]]
    /// Of adapters that are asked something else.
    let ownPrompts: [String: [[Int32]]]

    init(_ folder: URL) throws {
        self.folder = folder
        let data = try Data(contentsOf: folder.appending(path: "expected.json"))
        let expected = try JSONDecoder().decode(Expected.self, from: data)
        prompts = expected.prompts
        answers = expected.answers
        ownPrompts = expected.ownPrompts ?? [:]
    }

    func engine(
        workers: WorkerPool, batchTokenCount: Int = 256, runningCount: Int = 64,
        budget: Int = 64 << 20, format: WeightFormat = .f32,
        observer: any EngineObserver = SilentObserver()
    ) throws -> Engine {
        let model = try DecoderModel(
            directory: folder.appending(path: "base"), format: format, pool: workers)
        var configuration = EngineConfiguration(
            memoryBudgetByteCount: budget, maximumContextLength: model.contextLength)
        configuration.maximumBatchTokenCount = batchTokenCount
        configuration.maximumRunningCount = runningCount
        return try Engine(
            model: model, configuration: configuration, workers: workers, observer: observer)
    }

    func adapterReferences(
        _ names: [String], _ model: DecoderModel
    ) throws -> [String: AdapterReference] {
        var references: [String: AdapterReference] = [:]
        for name in names {
            let directory = folder.appending(path: "adapters/\(name)")
            let description = try AdapterCompiler.inspect(
                directory: directory, configuration: model.configuration,
                format: model.format.operandFormat)
            references[name] = AdapterReference(
                id: AdapterVersionID(name), name: name, byteCount: description.byteCount,
                traits: description.traits
            ) {
                try AdapterCompiler.compile(directory: directory, model: model)
            }
        }
        return references
    }

    /// Greedy, as long as the reference's answers, with its number of alternatives.
    func request(_ prompt: Int, _ adapter: AdapterReference? = nil) -> GenerationRequest {
        let steps = answers[""]?.first ?? []
        var request = GenerationRequest(
            id: "test",
            promptTokens: (adapter.flatMap { ownPrompts[$0.name] } ?? prompts)[prompt],
            adapter: adapter,
            maximumTokenCount: steps.count)
        request.sampling.temperature = 0
        request.ignoresEndTokens = true
        request.logprobCount = steps.first?.top.count
        return request
    }

    /// Past a near-tie that went the other way nothing can be compared.
    func check(
        _ tokens: [GeneratedToken], _ name: String, _ prompt: Int, label: String,
        tolerance: Float = 2e-3
    ) {
        guard let steps = answers[name]?[prompt] else {
            Issue.record("\(label): no reference answer")
            return
        }
        #expect(tokens.count == steps.count, "\(label)")
        for (index, (token, step)) in zip(tokens, steps).enumerated() {
            let found = Dictionary(
                uniqueKeysWithValues: (token.logprobs?.top ?? []).map { ($0.id, $0.logprob) })
            for expected in step.top {
                guard let logprob = found[expected.id] else { continue }
                #expect(
                    abs(logprob - expected.logprob) <= tolerance,
                    "\(label), step \(index), token \(expected.id)")
            }
            guard token.id != step.token else { continue }
            let gap = step.top[0].logprob - (step.top.first { $0.id == token.id }?.logprob ?? -1e9)
            #expect(gap < 2 * tolerance, "\(label), step \(index): token \(token.id)")
            return
        }
    }
}

struct SilentObserver: EngineObserver {
    func engineDidStep(_ step: StepObservation) {}
    func engineDidEmitToken(_ token: TokenObservation) {}
    func engineDidFinish(_ request: FinishObservation) {}
    func engineDidLoadAdapter(name: String, duration: Duration, error: String?) {}
    func engineDidEvictAdapter(name: String) {}
}

extension Engine {
    /// Runs a request to its end.
    func tokens(_ request: GenerationRequest) async throws -> [GeneratedToken] {
        let generation = try submit(request, reservation: reserve())
        var tokens: [GeneratedToken] = []
        for await event in generation {
            switch event {
            case .token(let token): tokens.append(token)
            case .failed(let error): throw error
            case .prompt, .finished: break
            }
        }
        return tokens
    }
}
