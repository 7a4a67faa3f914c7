import LorryEngine
import LorryModel
import LorryTensor

/// A clock that stands still until it is told to go on.
final class SimulatedClock: EngineClock {
    let start = ContinuousClock.now
    private(set) var now: ContinuousClock.Instant

    init() { now = start }

    var seconds: Double { (now - start) / .seconds(1) }

    func advance(by duration: Duration) { now += duration }
    func advance(toSecond second: Double) { now = max(now, start + .seconds(second)) }
}

/// Computes nothing: notes what a step would cost, and lets the clock go on by it.
///
/// A step takes as long as its `StepWork` at the measured share of the machine's limits; that share
/// is a mean of prefill's and decode's, weighted by the step's tokens.
final class SimulatedRunner: StepRunner {
    let usesMemory = false
    let kvBlockByteCount: Int
    private let model: SimulatedModel
    private let machine: SimulatedMachine
    private let clock: SimulatedClock
    // Of the step being added.
    private var spans: [StepWork.Span] = []
    private var decodeCount = 0
    private var assignment: [Int?] = []
    private var adapters: [StepWork.Adapter] = []
    private var lastAdapter: AdapterVersionID?
    private(set) var stepCount = 0
    private(set) var busySeconds = 0.0

    init(model: SimulatedModel, machine: SimulatedMachine, clock: SimulatedClock) {
        self.model = model
        self.machine = machine
        self.clock = clock
        kvBlockByteCount = model.positionByteCount * KVLayout.blockSize
    }

    func add(_ entry: StepPlan.Entry, program: AdapterProgram?, logits: Range<Int>) {
        let range = entry.range
        spans.append(
            .init(
                sequence: spans.count, start: range.lowerBound, count: range.count,
                logitCount: logits.count))
        if range.count == 1, range.lowerBound >= entry.sequence.promptCount { decodeCount += 1 }
        assignment.append(entry.sequence.request.adapter.map(number(of:)))
    }

    /// Entries with one adapter lie side by side.
    private func number(of adapter: AdapterReference) -> Int {
        if adapter.id != lastAdapter {
            lastAdapter = adapter.id
            adapters.append(
                .init(
                    byteCount: adapter.byteCount,
                    parameterCount: adapter.byteCount / model.operandFormat.byteCount))
        }
        return adapters.count - 1
    }

    func run(_ results: inout [RowResult], arena: UnsafeMutableRawPointer?) {
        let work = model.cost.work(spans, assignment: assignment, adapters: adapters)
        let rowCount = spans.reduce(0) { $0 + $1.count }
        let decodes = Double(decodeCount) / Double(max(rowCount, 1))
        let share = decodes * machine.decodeShare + (1 - decodes) * machine.prefillShare
        let seconds = work.limitSeconds(machine) / share + machine.stepSeconds
        busySeconds += seconds
        stepCount += 1
        clock.advance(by: .seconds(seconds))
        for index in results.indices where results[index].isSampled { results[index].token = 0 }
    }

    func clear() {
        spans.removeAll(keepingCapacity: true)
        assignment.removeAll(keepingCapacity: true)
        adapters.removeAll(keepingCapacity: true)
        decodeCount = 0
        lastAdapter = nil
    }
}
