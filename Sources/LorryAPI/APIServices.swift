import Foundation
import HTTPTypes
import Logging
import LorryEngine
import LorryModel
import LorryRegistry
import LorryText

/// What clients are told of the base model.
public struct ModelCard: Sendable {
    /// What clients call it.
    public let name: String
    public let created: Date

    public init(name: String, created: Date = .now) {
        self.name = name
        self.created = created
    }
}

/// Everything that the routes work on, made by the executable.
public struct APIServices: Sendable {
    public let card: ModelCard
    public let version: String
    public let engine: any GenerationService
    public let registry: AdapterRegistry
    /// Compiles an adapter's files for the engine. Throws `AdapterError` of kind `damaged` where
    /// they are not those that were stored.
    /// Makes the program of an adapter for one of its tasks, 0 where it has none.
    public let loadAdapter: @Sendable (AdapterLease, _ task: Int) throws -> AdapterProgram
    /// Sums and merges adapters.
    public var combinations = AdapterCombinations()
    public let text: TextCodec
    /// Nil where no keys are configured: then everyone may do everything.
    public let keys: KeyRing?
    public let metrics: ServerMetrics
    public let readiness: Readiness
    public var limits = APILimits()
    /// Folders below which `{"path": …}` and vLLM's `lora_path` may point.
    public var allowedRoots: [URL] = []

    let adapterTexts: AdapterTextCache
    let sumSizes = SumSizes()
    public package(set) var admission: AdmissionLimits
    public let usage: UsageLedger
    let defaultScales = DefaultScales()

    /// - Parameters:
    ///   - tokenizerFile: the base model's tokenizer.json, to recognise unchanged copies that
    ///     adapters bring along.
    ///   - clock: the time that limits and usage go by.
    public init(
        card: ModelCard, version: String, engine: any GenerationService,
        registry: AdapterRegistry, text: TextCodec, tokenizerFile: URL?, keys: KeyRing?,
        metrics: ServerMetrics, readiness: Readiness,
        clock: @escaping @Sendable () -> Moment = { .now },
        loadAdapter: @escaping @Sendable (AdapterLease, _ task: Int) throws -> AdapterProgram
    ) {
        self.card = card
        self.version = version
        self.engine = engine
        self.registry = registry
        self.text = text
        self.keys = keys
        self.metrics = metrics
        self.readiness = readiness
        self.loadAdapter = loadAdapter
        admission = AdmissionLimits(clock: clock)
        usage = UsageLedger(registry: registry, clock: clock)
        adapterTexts = AdapterTextCache(base: text, baseTokenizerFile: tokenizerFile)
    }
}

public struct APILimits: Sendable {
    /// JSON bodies, in bytes. Over it: 413.
    public var jsonByteCount = 8 << 20
    /// Uploaded adapters, in bytes. Over it: 413.
    public var uploadByteCount = 4 << 30

    public init() {}

    /// The bound on a request's body, for the listener to enforce before a route runs.
    public func bodyByteCount(for request: HTTPRequest) -> Int {
        let isUpload = request.method == .put && request.path?.hasPrefix("/admin/adapters/") == true
        return isUpload ? uploadByteCount : jsonByteCount
    }
}
