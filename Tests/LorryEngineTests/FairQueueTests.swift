import LorryEngine
import Testing

/// What the fair queue is to be, said plainly: everything is looked for anew each time.
private final class NaiveQueue {
    struct Flow: Hashable {
        var tenant: String
        var priority: Int
        var adapter: String?
    }

    private(set) var waiting: [TokenSequence] = []
    private var tenants: [String: Double] = [:]
    private var flows: [Flow: Double] = [:]
    private var lastTenant: String?
    private var lastFlow: [Flow: Flow] = [:]
    var states: [String: AdapterState] = [:]

    static func flow(_ sequence: TokenSequence) -> Flow {
        Flow(
            tenant: sequence.request.tenant, priority: sequence.request.priority,
            adapter: sequence.adapterID?.digest)
    }

    func state(_ sequence: TokenSequence) -> AdapterState {
        sequence.adapterID.map { states[$0.digest] ?? .ready } ?? .ready
    }

    private func level(_ flow: Flow) -> Flow { Flow(tenant: flow.tenant, priority: flow.priority) }

    func enqueue(_ sequence: TokenSequence, members: [TokenSequence]) {
        let flow = Self.flow(sequence)
        let present = members.contains { level(Self.flow($0)) == level(flow) }
        if !present {
            // Nobody of this priority waits or runs: its adapters begin anew.
            for other in flows.keys where level(other) == level(flow) { flows[other] = nil }
            lastFlow[level(flow)] = nil
        }
        if !waiting.contains(where: { $0.request.tenant == flow.tenant }) {
            let others = waiting.map { tenants[$0.request.tenant] ?? 0 }.min()
            let floor = others ?? lastTenant.map { tenants[$0] ?? 0 } ?? 0
            tenants[flow.tenant] = max(tenants[flow.tenant] ?? 0, floor)
        }
        if !waiting.contains(where: { Self.flow($0) == flow }) {
            let others = waiting.map(Self.flow).filter { level($0) == level(flow) }
            let floor =
                others.map { flows[$0] ?? 0 }.min()
                ?? lastFlow[level(flow)].map { flows[$0] ?? 0 } ?? 0
            flows[flow] = max(flows[flow] ?? 0, floor)
        }
        waiting.append(sequence)
    }

    func withdraw(_ sequence: TokenSequence) { waiting.removeAll { $0 === sequence } }

    func admit(_ sequence: TokenSequence) {
        withdraw(sequence)
        let flow = Self.flow(sequence)
        lastTenant = flow.tenant
        lastFlow[level(flow)] = flow
        charge(sequence, Double(sequence.promptCount))
    }

    func charge(_ sequence: TokenSequence, _ cost: Double) {
        let flow = Self.flow(sequence)
        tenants[flow.tenant, default: 0] += cost / sequence.request.weight
        flows[flow, default: 0] += cost
    }

    /// Of two sequences of a state, whether the first comes first: by tenant, then priority, then
    /// adapter, then arrival; equals by the first of those that are ready.
    func first(_ state: AdapterState) -> TokenSequence? {
        let candidates = waiting.filter { self.state($0) == state }
        func oldest(_ isMember: (TokenSequence) -> Bool) -> UInt64 {
            candidates.filter(isMember).map(\.id.value).min() ?? .max
        }
        // The head of a tenant decides between equal tenants, and so on down.
        func best(_ pool: [TokenSequence]) -> TokenSequence? {
            let flowsHere = Set(pool.map(Self.flow))
            let flow = flowsHere.min { a, b in
                if a.priority != b.priority { return a.priority < b.priority }
                let (x, y) = (flows[a] ?? 0, flows[b] ?? 0)
                if x != y { return x < y }
                return oldest { Self.flow($0) == a } < oldest { Self.flow($0) == b }
            }
            return pool.filter { Self.flow($0) == flow }.min { $0.id < $1.id }
        }
        let byTenant = Dictionary(grouping: candidates) { $0.request.tenant }
        let heads = byTenant.values.compactMap(best)
        return heads.min { a, b in
            let (x, y) = (tenants[a.request.tenant] ?? 0, tenants[b.request.tenant] ?? 0)
            return x == y ? a.id < b.id : x < y
        }
    }
}

@Suite struct FairQueueTests {
    private static func sequence(
        _ id: UInt64, tenant: String = "x", priority: Int = 0, adapter: String? = nil,
        prompt: Int = 4, weight: Double = 1
    ) -> TokenSequence {
        let reference = adapter.map { name in
            AdapterReference(id: .init(name), name: name, byteCount: 0) {
                throw CancellationError()
            }
        }
        var request = GenerationRequest(
            id: "test", promptTokens: [Int32](repeating: 0, count: prompt), adapter: reference,
            maximumTokenCount: 8)
        request.tenant = tenant
        request.priority = priority
        request.weight = weight
        return TokenSequence(
            id: SequenceID(value: id), request: request,
            channel: EventChannel(capacity: 8) { _ in },
            limits: .init(tokenCount: prompt + 8, endTokens: []), submitted: .now)
    }

