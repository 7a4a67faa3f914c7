import LorryEngine
import Testing

/// How many adapters are loaded before anybody can run with them.
@Suite struct ReadAheadTests {
    /// Two places, taken by long answers.
    private func fullBench() throws -> (SchedulerBench, [TokenSequence]) {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 64, runningCount: 2)
        let running = (0..<2).map { _ in bench.enqueue(2, answer: 100) }
        bench.step()
        #expect(bench.scheduler.running.count == 2)
        return (bench, running)
    }

    private func enqueueAbsent(
        _ names: [String], _ bench: SchedulerBench, priority: Int = 0, tenant: String = "default"
    ) {
        for name in names {
            bench.states[name] = .absent
            bench.enqueue(2, adapter: name, priority: priority, tenant: tenant)
        }
    }

    @Test func loadsAreAheadForAsManyAsThereArePlaces() throws {
        let (bench, running) = try fullBench()
        enqueueAbsent(["a", "b", "c", "d", "e"], bench)
        for _ in 0..<3 { bench.step() }
        #expect(bench.loads == ["a", "b"])
        bench.finishLoad("a")
        bench.step()
        #expect(bench.loads == ["a", "b"], "it waits for a place as before")
        bench.finishLoad("b")
        bench.scheduler.remove(running[0])
        bench.step()
        // The next comes before those who have had a load; one of them takes the place meanwhile.
        #expect(bench.loads == ["a", "b", "c"])
        #expect(bench.scheduler.running.last?.adapterID?.digest == "a")
        bench.scheduler.queue.checkInvariants()
    }

    /// What waits is ready, so that nothing is ahead of its turn; nor is anything held up by it.
    @Test func thoseWhoAreReadyCountToo() throws {
        let (bench, running) = try fullBench()
        for _ in 0..<2 { bench.enqueue(2, adapter: "ready") }
        enqueueAbsent(["a"], bench)
        bench.step()
        #expect(bench.loads == [])
        for sequence in running { bench.scheduler.remove(sequence) }
        bench.step()
        bench.step()
        #expect(bench.loads == ["a"])
    }

    @Test func aPriorityAndATenantHaveRoomOfTheirOwn() throws {
        let (bench, _) = try fullBench()
        enqueueAbsent(["a", "b", "c"], bench, priority: 1)
        bench.step()
        #expect(bench.loads == ["a", "b"])
        enqueueAbsent(["urgent"], bench, priority: -1)
        enqueueAbsent(["other", "another", "third"], bench, tenant: "second")
        bench.step()
        #expect(Set(bench.loads) == ["a", "b", "urgent", "other", "another"])
        bench.scheduler.queue.checkInvariants()
    }

    /// Free places are no reason to load for more than will have them.
    @Test func noMoreAreLoadedInAPlanThanHavePlaces() throws {
        let bench = try SchedulerBench(blockCount: 100, batchTokenCount: 64, runningCount: 2)
        enqueueAbsent(["a", "b", "c", "d", "e"], bench)
        bench.step()
        #expect(bench.loads == ["a", "b"])
        bench.finishLoad("a")
        bench.finishLoad("b")
        bench.step()
        #expect(bench.scheduler.running.count == 2)
    }

    /// An adapter that is found evicted when its turn comes gives its place ahead to another.
    @Test func whatIsFoundEvictedCountsNoMore() throws {
        let (bench, _) = try fullBench()
        enqueueAbsent(["a", "b", "c"], bench)
        bench.step()
        bench.finishLoad("a")
        bench.finishLoad("b")
        bench.step()
        #expect(bench.loads == ["a", "b"])
        bench.states["a"] = .absent
        bench.scheduler.queue.setState(.absent, of: .init("a"))
        bench.scheduler.queue.checkInvariants()
        bench.step()
        #expect(bench.loads.count == 3)
    }
}
