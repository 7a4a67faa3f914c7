import LorryTensor
import Synchronization
import Testing

@Suite struct WorkerPoolTests {
    @Test(arguments: 1...4)
    func runsEveryTaskOnce(threadCount: Int) {
        let pool = WorkerPool(threadCount: threadCount)
        for taskCount in [0, 1, 2, 3, 17, 1000] {
            let runs = AlignedBuffer<Int32>(count: taskCount)
            pool.run(taskCount: taskCount) { runs.pointer[$0] += 1 }
            #expect(runs.elements.allSatisfy { $0 == 1 }, "\(taskCount) tasks")
        }
    }

    /// A run's writes are seen by the caller, and by the next run on whatever thread.
    @Test func manySmallRunsFollowEachOther() {
        let pool = WorkerPool(threadCount: 3)
        let cells = AlignedBuffer<Int>(count: 8)
        for round in 0..<20_000 {
            pool.run(taskCount: 8) { cells.pointer[$0] = round }
            #expect(cells.elements.allSatisfy { $0 == round })
        }
    }

    @Test func wakesWorkersThatSleep() async throws {
        let pool = WorkerPool(threadCount: 3)
        let total = Atomic<Int>(0)
        for _ in 0..<20 {
            try await Task.sleep(for: .milliseconds(2))
            pool.run(taskCount: 50) { _ in total.add(1, ordering: .relaxed) }
        }
        #expect(total.load(ordering: .relaxed) == 1000)
    }

    /// Two tasks that wait for each other end only if two threads work.
    @Test func workersTakePart() {
        let pool = WorkerPool(threadCount: 2)
        let arrived = Atomic<Int>(0)
        pool.run(taskCount: 2) { _ in
            arrived.add(1, ordering: .sequentiallyConsistent)
            while arrived.load(ordering: .sequentiallyConsistent) < 2 {}
        }
        #expect(arrived.load(ordering: .relaxed) == 2)
    }

    @Test func endsItsWorkersWhileTheySpinOrSleep() async throws {
        for round in 0..<50 {
            let pool = WorkerPool(threadCount: 4, pinned: round % 2 == 0)
            let total = Atomic<Int>(0)
            pool.run(taskCount: 10) { _ in total.add(1, ordering: .relaxed) }
            if round % 3 == 0 { try await Task.sleep(for: .milliseconds(1)) }
            #expect(total.load(ordering: .relaxed) == 10)
        }
    }

    @Test func aRunInsideARunTraps() async {
        await #expect(processExitsWith: .failure) {
            let pool = WorkerPool(threadCount: 2)
            pool.run(taskCount: 4) { _ in pool.run(taskCount: 1) { _ in } }
        }
    }
}
