import LorryModel
import LorryTensor

/// Runs steps through a model: the forward pass, then sampling. Owned by the engine thread.
package final class ModelStepRunner: StepRunner {
    private let forward: ForwardPass
    private let workers: WorkerPool
    private var batch = ForwardBatch()

    /// - Parameters:
    ///   - kvFormat: how keys and values are held; nil: the format that goes with the base's.
    ///   - maximumRowCount: tokens of the largest step.
    ///   - workers: used by this runner's thread alone from now on.
    package init(
        model: DecoderModel, kvFormat: OperandFormat?, maximumRowCount: Int, workers: WorkerPool
    ) {
        let configuration = model.configuration
        let layout = KVLayout(
            layerCount: configuration.layerCount, kvHeadCount: configuration.kvHeadCount,
            headDim: configuration.headDim, format: kvFormat ?? model.format.operandFormat)
        forward = ForwardPass(
            model: model, kvLayout: layout, maximumRowCount: maximumRowCount, pool: workers)
        self.workers = workers
    }

    package var usesMemory: Bool { true }
    package var kvBlockByteCount: Int { forward.kvLayout.blockByteCount }

    package func add(_ entry: StepPlan.Entry, program: AdapterProgram?, logits: Range<Int>) {
        let sequence = entry.sequence
        let range = entry.range
        // An activated adapter leaves the tokens before its activation to the base.
        let start = min(max(sequence.activationStart, range.lowerBound), range.upperBound)
        append(range.lowerBound..<start, of: sequence, nil, logits, from: range.lowerBound)
        append(start..<range.upperBound, of: sequence, program, logits, from: range.lowerBound)
    }

    /// - Parameter logits: counted from the token at `first`.
    private func append(
        _ range: Range<Int>, of sequence: TokenSequence, _ program: AdapterProgram?,
        _ logits: Range<Int>, from first: Int
    ) {
        guard !range.isEmpty else { return }
        let wanted = (logits.lowerBound + first..<logits.upperBound + first).clamped(to: range)
        batch.append(
            tokens: sequence.tokens[range], startPosition: range.lowerBound,
            blockTable: sequence.blockTable, program: program,
            logits: wanted.lowerBound - range.lowerBound..<wanted.upperBound - range.lowerBound)
    }

    package func run(_ results: inout [RowResult], arena: UnsafeMutableRawPointer?) {
        guard let arena else { preconditionFailure("a model computes with memory") }
        forward.run(batch, arena: arena)
        sample(&results)
    }

    package func clear() {
        forward.finish()
        batch.clear()
    }

    private func sample(_ results: inout [RowResult]) {
        var done = 0
        while done < results.count {
            let tile = done..<min(done + ForwardPass.logitTileRowCount, results.count)
            forward.withLogits(of: tile) { logits in
                results.withUnsafeMutableBufferPointer { results in
                    // Safe because each task has a row of logits and a result of its own, and only
                    // the row of a sequence's last token changes its sampler.
                    workers.run(taskCount: tile.count) { index in
                        Self.sampleRow(
                            &results[done + index], level: workers.level, logits.row(index))
                    }
                }
            }
            done += tile.count
        }
    }

    private static func sampleRow(
        _ result: inout RowResult, level: KernelLevel,
        _ logits: UnsafeMutableBufferPointer<Float>
    ) {
        let sequence = result.sequence
        let position = result.position
        let request = sequence.request
        if let count = request.promptLogprobCount, position + 1 < sequence.promptCount {
            // Several rows of one prompt are read at a time, so that none may use the sequence's own.
            var greatest = GreatestLogits()
            result.promptLogprobs = LogprobReader(UnsafeBufferPointer(logits), level: level)
                .logprobs(
                    of: sequence.tokens[position + 1], topCount: count, using: &greatest)
        }
        guard result.isSampled else { return }
        let token = sequence.sampler.sample(logits, level: level)
        guard logits[Int(token)].isFinite else {
            result.isBroken = true
            return
        }
        result.token = token
        // Those of the model: the sampler leaves the logits as they were.
        if let count = request.logprobCount {
            result.logprobs = LogprobReader(UnsafeBufferPointer(logits), level: level)
                .logprobs(of: token, topCount: count, using: &sequence.greatest)
        }
    }
}
