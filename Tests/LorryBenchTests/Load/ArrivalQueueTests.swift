import LorryBench
import Testing

struct ArrivalQueueTests {
    private func trace(_ times: [Double]) -> LoadSource {
        .trace(
            NumberedRequest.numbered(
                times.map {
                    TraceRequest(
                        arrivalSeconds: $0, adapter: nil, promptTokenCount: 1, outputTokenCount: 1)
                }))
    }

    private func loop(_ inFlight: Int, loads: [Double] = [1]) throws -> LoadSource {
        let workload = try PunicaWorkload(
            adapterCount: 0, popularity: .identical, inFlight: inFlight, lengths: TokenLengths(),
            tenantLoads: loads)
        return .closedLoop(workload, tenants: Array(loads.indices), seconds: 10)
    }

    @Test func aTraceComesInItsTime() {
        var queue = ArrivalQueue(trace([0.5, 0.5, 2]))
        #expect(queue.next(at: 0.4) == nil)
        #expect(queue.nextSeconds == 0.5)
        #expect(queue.next(at: 0.6)?.request.number == 0)
        #expect(queue.next(at: 0.6)?.seconds == 0.5)
        #expect(queue.next(at: 0.6) == nil)
        #expect(queue.nextSeconds == 2)
        #expect(!queue.isExhausted)
        #expect(queue.next(at: 2)?.request.number == 2)
        #expect(queue.isExhausted)
        #expect(queue.nextSeconds == nil)
        #expect(queue.lastSeconds == 2)
    }

    @Test func whatWasNotDueIsThereAtTheEnd() {
        var queue = ArrivalQueue(trace([1, 2, 3]))
        _ = queue.next(at: 1)
        var rest = 0
        while queue.next(at: .infinity, isEnding: true) != nil { rest += 1 }
        #expect(rest == 2)
    }

    @Test func aLoopFillsItsPlacesAndRefillsThem() throws {
        var queue = ArrivalQueue(try loop(3))
        for number in 0..<3 { #expect(queue.next(at: 0)?.request.number == number) }
        #expect(queue.next(at: 1) == nil)
        // Nothing but an end brings the next, and the loop's own end.
        #expect(queue.nextSeconds == 10)
        queue.ended(tenant: 0, hasFailed: false, at: 1.5)
        let next = queue.next(at: 1.6)
        #expect(next?.request.number == 3)
        #expect(next?.seconds == 1.5)
        queue.ended(tenant: 0, hasFailed: false, at: 9)
        #expect(queue.next(at: 10) == nil)
        #expect(queue.isExhausted)
    }

    @Test func aFailedRequestsPlaceRests() throws {
        var queue = ArrivalQueue(try loop(2))
        _ = queue.next(at: 0)
        _ = queue.next(at: 0)
        queue.ended(tenant: 0, hasFailed: true, at: 1)
        queue.ended(tenant: 0, hasFailed: false, at: 1.05)
        #expect(queue.next(at: 1.05)?.seconds == 1.05)
        #expect(queue.next(at: 1.05) == nil)
        let due = 1 + ArrivalQueue.pauseAfterFailure
        #expect(queue.nextSeconds == due)
        #expect(queue.next(at: due)?.seconds == due)
    }

    @Test func tenantsKeepTheirPlaces() throws {
        var queue = ArrivalQueue(try loop(4, loads: [3, 1]))
        let first = (0..<4).compactMap { _ in queue.next(at: 0)?.request }
        #expect(first.map(\.request.tenant) == [0, 0, 0, 1])
        #expect(first.map(\.number) == [0, 1, 2, 0])
        queue.ended(tenant: 1, hasFailed: false, at: 1)
        let next = queue.next(at: 1)?.request
        #expect(next?.request.tenant == 1)
        #expect(next?.number == 1)
    }
}
