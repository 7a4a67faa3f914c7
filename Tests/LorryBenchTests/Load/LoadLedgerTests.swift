import LorryBench
import Testing

struct LoadLedgerTests {
    private func request(_ outputTokens: Int = 3, number: Int = 0) -> NumberedRequest {
        NumberedRequest(
            TraceRequest(
                arrivalSeconds: 1, adapter: 0, promptTokenCount: 4,
                outputTokenCount: outputTokens), number: number)
    }

    private func underWay(_ ledger: inout LoadLedger, outputTokens: Int = 3) -> Int {
        let id = ledger.plan(request(outputTokens), arrivalSeconds: 1)
        ledger.send(id, at: 1.5)
        ledger.head(id, status: 200)
        return id
    }

    @Test func aWholeAnswerIsFinishedAndTimedFromItsArrival() {
        var ledger = LoadLedger(keepsTokens: true)
        let id = underWay(&ledger)
        ledger.receive(id, .tokens(count: 1, ids: [5]), at: 2)
        ledger.receive(id, .tokens(count: 2, ids: [6, 7]), at: 2.5)
        ledger.receive(id, .usage(outputTokenCount: 3, cachedPromptTokenCount: 2), at: 2.5)
        ledger.receive(id, .done, at: 2.5)
        ledger.end(id, at: 2.75)
        let record = ledger.records[id]
        #expect(record.outcome == .finished)
        #expect(record.firstTokenDelay == 1)
        #expect(record.gaps == [0.5, 0])
        #expect(record.meanGap == 0.25)
        #expect(record.latency == 1.75)
        #expect(record.tokenIDs == [5, 6, 7])
        #expect(record.cachedPromptTokenCount == 2)
    }

    @Test func tokensAreKeptOnlyWhereAskedFor() {
        var ledger = LoadLedger(keepsTokens: false)
        let id = underWay(&ledger)
        ledger.receive(id, .tokens(count: 1, ids: [5]), at: 2)
        #expect(ledger.records[id].tokenIDs.isEmpty)
        #expect(ledger.records[id].tokenCount == 1)
    }

    private func reason(_ body: (inout LoadLedger, Int) -> Void) -> String? {
        var ledger = LoadLedger(keepsTokens: false)
        let id = underWay(&ledger)
        body(&ledger, id)
        guard case .failed(let reason) = ledger.records[id].outcome else { return nil }
        return reason
    }

    @Test func eachFailureHasItsReason() {
        #expect(reason { $0.end($1, at: 2) } == "the stream ended without [DONE]")
        #expect(
            reason { ledger, id in
                ledger.receive(id, .tokens(count: 2, ids: [1, 2]), at: 2)
                ledger.receive(id, .done, at: 2)
                ledger.end(id, at: 2)
            } == "an answer of another length than asked for")
        #expect(
            reason { ledger, id in
                ledger.receive(id, .failure("no memory"), at: 2)
                ledger.receive(id, .done, at: 2)
                ledger.end(id, at: 2)
            } == "error in the stream: no memory")
        #expect(reason { $0.fail($1, "reset", at: 2) } == "reset")
        #expect(
            reason { ledger, id in
                ledger.head(id, status: 429)
                ledger.refusal(
                    id, Array(#"{"error":{"message":"try again in 12 s"}}"#.utf8))
                ledger.end(id, at: 2)
            } == "status 429: try again in # s")
        #expect(
            reason { ledger, id in
                ledger.head(id, status: 502)
                ledger.refusal(id, Array("<html>".utf8))
                ledger.end(id, at: 2)
            } == "status 502")
    }

    @Test func countsAddUp() {
        var ledger = LoadLedger(keepsTokens: false)
        _ = ledger.plan(request(), arrivalSeconds: 0)
        let finished = underWay(&ledger, outputTokens: 1)
        ledger.receive(finished, .tokens(count: 1, ids: []), at: 2)
        ledger.receive(finished, .done, at: 2)
        ledger.end(finished, at: 2)
        let failed = underWay(&ledger)
        ledger.fail(failed, "reset", at: 2)
        // What comes after an end changes nothing.
        ledger.cancel(failed, at: 3)
        ledger.end(failed, at: 3)
        let cancelled = underWay(&ledger)
        ledger.cancel(cancelled, at: 3)
        ledger.receive(cancelled, .tokens(count: 1, ids: []), at: 4)
        let counts = ledger.counts
        #expect(counts.planned == 4)
        #expect(counts.unsent == 1)
        #expect(counts.sent == 3)
        #expect([counts.finished, counts.failed, counts.cancelled] == [1, 1, 1])
        #expect(ledger.records[cancelled].tokenCount == 0)
    }

    @Test func numbersCountATenantsRequests() {
        let trace = [0, 1, 0, 0, 1].map {
            TraceRequest(
                arrivalSeconds: 0, adapter: nil, tenant: $0, promptTokenCount: 1,
                outputTokenCount: 1)
        }
        #expect(NumberedRequest.numbered(trace).map(\.number) == [0, 0, 1, 2, 1])
    }
}
