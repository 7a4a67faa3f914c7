import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

@Suite struct AdapterResidencyTests {
    /// A residency whose loads a test ends itself.
    private final class Bench {
        let pool: MemoryPool
        let residency: AdapterResidency
        private let started = Started()
        private let program: AdapterProgram
        private let evictions = Started()
        var inUse: Set<AdapterVersionID> = []

        private final class Started { var names: [String] = [] }

        init(blockCount: Int) throws {
            pool = try MemoryPool(budgetByteCount: blockCount << 10, blockByteCount: 1 << 10)
            residency = AdapterResidency(pool: pool) { [started] in started.names.append($0.name) }
            let folder = ReferenceModel.bundledRoot.appending(path: "llama")
            let model = try DecoderModel(
                directory: folder.appending(path: "base"), format: .f32,
                pool: WorkerPool(threadCount: 1))
            var builder = AdapterProgramBuilder(configuration: model.configuration)
            // 64 numbers: a quarter of a block.
            builder.addBias(
                layer: 0, site: .query, vector: .floats([Float](repeating: 1, count: 64)))
            program = try builder.build(method: "test", format: .f32, model: model)
            residency.onEvict = { [evictions] in evictions.names.append($0) }
        }

        var loads: [String] { started.names }
        var evicted: [String] { evictions.names }

        func reference(_ name: String, blocks: Int) -> AdapterReference {
            AdapterReference(id: .init(name), name: name, byteCount: blocks << 10) {
                throw CancellationError()
            }
        }

        func prepare(
            _ name: String, blocks: Int = 2, sparing: Int = 0, includingPinned: Bool = false
        ) -> AdapterResidency.Readiness {
            residency.prepare(
                reference(name, blocks: blocks), sparing: sparing,
                includingPinned: includingPinned, isInUse: { [self] in inUse.contains($0) },
                now: .now)
        }

        func finish(_ name: String, succeeding: Bool = true) {
            _ = residency.finishLoad(.init(name), succeeding ? program : nil, now: .now)
        }

        func load(_ names: String...) {
            for name in names {
                residency.beginPlan()
                #expect(prepare(name) == .loading)
                finish(name)
            }
            residency.beginPlan()
        }

        func charge(_ name: String) -> Bool {
            residency.chargeFully(.init(name), program) { [self] in inUse.contains($0) }
        }

        func isResident(_ name: String) -> Bool { residency.program(.init(name)) != nil }
    }

    @Test func loadsOnceAndCharges() throws {
        let bench = try Bench(blockCount: 10)
        #expect(bench.prepare("a") == .loading)
        #expect(bench.pool.adapterBlockCount == 2)
        #expect(bench.prepare("a") == .loading)
        #expect(bench.loads == ["a"])
        #expect(bench.residency.hasLoads)
        bench.finish("a")
        #expect(!bench.residency.hasLoads)
        #expect(bench.prepare("a") == .ready)
        #expect(bench.loads == ["a"])
    }

    @Test func evictsTheLeastRecentlyUsed() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("a", "b", "c")
        #expect(bench.prepare("a") == .ready)
        bench.residency.beginPlan()
        bench.load("d")
        #expect(bench.evicted == ["b"])
        bench.inUse = [.init("c")]
        bench.load("e")
        #expect(bench.evicted == ["b", "a"])
        bench.pool.checkInvariants()
        #expect(bench.pool.adapterBlockCount == 6)
    }

    @Test func pinnedOnesStayUnlessNothingElseHelps() throws {
        let bench = try Bench(blockCount: 4)
        bench.load("a", "b")
        bench.residency.setPinned(.init("a"), true)
        bench.residency.setPinned(.init("b"), true)
        #expect(bench.prepare("c") == .lacksRoom)
        #expect(bench.evicted.isEmpty)
        #expect(bench.prepare("c", blocks: 4, includingPinned: true) == .loading)
        #expect(bench.evicted == ["a", "b"])
    }

    @Test func evictsNothingInVain() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("a", "b")
        #expect(bench.prepare("huge", blocks: 7) == .lacksRoom)
        #expect(bench.prepare("c", blocks: 3, sparing: 4) == .lacksRoom)
        #expect(bench.evicted.isEmpty)
        #expect(bench.prepare("c", blocks: 2, sparing: 2) == .loading)
        #expect(bench.evicted == ["a"])
    }

    /// What a plan has found ready must not make room for the next sequence of the same plan.
    @Test func whatAPlanUsesIsNotEvictedByIt() throws {
        let bench = try Bench(blockCount: 4)
        bench.load("a", "b")
        #expect(bench.prepare("a") == .ready)
        #expect(bench.prepare("b") == .ready)
        #expect(bench.prepare("c") == .lacksRoom)
        bench.residency.beginPlan()
        #expect(bench.prepare("c") == .loading)
    }

    @Test func failedLoadsLeaveNothing() throws {
        let bench = try Bench(blockCount: 4)
        #expect(bench.prepare("a") == .loading)
        bench.finish("a", succeeding: false)
        #expect(bench.pool.adapterBlockCount == 0)
        #expect(!bench.isResident("a"))
        #expect(bench.prepare("a") == .loading)
        #expect(bench.loads == ["a", "a"])
    }

    @Test func forgottenOnesGoWhenIdle() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("a", "b")
        let uses = bench.inUse
        bench.residency.forget(.init("a"))
        bench.residency.evictForgotten { $0 == .init("a") }
        #expect(bench.isResident("a"))
        bench.residency.evictForgotten { uses.contains($0) }
        #expect(!bench.isResident("a"))
        #expect(bench.isResident("b"))
        #expect(bench.prepare("c") == .loading)
        bench.residency.forget(.init("c"))
        bench.residency.evictForgotten { uses.contains($0) }
        bench.finish("c")
        bench.residency.evictForgotten { uses.contains($0) }
        #expect(!bench.isResident("c"))
        #expect(bench.pool.adapterBlockCount == 2)
    }

    @Test func chargesWhatAProgramReallyTakes() throws {
        let bench = try Bench(blockCount: 1)
        #expect(bench.prepare("a", blocks: 0) == .loading)
        #expect(bench.pool.adapterBlockCount == 0)
        #expect(bench.charge("a"))
        #expect(bench.pool.adapterBlockCount == 1)
        #expect(bench.prepare("b", blocks: 0) == .loading)
        #expect(!bench.charge("b"), "there is no second block")
        bench.finish("b", succeeding: false)
        bench.finish("a", succeeding: false)
        #expect(bench.pool.adapterBlockCount == 0)
    }
}