    /// All ways in which up to four sequences of two tenants, priorities and adapters may come,
    /// taken out one after another.
    @Test func ordersEverySmallLayoutAsTheModelDoes() {
        let kinds = (0..<8).map { ($0 & 1, $0 >> 1 & 1, $0 >> 2) }
        var layouts: [[Int]] = [[]]
        for _ in 0..<4 { layouts += layouts.flatMap { layout in (0..<8).map { layout + [$0] } } }
        for layout in Set(layouts) {
            let queue = FairQueue()
            let model = NaiveQueue()
            for (index, kind) in layout.enumerated() {
                let (tenant, priority, adapter) = kinds[kind]
                let sequence = Self.sequence(
                    UInt64(index + 1), tenant: "t\(tenant)", priority: priority,
                    adapter: adapter == 0 ? nil : "a", prompt: 2 + index)
                model.enqueue(sequence, members: model.waiting)
                queue.enqueue(sequence, .ready)
            }
            var isRight = true
            while let expected = model.first(.ready) {
                isRight = isRight && queue.first(.ready) === expected
                guard isRight else { break }
                queue.admit(expected)
                model.admit(expected)
            }
            #expect(isRight && queue.isEmpty, "layout \(layout)")
        }
    }

    @Test(arguments: [21, 22, 23, 24, 25] as [UInt64])
    func followsTheModelThroughLongRandomRuns(_ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let queue = FairQueue()
        let model = NaiveQueue()
        var members: [TokenSequence] = []
        let adapters = ["a", "b", "c", "d"]
        for step in 1...6_000 {
            switch Int.random(in: 0..<8, using: &random) {
            case 0...2 where members.count < 60:
                let sequence = Self.sequence(
                    UInt64(step), tenant: ["x", "y", "z"].randomElement(using: &random) ?? "x",
                    priority: .random(in: 0...2, using: &random),
                    adapter: (adapters + [nil]).randomElement(using: &random) ?? nil,
                    prompt: .random(in: 1...50, using: &random),
                    weight: 1)
                model.enqueue(sequence, members: members)
                queue.enqueue(sequence, model.state(sequence))
                members.append(sequence)
            case 3, 4:
                guard let next = queue.first(.ready) else { break }
                queue.admit(next)
                model.admit(next)
            case 5:
                guard let sequence = members.randomElement(using: &random) else { break }
                queue.remove(sequence)
                model.withdraw(sequence)
                members.removeAll { $0 === sequence }
            case 6:
                let running = members.filter { $0.standing == .running }
                guard let sequence = running.randomElement(using: &random) else { break }
                queue.chargeOutput(sequence)
                model.charge(sequence, 2)
            default:
                let adapter = adapters.randomElement(using: &random) ?? "a"
                let state = AdapterState.allCases.randomElement(using: &random) ?? .ready
                model.states[adapter] = state
                queue.setState(state, of: .init(adapter))
            }
            if step % 50 == 0 { queue.checkInvariants() }
            let isRight = AdapterState.allCases.allSatisfy { queue.first($0) === model.first($0) }
            #expect(isRight && queue.count == model.waiting.count, "seed \(seed), step \(step)")
            guard isRight else { return }
        }
    }

    @Test func aReturningTenantHasSavedNothing() {
        let queue = FairQueue()
        let first = Self.sequence(1, tenant: "x", prompt: 1_000)
        queue.enqueue(first, .ready)
        queue.enqueue(Self.sequence(2, tenant: "x"), .ready)
        queue.admit(first)
        queue.enqueue(Self.sequence(3, tenant: "y"), .ready)
        #expect(queue.account(of: Self.sequence(9, tenant: "y").request).counter == 1_000)
    }

    @Test func aWeightDividesWhatIsCharged() {
        let queue = FairQueue()
        let heavy = Self.sequence(1, tenant: "x", prompt: 100, weight: 4)
        queue.enqueue(heavy, .ready)
        queue.admit(heavy)
        queue.chargeOutput(heavy)
        #expect(queue.account(of: heavy.request).counter == 102.0 / 4)
    }

    /// What a preempted sequence did was paid for, and nobody who came later goes before it.
    @Test func aPreemptedSequenceKeepsItsPlace() {
        let queue = FairQueue()
        let first = Self.sequence(1)
        queue.enqueue(first, .ready)
        queue.enqueue(Self.sequence(2), .ready)
        queue.admit(first)
        let paid = queue.account(of: first.request).counter
        queue.requeue(first, .ready)
        #expect(queue.first(.ready) === first)
        queue.admit(first)
        #expect(queue.account(of: first.request).counter == paid)
        queue.checkInvariants()
    }

    @Test func aHundredThousandAdaptersAreNoBurden() {
        let queue = FairQueue()
        var all: [TokenSequence] = []
        for id in 1...100_000 as ClosedRange<UInt64> {
            let sequence = Self.sequence(id, tenant: "t\(id % 7)", adapter: "a\(id)", prompt: 1)
            queue.enqueue(sequence, id % 3 == 0 ? .ready : .absent)
            all.append(sequence)
        }
        var count = 0
        while let next = queue.first(.ready) {
            queue.admit(next)
            queue.remove(next)
            count += 1
        }
        #expect(count == 33_333)
        while let next = queue.first(.absent) { queue.remove(next) }
        #expect(queue.isEmpty && queue.count == 0)
        withExtendedLifetime(all) {}
    }
}
