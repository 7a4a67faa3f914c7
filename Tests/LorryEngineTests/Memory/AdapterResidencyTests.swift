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
                at: .linear(layer: 0, .query), vector: .constant([Float](repeating: 1, count: 64)))
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
            _ name: String, blocks: Int = 2, sparing: Int = 0, isAhead: Bool = false,
            includingPinned: Bool = false
        ) -> AdapterResidency.Readiness {
            pool.reach = includingPinned ? .pinned : .awaited
            return residency.prepare(
                reference(name, blocks: blocks), sparing: sparing, isAhead: isAhead, now: .now)
        }

        /// A sequence comes and waits.
        func join(_ name: String) { residency.join(reference(name, blocks: 2)) }
        func leave(_ name: String) { residency.leave(.init(name)) }

        /// A sequence comes and runs.
        func run(_ name: String) {
            join(name)
            residency.acquireLease(.init(name))
        }

        func end(_ name: String) {
            residency.releaseLease(.init(name))
            leave(name)
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
            residency.chargeFully(.init(name), program)
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
        bench.run("a")
        bench.end("a")
        bench.residency.beginPlan()
        bench.load("d")
        #expect(bench.evicted == ["b"])
        bench.run("c")
        bench.run("a")
        bench.load("e")
        #expect(bench.evicted == ["b", "d"])
        #expect(bench.residency.findFault() == nil)
        #expect(bench.residency.leaseCount == 2)
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
        #expect(bench.evicted.isEmpty, "what is spare need not be free yet")
        #expect(bench.prepare("d", blocks: 2, sparing: 2) == .loading)
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

    @Test func forgottenOnesGoWhenNobodyWantsThem() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("a", "b")
        bench.run("a")
        bench.join("a")
        bench.residency.forget(.init("a"))
        bench.end("a")
        #expect(bench.isResident("a"), "one still waits for it")
        bench.leave("a")
        #expect(!bench.isResident("a"))
        #expect(bench.isResident("b"))
        #expect(bench.prepare("c") == .loading)
        bench.residency.forget(.init("c"))
        #expect(!bench.isResident("c"))
        bench.finish("c")
        #expect(!bench.isResident("c"))
        #expect(bench.pool.adapterBlockCount == 2)
        bench.residency.forget(.init("never seen"))
        #expect(bench.residency.findFault() == nil)
    }

    /// Else those who come last would drive out what those before them have had loaded.
    @Test func readAheadLeavesWhatOthersWaitFor() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("a", "b", "c")
        for name in ["a", "b"] { bench.join(name) }
        #expect(bench.prepare("d", isAhead: true) == .loading)
        #expect(bench.evicted == ["c"])
        bench.finish("d")
        bench.join("d")
        #expect(bench.prepare("e", isAhead: true) == .lacksRoom)
        // Whoever is to run takes the room of the one that is wanted last.
        #expect(bench.prepare("e") == .loading)
        #expect(bench.evicted == ["c", "d"])
        bench.finish("e")
        bench.residency.beginPlan()
        for name in ["a", "b", "d"] { bench.leave(name) }
        #expect(bench.residency.findFault() == nil)
        #expect(bench.pool.availableCount(.idle) == 6)
    }

    @Test func whatIsUsedOftenStays() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("rare", "often", "twice")
        for (name, count) in [("often", 9), ("twice", 2), ("rare", 1)] {
            for _ in 0..<count {
                bench.run(name)
                bench.end(name)
            }
        }
        bench.load("x", "y", "z")
        #expect(bench.evicted.first == "rare")
        #expect(bench.isResident("often"))
    }

    /// The more was evicted since, the less old fame counts.
    @Test func oldFameFades() throws {
        let bench = try Bench(blockCount: 4)
        bench.load("famous")
        for _ in 0..<100 {
            bench.run("famous")
            bench.end("famous")
        }
        for index in 0..<40 { bench.load("new\(index)") }
        #expect(!bench.isResident("famous"))
    }

    @Test func theRosterKnowsWhoUsesWhat() throws {
        let bench = try Bench(blockCount: 6)
        bench.load("b", "a")
        bench.run("a")
        bench.run("a")
        bench.join("c")
        bench.residency.setPinned(.init("b"), true)
        var statistics = EngineStatistics()
        bench.residency.roster.describe(&statistics)
        #expect(statistics.runningAdapters == ["a"])
        #expect(statistics.waitingAdapters == ["c"])
        #expect(statistics.residentAdapters.map(\.name) == ["a", "b"])
        #expect(statistics.residentAdapters.map(\.leaseCount) == [2, 0])
        #expect(statistics.residentAdapters.map(\.isPinned) == [false, true])
        #expect(statistics.residentAdapterByteCount == 4 << 10)
        #expect(statistics.adaptersChanged.timeIntervalSince1970 > 0)
        bench.end("a")
        bench.end("a")
        bench.leave("c")
        bench.residency.forget(.init("a"))
        bench.residency.roster.describe(&statistics)
        #expect(statistics.runningAdapters.isEmpty && statistics.waitingAdapters.isEmpty)
        #expect(statistics.residentAdapters.map(\.name) == ["b"])
    }

    /// A hundred thousand versions that come and go cost no more than the few that are resident.
    @Test func manyAdaptersAreNoBurden() throws {
        let bench = try Bench(blockCount: 4000)
        for index in 0..<100_000 {
            let name = "\(index)"
            bench.residency.beginPlan()
            #expect(bench.prepare(name) == .loading)
            bench.finish(name)
            bench.run(name)
            bench.end(name)
        }
        #expect(bench.evicted.count == 98_000)
        #expect(bench.residency.findFault() == nil)
        bench.pool.checkInvariants()
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
