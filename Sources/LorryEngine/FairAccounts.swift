// What the fair queue keeps of each tenant: its priorities, and of each of those its adapters.

/// A tenant's service so far, and what waits for it by priority.
package final class TenantAccount: HeapNode {
    package let name: String
    /// Weighted tokens that it was given, divided by its weight, or what it was lifted to.
    package internal(set) var counter = 0.0
    /// Of its latest request.
    package internal(set) var weight = 1.0
    package internal(set) var waitingCount = 0
    /// Tokens that its waiting sequences have still to compute.
    package internal(set) var waitingTokenCount = 0
    package internal(set) var runningCount = 0
    var classes: [Int: PriorityClass] = [:]
    var heaps = StateHeaps<PriorityClass>()
    var places = HeapPlaces()
    /// States of adapters with which it takes no part in what is left of the plan under way.
    var heldBack: Set<AdapterState> = []
    /// Its part of the step being planned.
    var share = StepShare()

    init(name: String) { self.name = name }

    func head(_ state: AdapterState) -> TokenSequence? { heaps.first(state)?.head(state) }

    func precedes(_ other: TenantAccount, in state: AdapterState) -> Bool {
        if counter != other.counter { return counter < other.counter }
        return TokenSequence.arrived(head(state), before: other.head(state))
    }
}

/// A tenant's sequences of one priority, by adapter.
final class PriorityClass: HeapNode {
    unowned let tenant: TenantAccount
    let priority: Int
    var flows: [AdapterVersionID?: AdapterFlow] = [:]
    var heaps = StateHeaps<AdapterFlow>()
    var places = HeapPlaces()
    /// Sequences that wait or run.
    var memberCount = 0
    /// Sequences that wait and whose adapter is resident or on its way.
    var preparedCount = 0
    var lastServed: AdapterFlow?
    /// How many flows there may be before idle ones are looked for.
    var sweepCount = 64

    init(tenant: TenantAccount, priority: Int) {
        self.tenant = tenant
        self.priority = priority
    }

    func head(_ state: AdapterState) -> TokenSequence? { heaps.first(state)?.head }

    func precedes(_ other: PriorityClass, in state: AdapterState) -> Bool {
        priority < other.priority
    }

    /// Forgets idle flows that would be lifted to where the others are if they came back.
    func sweep() {
        guard flows.count > sweepCount else { return }
        let floor = heaps.lowestCounter ?? lastServed?.counter ?? 0
        flows = flows.filter { $0.value.memberCount > 0 || $0.value.counter > floor }
        sweepCount = max(64, 2 * flows.count)
    }
}

/// The sequences of one tenant, priority and adapter, in the order of their arrival.
package final class AdapterFlow: HeapNode {
    unowned let owner: PriorityClass
    let adapter: AdapterVersionID?
    var counter = 0.0
    var state = AdapterState.ready
    var sequences = IndexedHeap<TokenSequence>(.ready)
    var places = HeapPlaces()
    /// Sequences that wait or run.
    var memberCount = 0
    /// A load was charged, and nobody has run with the adapter since.
    var hasPaidLoad = false

    init(owner: PriorityClass, adapter: AdapterVersionID?) {
        self.owner = owner
        self.adapter = adapter
    }

    var tenant: TenantAccount { owner.tenant }
    var head: TokenSequence? { sequences.first }

    func precedes(_ other: AdapterFlow, in state: AdapterState) -> Bool {
        if counter != other.counter { return counter < other.counter }
        return TokenSequence.arrived(head, before: other.head)
    }
}

extension TokenSequence: HeapNode {
    package func precedes(_ other: TokenSequence, in state: AdapterState) -> Bool { id < other.id }

    fileprivate static func arrived(
        _ first: TokenSequence?, before second: TokenSequence?
    ) -> Bool {
        guard let first, let second else { return second == nil && first != nil }
        return first.id < second.id
    }
}

extension StateHeaps where Node == AdapterFlow {
    var lowestCounter: Double? { AdapterState.allCases.compactMap { first($0)?.counter }.min() }
}

extension StateHeaps where Node == TenantAccount {
    var lowestCounter: Double? { AdapterState.allCases.compactMap { first($0)?.counter }.min() }
}
