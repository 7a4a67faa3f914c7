/// Orders waiting sequences so that tenants, and within a tenant its adapters, get equal service.
///
/// Virtual Token Counters (Sheng et al., "Fairness in Serving Large Language Models", arXiv
/// 2401.00588, algorithm 2 and its weighted form), on two levels. A tenant's counter grows by
/// `(promptToken · prompt + outputToken · answer) / weight` of what it is given, and by what the
/// loads of its adapters cost; the tenant with the smallest counter comes next. Within it the lowest
/// `priority` number comes first, then the adapter with the smallest counter, then who came first.
///
/// A tenant that had nothing waiting is lifted to the smallest counter of those who have, so that
/// nobody saves up service by staying away. A priority orders a tenant's own requests only.
///
/// Sequences whose adapter is not there are ordered the same way beside those that could run, so
/// that nobody is searched for among thousands. Tenants are never forgotten: they come from a file.
package final class FairQueue {
    package enum Policy: String, Sendable, CaseIterable {
        /// Virtual token counters.
        case fair
        /// By priority, then arrival, whoever asks.
        case arrival
    }

    /// What a token counts, as in the paper: an answer's token takes a step of its own.
    static let promptTokenCost = 1.0
    static let outputTokenCost = 2.0

    private let policy: Policy
    private var tenants: [String: TenantAccount] = [:]
    private var heaps = StateHeaps<TenantAccount>()
    private var lastServed: TenantAccount?
    /// Those with waiting sequences.
    private var flowsByAdapter: [AdapterVersionID: [ObjectIdentifier: AdapterFlow]] = [:]
    /// Preempted sequences whose readers lag behind.
    private var suspended: [SequenceID: TokenSequence] = [:]
    private var heldBack: [(tenant: TenantAccount, state: AdapterState)] = []
    /// Sequences that wait, those that are suspended included.
    package private(set) var count = 0
    /// Tokens that waiting sequences have still to compute.
    package private(set) var tokenCount = 0

    package init(policy: Policy = .fair) { self.policy = policy }

    /// Whether nobody waits but those whose readers lag behind.
    package var isEmpty: Bool { heaps.isEmpty }

    /// The tenants of waiting sequences and the sum of their weights.
    private(set) var waitingWeight = 0.0

    // MARK: - Coming and going

    /// Takes a sequence that has just arrived.
    ///
    /// - Parameter state: of its adapter.
    /// - Complexity: O(log n), as is everything here that names one sequence.
    package func enqueue(_ sequence: TokenSequence, _ state: AdapterState) {
        precondition(sequence.standing == .arrived)
        let request = sequence.request
        let tenant = account(of: request)
        if tenant.waitingCount > 0 { waitingWeight += request.weight - tenant.weight }
        tenant.weight = request.weight
        let level =
            tenant.classes[request.priority]
            ?? PriorityClass(tenant: tenant, priority: request.priority)
        tenant.classes[request.priority] = level
        let flow =
            level.flows[sequence.adapterID]
            ?? AdapterFlow(owner: level, adapter: sequence.adapterID)
        level.flows[sequence.adapterID] = flow
        if tenant.heaps.isEmpty, let floor = heaps.lowestCounter ?? lastServed?.counter {
            tenant.counter = max(tenant.counter, floor)
        }
        if flow.head == nil {
            let floor = level.heaps.lowestCounter ?? level.lastServed?.counter ?? 0
            flow.counter = max(flow.counter, floor)
        }
        flow.memberCount += 1
        level.memberCount += 1
        level.sweep()
        sequence.flow = flow
        insert(sequence, flow, state)
    }

    /// Puts a sequence that was running back to where it was: it has paid already.
    ///
    /// - Parameter state: of its adapter.
    package func requeue(_ sequence: TokenSequence, _ state: AdapterState) {
        precondition(sequence.standing == .running)
        let flow = flow(of: sequence)
        flow.tenant.runningCount -= 1
        guard sequence.isPaused else { return insert(sequence, flow, state) }
        sequence.standing = .suspended
        suspended[sequence.id] = sequence
        count += 1
    }

    /// Lets a sequence whose reader lagged behind take part again.
    package func resume(_ sequence: TokenSequence, _ state: AdapterState) {
        guard sequence.standing == .suspended, !sequence.isPaused else { return }
        suspended[sequence.id] = nil
        count -= 1
        insert(sequence, flow(of: sequence), state)
    }

    /// Takes the sequence out to run, and charges its tenant for what is to be computed of the
    /// prompt.
    package func admit(_ sequence: TokenSequence) {
        precondition(sequence.standing == .waiting)
        let flow = flow(of: sequence)
        withdraw(sequence, flow)
        sequence.standing = .running
        flow.tenant.runningCount += 1
        flow.hasPaidLoad = false
        lastServed = flow.tenant
        flow.owner.lastServed = flow
        guard !sequence.isCharged else { return }
        sequence.isCharged = true
        charge(sequence, Double(sequence.pendingCount) * Self.promptTokenCost)
    }

    /// Forgets a sequence, wherever it is.
    package func remove(_ sequence: TokenSequence) {
        guard sequence.standing != .arrived, sequence.standing != .ended else { return }
        let flow = flow(of: sequence)
        switch sequence.standing {
        case .waiting: withdraw(sequence, flow)
        case .suspended:
            suspended[sequence.id] = nil
            count -= 1
        case .running: flow.tenant.runningCount -= 1
        case .arrived, .ended: break
        }
        sequence.standing = .ended
        let level = flow.owner
        flow.memberCount -= 1
        level.memberCount -= 1
        sequence.flow = nil
        if level.memberCount == 0 { level.tenant.classes[level.priority] = nil }
    }

    private func insert(_ sequence: TokenSequence, _ flow: AdapterFlow, _ state: AdapterState) {
        sequence.standing = .waiting
        flow.tenant.waitingCount += 1
        sequence.queuedTokenCount = sequence.pendingCount
        flow.tenant.waitingTokenCount += sequence.queuedTokenCount
        if flow.tenant.waitingCount == 1 { waitingWeight += flow.tenant.weight }
        count += 1
        tokenCount += sequence.queuedTokenCount
        if flow.head == nil, let adapter = flow.adapter {
            flow.state = state
            flowsByAdapter[adapter, default: [:]][ObjectIdentifier(flow)] = flow
        }
        flow.sequences.set(sequence, isMember: true)
        if flow.state != .absent { flow.owner.preparedCount += 1 }
        refresh(flow)
    }

    private func withdraw(_ sequence: TokenSequence, _ flow: AdapterFlow) {
        flow.sequences.set(sequence, isMember: false)
        if flow.state != .absent { flow.owner.preparedCount -= 1 }
        flow.tenant.waitingCount -= 1
        flow.tenant.waitingTokenCount -= sequence.queuedTokenCount
        if flow.tenant.waitingCount == 0 { waitingWeight -= flow.tenant.weight }
        count -= 1
        tokenCount -= sequence.queuedTokenCount
        if flow.head == nil, let adapter = flow.adapter {
            flowsByAdapter[adapter]?[ObjectIdentifier(flow)] = nil
            if flowsByAdapter[adapter]?.isEmpty == true { flowsByAdapter[adapter] = nil }
        }
        refresh(flow)
    }

    // MARK: - The order

    /// Who comes next of those whose adapter is in this state.
    package func first(_ state: AdapterState) -> TokenSequence? { heaps.first(state)?.head(state) }

    /// Whether the first of those whose adapter is absent comes before the first who could run.
    package var isAbsentFirst: Bool {
        guard let absent = heaps.first(.absent) else { return false }
        guard let ready = heaps.first(.ready) else { return true }
        guard absent === ready else {
            if absent.counter != ready.counter { return absent.counter < ready.counter }
            return Self.arrived(absent.head(.absent), ready.head(.ready))
        }
        guard let a = absent.heaps.first(.absent), let b = absent.heaps.first(.ready) else {
            return false
        }
        guard a === b else { return a.priority < b.priority }
        guard let x = a.heaps.first(.absent), let y = a.heaps.first(.ready) else { return false }
        if x.counter != y.counter { return x.counter < y.counter }
        return Self.arrived(x.head, y.head)
    }

    private static func arrived(_ a: TokenSequence?, _ b: TokenSequence?) -> Bool {
        guard let a, let b else { return false }
        return a.id < b.id
    }

    /// Notes what became of an adapter, for all who wait for it.
    package func setState(_ state: AdapterState, of adapter: AdapterVersionID) {
        guard let flows = flowsByAdapter[adapter] else { return }
        for flow in flows.values where flow.state != state {
            let count = flow.sequences.nodes.count
            if flow.state == .absent { flow.owner.preparedCount += count }
            if state == .absent { flow.owner.preparedCount -= count }
            flow.state = state
            refresh(flow)
        }
    }

    /// How many wait, of the tenant and the priority of a sequence, whose adapter is resident or on
    /// its way.
    func preparedCount(beside sequence: TokenSequence) -> Int {
        flow(of: sequence).owner.preparedCount
    }

    /// Leaves a tenant out of those whose adapter is in this state, until `releaseHeldBack`.
    func holdBack(_ tenant: TenantAccount, _ state: AdapterState) {
        tenant.heldBack.insert(state)
        heldBack.append((tenant, state))
        refresh(tenant)
    }

    func releaseHeldBack() {
        while let (tenant, state) = heldBack.popLast() {
            tenant.heldBack.remove(state)
            refresh(tenant)
        }
    }

    // MARK: - Service

    /// Charges for a generated token.
    package func chargeOutput(_ sequence: TokenSequence) {
        charge(sequence, Self.outputTokenCost)
    }

    /// Charges for the load of a waiting sequence's adapter; once until one of those who wait for
    /// it runs, however often others displace it.
    func chargeLoad(_ sequence: TokenSequence, _ tokens: Double) {
        guard let flow = sequence.flow, !flow.hasPaidLoad else { return }
        flow.hasPaidLoad = true
        charge(sequence, tokens)
    }

    /// Charges a sequence's tenant and adapter for service.
    ///
    /// - Parameter tokens: weighted tokens.
    private func charge(_ sequence: TokenSequence, _ tokens: Double) {
        guard policy == .fair, let flow = sequence.flow else { return }
        flow.counter += tokens
        flow.tenant.counter += tokens / sequence.request.weight
        refresh(flow)
    }

    package func account(of request: GenerationRequest) -> TenantAccount {
        let name = policy == .fair ? request.tenant : ""
        if let tenant = tenants[name] { return tenant }
        let tenant = TenantAccount(name: name)
        tenants[name] = tenant
        return tenant
    }

    /// The account of a sequence that waits or runs.
    func tenant(of sequence: TokenSequence) -> TenantAccount { flow(of: sequence).tenant }

    private func flow(of sequence: TokenSequence) -> AdapterFlow {
        guard let flow = sequence.flow else {
            preconditionFailure("a sequence that the queue does not know")
        }
        return flow
    }

    // MARK: - Looking

    package func forEachWaiting(_ body: (TokenSequence) -> Void) {
        for tenant in tenants.values {
            for level in tenant.classes.values {
                for flow in level.flows.values { flow.sequences.nodes.forEach(body) }
            }
        }
        suspended.values.forEach(body)
    }

    /// Who waits for an adapter, those that are suspended left out.
    package func waiting(for adapter: AdapterVersionID) -> [TokenSequence] {
        (flowsByAdapter[adapter] ?? [:]).values.flatMap { $0.sequences.nodes }
    }

    /// - Complexity: O(log n).
    private func refresh(_ flow: AdapterFlow) {
        let level = flow.owner
        for state in AdapterState.allCases {
            level.heaps.set(
                flow, in: state, isMember: flow.head != nil && flow.state == state)
            level.tenant.heaps.set(level, in: state, isMember: level.heaps.first(state) != nil)
        }
        refresh(level.tenant)
    }

    private func refresh(_ tenant: TenantAccount) {
        for state in AdapterState.allCases {
            let isOut = tenant.heldBack.contains(state)
            heaps.set(tenant, in: state, isMember: !isOut && tenant.heaps.first(state) != nil)
        }
    }

    /// Checks all heaps and counts. For tests.
    package func checkInvariants() {
        var (sequenceCount, tokens, weight) = (suspended.count, 0, 0.0)
        for state in AdapterState.allCases { heaps[state].checkInvariants() }
        for tenant in tenants.values {
            var waitingCount = 0
            for level in tenant.classes.values {
                precondition(level.memberCount > 0)
                var preparedCount = 0
                for state in AdapterState.allCases {
                    level.heaps[state].checkInvariants()
                    tenant.heaps[state].checkInvariants()
                }
                for flow in level.flows.values {
                    flow.sequences.checkInvariants()
                    precondition(flow.sequences.nodes.count <= flow.memberCount)
                    waitingCount += flow.sequences.nodes.count
                    if flow.state != .absent { preparedCount += flow.sequences.nodes.count }
                    tokens += flow.sequences.nodes.reduce(0) { $0 + $1.queuedTokenCount }
                }
                precondition(preparedCount == level.preparedCount)
            }
            precondition(waitingCount == tenant.waitingCount)
            precondition(tenant.runningCount >= 0)
            if waitingCount > 0 { weight += tenant.weight }
            sequenceCount += waitingCount
        }
        precondition(sequenceCount == count && tokens == tokenCount)
        precondition(abs(weight - waitingWeight) < 1e-6)
    }
}
