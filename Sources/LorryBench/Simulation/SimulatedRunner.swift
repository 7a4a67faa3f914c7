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
/// A step takes as long as reading its bytes or computing its products, whichever is longer, at the
/// measured share of the machine's limits; that share is a mean of prefill's and decode's, weighted
/// by the step's tokens.
final class SimulatedRunner: StepRunner {
    let usesMemory = false
    let kvBlockByteCount: Int
    private let model: SimulatedModel
    private let machine: SimulatedMachine
    private let clock: SimulatedClock
    // Of the step being added.
    private var rowCount = 0
    private var decodeCount = 0
    private var logitCount = 0
    private var pairCount = 0
    private var positionCount = 0
    private var adapterByteCount = 0
    private var adapterRowParameterCount = 0
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
        let (start, end) = (entry.range.lowerBound, entry.range.upperBound)
        rowCount += end - start
        if end - start == 1, start >= entry.sequence.promptCount { decodeCount += 1 }
        logitCount += logits.count
        pairCount += (end * (end + 1) - start * (start + 1)) / 2
        positionCount += end
        guard let adapter = entry.sequence.request.adapter else { return }
        adapterRowParameterCount +=
            (end - start) * adapter.byteCount / model.operandFormat.byteCount
        guard adapter.id != lastAdapter else { return }
        lastAdapter = adapter.id
        adapterByteCount += adapter.byteCount
    }

    func run(_ results: inout [RowResult], arena: UnsafeMutableRawPointer?) {
        let bytes =
            model.weightByteCount + Double(positionCount * model.positionByteCount)
            + Double(adapterByteCount)
        let weightOperations =
            2
            * (Double(model.layerParameterCount) * Double(rowCount)
                + Double(model.headParameterCount) * Double(logitCount))
        let operandOperations =
            Double(model.pairOperationCount) * Double(pairCount)
            + 2 * Double(adapterRowParameterCount)
        let limit = max(
            bytes / machine.readBytesPerSecond,
            weightOperations / machine.weightOperationsPerSecond + operandOperations
                / machine.operandOperationsPerSecond)
        let decodes = Double(decodeCount) / Double(max(rowCount, 1))
        let share = decodes * machine.decodeShare + (1 - decodes) * machine.prefillShare
        let seconds = limit / share + machine.stepSeconds
        busySeconds += seconds
        stepCount += 1
        clock.advance(by: .seconds(seconds))
        for index in results.indices where results[index].isSampled { results[index].token = 0 }
    }

    func clear() {
        (rowCount, decodeCount, logitCount, pairCount, positionCount) = (0, 0, 0, 0, 0)
        (adapterByteCount, adapterRowParameterCount) = (0, 0)
        lastAdapter = nil
    }
}
