import LorryModel

// Adapters: loads and where they are.
extension EngineCore: AdapterSupply {
    package func use(_ sequence: TokenSequence) -> AdapterState {
        guard let adapter = sequence.request.adapter else { return .ready }
        let state = residency.state(adapter.id)
        if state == .ready { _ = residency.prepare(adapter, sparing: 0, now: clock.now) }
        return state
    }

    package func load(
        _ sequence: TokenSequence, sparing spareBlockCount: Int, displacing: Bool
    ) -> LoadStart {
        guard let adapter = sequence.request.adapter else { return .ready }
        guard
            residency.state(adapter.id) == .ready
                || residency.loadCount < configuration.maximumLoadCount
        else { return .busy }
        let readiness = residency.prepare(
            adapter, sparing: spareBlockCount, isAhead: !displacing, now: clock.now)
        switch readiness {
        case .ready: return .ready
        case .loading: return .started
        case .lacksRoom: return .lacksRoom
        }
    }

    /// Of a sequence's adapter.
    func state(_ sequence: TokenSequence) -> AdapterState {
        sequence.adapterID.map { residency.state($0) } ?? .ready
    }

    func finishLoad(
        _ reference: AdapterReference, _ result: Result<AdapterProgram, any Error>
    ) {
        var reason: String?
        var program: AdapterProgram?
        switch result {
        case .failure(let error): reason = "\(error)"
        case .success(let loaded):
            if residency.chargeFully(reference.id, loaded) {
                program = loaded
            } else {
                reason = "there is no room for its \(loaded.byteCount) bytes"
            }
        }
        let duration = residency.finishLoad(reference.id, program, now: clock.now)
        if let reason {
            for sequence in scheduler.queue.waiting(for: reference.id) {
                fail(
                    sequence,
                    .adapterLoadFailed(name: reference.name, reason: reason))
            }
        } else {
            scheduler.queue.setState(.ready, of: reference.id)
        }
        observer.engineDidLoadAdapter(name: reference.name, duration: duration, error: reason)
    }

    /// Prompts whose log-probabilities are wanted are computed anew from their first token.
    static func prefixScope(
        _ sequence: TokenSequence, _ residency: AdapterResidency
    ) -> PrefixScope? {
        let request = sequence.request
        guard request.promptLogprobCount == nil || sequence.hasSentPrompt else { return nil }
        var adapter = sequence.adapterID
        if sequence.activationStart > 0 { adapter = nil }
        if let id = adapter, residency.program(id)?.keepsKeysAndValues == true { adapter = nil }
        return PrefixScope(adapter: adapter, tenant: request.tenant, salt: request.cacheSalt)
    }
}
