import LorryEngine

/// What the routes need of the engine; a fake stands in for it in tests.
public protocol GenerationService: Sendable {
    /// Tokens of a prompt and its answer together.
    var maximumContextLength: Int { get }
    var vocabularySize: Int { get }
    /// The engine's thread moved recently, or has nothing to do.
    var isAlive: Bool { get }
    func statistics() -> EngineStatistics
    /// - Parameter tokenCount: an estimate of the prompts' tokens.
    func reserve(
        count: Int, tokenCount: Int, tenant: String
    ) throws(EngineError) -> any GenerationReservation
    func preload(_ adapter: AdapterReference)
    func setPinned(_ id: LorryEngine.AdapterVersionID, _ pinned: Bool)
    func forget(_ id: LorryEngine.AdapterVersionID)
}

/// Places in the engine's bounded queue, given back when dropped unused.
public protocol GenerationReservation: Sendable {
    /// Puts the true number of the prompts' tokens in the estimate's place.
    func correct(tokenCount: Int) throws(EngineError)
    func submit(_ request: GenerationRequest) throws(EngineError) -> any GenerationStream
}

/// One generation's events. Dropping it cancels it.
public protocol GenerationStream: Sendable {
    /// Nil after the last event. Has one caller at a time.
    func next() async -> GenerationEvent?
    func cancel()
    /// Ends it as complete: the reader has all that it wants.
    func stop()
}
