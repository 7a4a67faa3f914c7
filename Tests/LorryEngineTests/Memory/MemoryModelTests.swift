import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

/// Long random runs of pool, prefix cache and residency together, against a model that is too
/// simple to be wrong: what each sequence and adapter has, and nothing else.
@Suite struct MemoryModelTests {
    private final class Run {
        let bench: CacheBench
        let residency: AdapterResidency
        var random: SeededGenerator
        var loading: [AdapterVersionID] = []
        var live: [(sequence: TokenSequence, scope: PrefixScope, adapter: AdapterVersionID?)] = []
        var generation = 0
        let program: AdapterProgram
        private static let adapterCount = 6

        init(blockCount: Int, seed: UInt64, program: AdapterProgram) throws {
            bench = try CacheBench(blockCount: blockCount)
            let started = Started()
            residency = AdapterResidency(pool: bench.pool) { started.ids.append($0.id) }
            random = SeededGenerator(seed: seed)
            self.program = program
            self.started = started
        }

        private final class Started { var ids: [AdapterVersionID] = [] }
        private let started: Started

        func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }

        /// Adapters take from none to five blocks, and now and then a name has a new version.
        private func reference() -> AdapterReference {
            let name = number(0..<Self.adapterCount)
            return AdapterReference(
                id: .init("\(name)-\(generation)"), name: "\(name)",
                byteCount: name * bench.pool.blockByteCount
            ) { throw CancellationError() }
        }

        private func tokens() -> [Int32] {
            let base = number(0..<3)
            return (0..<number(1..<90)).map { Int32($0 < 40 ? base : number(0..<2)) }
        }

        private func admit() throws {
            let reference = number(0..<3) == 0 ? nil : reference()
            let sequence = bench.sequence(tokens())
            if let reference {
                residency.join(reference)
                bench.pool.reach = number(0..<20) == 0 ? .pinned : .awaited
                defer { bench.pool.reach = .awaited }
                guard
                    residency.prepare(
                        reference, sparing: MemoryPool.requiredBlockCount(sequence),
                        isAhead: number(0..<4) == 0, now: .now) == .ready
                else { return residency.leave(reference.id) }
            }
            let scope = CacheBench.scope(
                reference?.id.digest, salt: ["", "s"][number(0..<2)])
            guard try bench.admit(sequence, scope, sparing: number(0..<3)) else {
                if let reference { residency.leave(reference.id) }
                return
            }
            if let reference { residency.acquireLease(reference.id) }
            live.append((sequence, scope, reference?.id))
        }

        private func end() {
            guard !live.isEmpty else { return }
            let (sequence, _, adapter) = live.remove(at: number(0..<live.count))
            bench.pool.release(sequence)
            guard let adapter else { return }
            residency.releaseLease(adapter)
            residency.leave(adapter)
        }

        private func compute() throws {
            guard !live.isEmpty else { return }
            let (sequence, scope, _) = live[number(0..<live.count)]
            if sequence.computedCount == sequence.tokens.count {
                sequence.append(Int32(number(0..<2)))
            }
            if number(0..<2) == 0 { bench.pool.catchUp(sequence) }
            _ = try bench.compute(sequence, scope, count: number(1..<50))
            try bench.check(sequence, scope)
        }

        private func finishLoad() {
            loading += started.ids
            started.ids = []
            guard !loading.isEmpty else { return }
            let id = loading.remove(at: number(0..<loading.count))
            _ = residency.finishLoad(id, number(0..<8) == 0 ? nil : program, now: .now)
        }

        func step() throws {
            residency.beginPlan()
            switch number(0..<40) {
            case 0..<10: try admit()
            case 10..<15: end()
            case 15..<30: try compute()
            case 30..<36: finishLoad()
            case 36: residency.setPinned(reference().id, number(0..<2) == 0)
            case 37: residency.forget(reference().id)
            case 38: generation += 1
            default: _ = bench.pool.evictOne(.idle)
            }
        }

        func findFault() -> String? {
            if let fault = bench.pool.findFault() ?? residency.findFault() { return fault }
            var holders: [BlockID: Int] = [:]
            for (sequence, _, _) in live {
                for block in sequence.blocks { holders[block, default: 0] += 1 }
            }
            guard holders.allSatisfy({ bench.pool.holderCount($0) == $1 }),
                holders.count == bench.pool.kvBlockCount
            else { return "\(bench.pool.kvBlockCount) blocks are held, not \(holders.count)" }
            for (_, _, adapter) in live {
                guard let adapter else { continue }
                guard residency.program(adapter) != nil else { return "a leased adapter is gone" }
            }
            let sum =
                bench.pool.freeCount + bench.pool.kvBlockCount + bench.pool.cachedBlockCount
                + bench.pool.adapterBlockCount
            return sum == bench.pool.blockCount ? nil : "\(sum) blocks"
        }

        /// Ends everything and forgets every version: then all blocks are free.
        func drain() {
            while !live.isEmpty { end() }
            while !loading.isEmpty || !started.ids.isEmpty { finishLoad() }
            while bench.pool.evictOne(.pinned) {}
        }
    }

    private func program() throws -> AdapterProgram {
        let model = try DecoderModel(
            directory: ReferenceModel.bundledRoot.appending(path: "llama/base"), format: .f32,
            pool: WorkerPool(threadCount: 1))
        return try AdapterProgramBuilder(configuration: model.configuration).build(
            method: "test", format: .f32, model: model)
    }

    /// Small pools meet every corner, large ones every chain.
    @Test(arguments: [3, 7, 12, 25, 60], [1, 2, 3] as [UInt64])
    func keepsItsInvariants(_ blockCount: Int, _ seed: UInt64) throws {
        let run = try Run(blockCount: blockCount, seed: seed, program: program())
        for step in 0..<4000 {
            try run.step()
            // The plan is over where the check looks.
            run.residency.beginPlan()
            if let fault = run.findFault() {
                Issue.record("\(blockCount) blocks, seed \(seed), step \(step): \(fault)")
                return
            }
        }
        run.drain()
        #expect(run.findFault() == nil)
        #expect(run.bench.pool.freeCount == blockCount)
        #expect(run.residency.byteCount == 0)
    }
}
