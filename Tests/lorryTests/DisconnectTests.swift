import Testing

/// A generator with a seed, so that a failure can be run again.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

extension EndToEndTests {
    struct DisconnectTests {
        private struct Gone: Error {}

        /// Asks and goes away: after so many events of a stream, or after a time where there is
        /// none, which may be while the request waits.
        private func leave(_ ask: Ask, after eventCount: Int, _ client: Client) async {
            let counter = StreamedAnswer.Recorder()
            guard eventCount == 0 else {
                try? await client.stream(ask) { event in
                    try counter.record(event)
                    return counter.tokenCount < eventCount
                }
                return
            }
            try? await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { _ = try await client.complete(ask) }
                group.addTask {
                    try await Task.sleep(for: .milliseconds(30))
                    throw Gone()
                }
                try await group.next()
            }
        }

        @Test func clientsThatGoAwayLeaveNothingBehind() async throws {
            let seed: UInt64 = 64
            var options = LorryServer.Options()
            options.further = ["--max-running", "16"]
            try await LorryServer.run(options) { server in
                let client = server.client
                var random = SeededGenerator(seed: seed)
                let models = ["tales-5m", "pirate", "shout", "telegram"]
                var streamCount = 0
                await withTaskGroup(of: Void.self) { group in
                    for index in 0..<64 {
                        let ask = Ask(
                            models[index % models.count], .text("Once upon a time"), 450)
                        let eventCount = Int.random(in: 0...40, using: &random)
                        streamCount += eventCount > 0 ? 1 : 0
                        group.addTask { await leave(ask, after: eventCount, client) }
                    }
                }
                let page = try await client.metricsAtRest()
                #expect(page.isAtRest, "seed \(seed)")
                #expect(
                    page.value("vllm:request_success_total", ["finished_reason": "length"]) == 0)
                // One that left before its request was read is not counted.
                let cancelled = page.sum("lorry_requests_total", ["outcome": "cancelled"])
                #expect((Double(streamCount)...64).contains(cancelled))
                #expect(page.sum("lorry_requests_total") == cancelled)
                // No lease is left either: a deleted adapter leaves the memory and the disk.
                for name in models.dropFirst() {
                    let reply = try await client.delete(name)
                    #expect(reply.status == 200)
                }
                var resident = page.keys("lorry_adapter_resident")
                for _ in 0..<1000 where !resident.isEmpty {
                    try await Task.sleep(for: .milliseconds(10))
                    resident = try await client.metrics().keys("lorry_adapter_resident")
                }
                #expect(resident.isEmpty)
            }
        }
    }
}
