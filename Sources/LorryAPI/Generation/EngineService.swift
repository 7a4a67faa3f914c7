import LorryEngine

/// The real engine behind `GenerationService`.
public struct EngineService: GenerationService {
    public let engine: Engine

    public init(_ engine: Engine) { self.engine = engine }

    public var maximumContextLength: Int { engine.maximumContextLength }
    public var vocabularySize: Int { engine.vocabularySize }
    public var isAlive: Bool { engine.isAlive() }
    public func statistics() -> EngineStatistics { engine.statistics() }
    public func preload(_ adapter: AdapterReference) { engine.preload(adapter) }
    public func setPinned(_ id: LorryEngine.AdapterVersionID, _ pinned: Bool) {
        engine.setPinned(id, pinned)
    }
    public func forget(_ id: LorryEngine.AdapterVersionID) { engine.forget(id) }

    public func reserve(
        count: Int, tokenCount: Int, tenant: String
    ) throws(EngineError) -> any GenerationReservation {
        Reservation(
            engine: engine,
            reservation: try engine.reserve(count: count, tokenCount: tokenCount, tenant: tenant))
    }

    private struct Reservation: GenerationReservation {
        let engine: Engine
        let reservation: QueueReservation

        func correct(tokenCount: Int) throws(EngineError) {
            try reservation.correct(tokenCount: tokenCount)
        }

        func submit(_ request: GenerationRequest) throws(EngineError) -> any GenerationStream {
            Stream(generation: try engine.submit(request, reservation: reservation))
        }
    }

    private struct Stream: GenerationStream {
        let generation: Generation

        func next() async -> GenerationEvent? {
            var iterator = generation.makeAsyncIterator()
            return await iterator.next()
        }
        func cancel() { generation.cancel() }
        func stop() { generation.stop() }
    }
}
