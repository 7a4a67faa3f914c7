import Foundation
import Synchronization
import Testing

extension EndToEndTests {
    /// Mixed load over a budget that is too small for it: uploads, deletions, prompts that share
    /// their start, long contexts and bursts. `LORRY_SOAK_SECONDS` makes it longer.
    struct SoakTests {
        private static let seconds =
            ProcessInfo.processInfo.environment["LORRY_SOAK_SECONDS"].flatMap(Double.init) ?? 8
        private static let models = [
            "tales-5m", "pirate", "shout", "telegram", "robots", "shakespeare",
        ]
        private static let pirate = PackageFiles.talesAdapters.appending(path: "pirate")
        private static let contextLength = 512
        private static let budgetMebibytes = 6
        /// What the process may have beside the budget and the base's weights.
        private static let overheadMebibytes = 300.0

        /// The requests that are sent again and again; every answer has one right value.
        private static let asks: [Ask] =
            models.enumerated().flatMap { index, model in
                [
                    Ask(model, .text("Once upon a time there was number \(index)"), 40),
                    // Shares its start with those of the same model.
                    Ask(model, .text("Once upon a time there was number \(index) and a"), 12),
                    Ask(model, .tokens(tokens(seed: index, count: 200)), 20),
                ]
            }
            + [Ask(models[2], .tokens(tokens(seed: 9, count: contextLength - 8)), 8)]

        private static func tokens(seed: Int, count: Int) -> [Int] {
            (0..<count).map { 20 + (seed * 7919 + $0 * $0 * 31 + $0 * 17) % 1000 }
        }

        /// What the clients have seen.
        private final class Tally: Sendable {
            struct Counts {
                var answers = 0
                var retries = 0
                var uploads = 0
                var faults: [String] = []
            }
            private let state = Mutex(Counts())
            var counts: Counts { state.withLock { $0 } }
            func note(_ change: (inout Counts) -> Void) { state.withLock { change(&$0) } }
        }

        /// Sends a request until it is taken, and checks its answer.
        private static func ask(
            _ ask: Ask, expecting expected: [Int], _ client: Client, _ tally: Tally
        ) async throws {
            while true {
                let reply = try await client.post("/v1/completions", ask)
                if reply.status == 429 {
                    tally.note { $0.retries += 1 }
                    try await Task.sleep(for: .milliseconds(50))
                    continue
                }
                guard reply.status == 200 else {
                    return tally.note { $0.faults.append("\(reply.status) \(reply.text)") }
                }
                let answer = try reply.decoded(as: Completion.self).choice()
                return tally.note {
                    $0.answers += 1
                    if answer.tokenIds != expected {
                        $0.faults.append("\(ask.model): another answer than when it was alone")
                    }
                }
            }
        }

        /// Clients that never stop, and now and then forty more at once.
        private static func askAll(
            _ client: Client, _ expected: [[Int]], until end: ContinuousClock.Instant,
            _ tally: Tally
        ) async throws {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for worker in 0..<10 {
                    group.addTask {
                        var turn = worker
                        while .now < end {
                            turn += 7
                            let index = turn % asks.count
                            try await ask(asks[index], expecting: expected[index], client, tally)
                        }
                    }
                }
                group.addTask {
                    while .now < end {
                        try await Task.sleep(for: .seconds(1))
                        try await withThrowingTaskGroup(of: Void.self) { burst in
                            for index in 0..<40 {
                                let one = index % asks.count
                                burst.addTask {
                                    try await ask(
                                        asks[one], expecting: expected[one], client, tally)
                                }
                            }
                            try await burst.waitForAll()
                        }
                    }
                }
                try await group.waitForAll()
            }
        }

        /// Puts one of two versions under a name, asks through it, and deletes it now and then: no
        /// answer may come from the version before.
        private static func change(
            _ client: Client, name: String, until end: ContinuousClock.Instant, _ tally: Tally
        ) async throws {
            var expected: [Int: [Int]] = [:]
            let prompt = Ask(name, .text("Once upon a time there was a ship"), 10)
            var turn = 0
            while .now < end {
                turn += 1
                let alpha = turn.isMultiple(of: 2) ? 40 : 3
                let created = try await client.put(
                    name, try AdapterArchive.tar(pirate, alpha: alpha))
                guard created.status == 201 || created.status == 200 else {
                    tally.note { $0.faults.append("upload: \(created.text)") }
                    return
                }
                let reply = try await client.post("/v1/completions", prompt)
                if reply.status == 429 { continue }
                let tokens = try reply.decoded(as: Completion.self).choice().tokenIds
                tally.note {
                    $0.uploads += 1
                    if let known = expected[alpha], known != tokens {
                        $0.faults.append("\(name): alpha \(alpha) answers as another version")
                    }
                }
                expected[alpha] = tokens
                if turn.isMultiple(of: 5) { _ = try await client.delete(name) }
            }
            if let three = expected[3], let forty = expected[40] {
                #expect(three != forty, "the two versions cannot be told apart")
            }
        }

        /// The largest resident memory of the process, in MiB.
        private static func watch(
            _ process: LorryProcess, until end: ContinuousClock.Instant
        ) async throws -> Double {
            var largest = 0.0
            while .now < end {
                if let status = try? String(
                    contentsOfFile: "/proc/\(process.identifier)/status", encoding: .utf8),
                    let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS") }
                    ),
                    let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({
                        Double($0)
                    })
                {
                    largest = max(largest, kibibytes / 1024)
                }
                try await Task.sleep(for: .milliseconds(50))
            }
            return largest
        }

        @Test func answersStayRightAndMemoryStaysBounded() async throws {
            var options = LorryServer.Options()
            options.further = [
                "--memory-budget", "\(Self.budgetMebibytes)MiB", "--max-waiting", "48",
            ]
            var process: LorryProcess?
            try await LorryServer.run(options) { server in
                process = server.process
                let client = server.client
                var expected: [[Int]] = []
                for ask in Self.asks {
                    let answer = try await client.complete(ask).choice()
                    expected.append(try #require(answer.tokenIds))
                }
                let tally = Tally()
                let end = ContinuousClock.now + .seconds(Self.seconds)
                async let asking: Void = Self.askAll(client, expected, until: end, tally)
                async let first: Void = Self.change(client, name: "guest", until: end, tally)
                async let second: Void = Self.change(client, name: "other", until: end, tally)
                let largest = try await Self.watch(server.process, until: end)
                _ = try await (asking, first, second)
                let counts = tally.counts
                #expect(counts.faults.isEmpty, "\(counts.faults.prefix(5))")
                #expect(counts.answers > Self.asks.count && counts.uploads > 2)
                let weights = 20.0
                #expect(largest < Double(Self.budgetMebibytes) + weights + Self.overheadMebibytes)
                let page = try await client.metricsAtRest()
                #expect(page.isAtRest)
                // Otherwise the budget was not too small.
                #expect(page.sum("lorry_adapter_evictions_total") > 0)
                print(
                    "soak: \(counts.answers) answers, \(counts.uploads) uploads, "
                        + "\(counts.retries) retries, largest \(Int(largest)) MiB, "
                        + "\(Int(page.sum("lorry_adapter_evictions_total"))) evictions, "
                        + "\(Int(page.sum("vllm:num_preemptions_total"))) preemptions, "
                        + "\(Int(page.sum("vllm:prefix_cache_hits_total"))) tokens found")
            }
            #expect(process?.standardError.contains("memory is in order at the end") == true)
        }
    }
}
