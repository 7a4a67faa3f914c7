import Foundation
import Testing

extension EndToEndTests {
    /// `lorry bench load` against a server on loopback.
    struct LoadTests {
        private struct Report: Decodable {
            struct Spread: Decodable {
                let count: Int
                let p50: Double
                let p95: Double
                let p99: Double
            }
            struct Counts: Decodable {
                let planned: Int
                let sent: Int
                let unsent: Int
                let finished: Int
                let failed: Int
                let cancelled: Int
            }
            struct Failure: Decodable {
                let reason: String
                let count: Int
            }
            struct Tenant: Decodable {
                let tenant: Int
                let requests: Counts
            }
            struct Verification: Decodable {
                struct Difference: Decodable {}
                let compared: Int
                let differences: [Difference]
            }
            struct Client: Decodable { let connections: Int }
            struct Series: Decodable {
                struct Interval: Decodable { let tokens: Int }
                let intervals: [Interval]
            }
            let requestsPerSecond: Double
            let tokensPerSecond: Double
            let failed: Int
            let firstTokenSeconds: Spread
            let interTokenSeconds: Spread
            let requests: Counts
            let failures: [Failure]
            let tenants: [Tenant]
            let verification: Verification?
            let client: Client
            let stopped: Bool
            let series: Series
            let promptTokens: Int
            let cachedPromptTokens: Int
        }

        private struct Load {
            let process: LorryProcess
            let folder: ScratchFolder

            init(_ server: LorryServer, _ arguments: [String]) throws {
                folder = try ScratchFolder()
                process = try LorryProcess(
                    [
                        "bench", "load", "--url", "http://127.0.0.1:\(server.client.port)",
                        "--json",
                        folder.url.appending(path: "report.json").path,
                    ] + arguments)
            }

            func report() async throws -> Report {
                _ = await process.wait()
                guard
                    let data = try? Data(contentsOf: folder.url.appending(path: "report.json"))
                else { throw TestFailure("no report: \(process.standardError)") }
                return try Wire.decoder().decode(Report.self, from: data)
            }
        }

        private func check(_ report: Report) {
            let counts = report.requests
            #expect(counts.planned == counts.sent + counts.unsent)
            #expect(counts.sent == counts.finished + counts.failed + counts.cancelled)
            #expect(report.failed == counts.failed)
            #expect(report.failures.reduce(0) { $0 + $1.count } == counts.failed)
        }

        private static let short = ["--prompt-tokens", "4-24", "--output-tokens", "4-16"]

        @Test(arguments: ["1", "2"]) func sLoRAsWorkloadIsServedWhole(http: String) async throws {
            try await LorryServer.run { server in
                let load = try Load(
                    server,
                    [
                        "--workload", "slora", "--adapters", "5", "--rate", "60", "--duration", "1",
                        "--http", http, "--verify", "--verify-sample", "6",
                    ] + Self.short)
                let report = try await load.report()
                #expect(await load.process.wait() == .exit(0))
                check(report)
                #expect(report.requests.finished == 60, "\(report.failures)")
                #expect(report.requestsPerSecond > 0 && report.tokensPerSecond > 0)
                #expect(report.firstTokenSeconds.count == 60)
                #expect(report.firstTokenSeconds.p50 > 0)
                #expect(report.firstTokenSeconds.p50 <= report.firstTokenSeconds.p99)
                #expect(report.interTokenSeconds.p50 <= report.interTokenSeconds.p95)
                #expect(report.verification?.compared == 6)
                #expect(report.verification?.differences.isEmpty == true)
                let tokens = report.series.intervals.reduce(0) { $0 + $1.tokens }
                #expect(tokens == report.interTokenSeconds.count + 60)
                #expect(load.process.standardOutput.contains("60 finished, 0 failed"))
                #expect(!load.process.standardError.contains("\u{1B}"))
            }
        }

        @Test func closedLoopKeepsItsPlacesFull() async throws {
            try await LorryServer.run { server in
                let load = try Load(
                    server,
                    [
                        "--workload", "punica", "--popularity", "uniform", "--adapters", "5",
                        "--in-flight", "8", "--duration", "1",
                    ] + Self.short)
                let report = try await load.report()
                check(report)
                #expect(report.requests.finished >= 8)
                #expect(report.failed == 0)
                #expect(report.client.connections == 1)
            }
        }

        @Test func aTraceIsWrittenAndSentAgain() async throws {
            try await LorryServer.run { server in
                let scratch = try ScratchFolder()
                let trace = scratch.url.appending(path: "trace.jsonl").path
                let first = try Load(
                    server,
                    [
                        "--workload", "slora", "--adapters", "3", "--rate", "40", "--duration",
                        "0.5", "--tenant-loads", "3,1", "--write-trace", trace,
                    ] + Self.short)
                let whole = try await first.report()
                #expect(whole.requests.finished == 20)
                #expect(whole.tenants.map(\.requests.sent) == [15, 5])
                let plot = scratch.url.appending(path: "run.svg")
                let again = try Load(server, ["--trace", trace, "--plot", plot.path])
                let report = try await again.report()
                #expect(report.requests.finished == 20)
                #expect(report.promptTokens == whole.promptTokens)
                #expect(try String(contentsOf: plot, encoding: .utf8).hasPrefix("<svg"))
                let alone = try await Load(
                    server, ["--trace", trace, "--only-tenant", "1"]
                ).report()
                #expect(alone.requests.finished == 5)
            }
        }

        @Test func tenantsUseTheirOwnKeys() async throws {
            let scratch = try ScratchFolder()
            var options = LorryServer.Options()
            options.further = [
                "--api-keys",
                try scratch.file(
                    "keys.yaml",
                    """
                    - {key: first-key, tenant: one, roles: [inference, metrics]}
                    - {key: second-key, tenant: two, roles: [inference]}
                    """),
            ]
            let keys = try scratch.file("keys.txt", "# one\nfirst-key\n\nsecond-key\n")
            try await LorryServer.run(options) { server in
                let load = try Load(
                    server,
                    [
                        "--adapters", "2", "--rate", "20", "--duration", "0.5", "--tenants", "2",
                        "--api-keys-file", keys,
                    ] + Self.short)
                #expect(try await load.report().requests.finished == 10)
                var client = server.client
                client.key = "first-key"
                let page = MetricsPage(try await client.get("/metrics").text)
                #expect(page.sum("lorry_requests_total", ["tenant": "one"]) == 5)
                #expect(page.sum("lorry_requests_total", ["tenant": "two"]) == 5)
            }
        }

        @Test func refusalsAreCountedByReason() async throws {
            var options = LorryServer.Options()
            options.further = ["--max-waiting", "2", "--max-running", "1"]
            try await LorryServer.run(options) { server in
                let load = try Load(
                    server,
                    [
                        "--adapters", "1", "--rate", "400", "--duration", "0.5", "--prompt-tokens",
                        "100", "--output-tokens", "100",
                    ])
                let report = try await load.report()
                check(report)
                #expect(report.requests.sent == 200)
                #expect(report.failed > 0 && report.requests.finished > 0)
                #expect(report.failures.first?.reason.contains("429") == true)
            }
        }

        @Test func anInterruptEndsWithAReport() async throws {
            try await LorryServer.run { server in
                let load = try Load(
                    server, ["--adapters", "1", "--rate", "100", "--duration", "600"] + Self.short)
                while true {
                    let page = MetricsPage(try await server.client.get("/metrics").text)
                    if page.sum("vllm:request_success_total") > 0 { break }
                    try #require(load.process.isRunning, "\(load.process.standardError)")
                    try await Task.sleep(for: .milliseconds(10))
                }
                load.process.send(SIGINT)
                let report = try await load.report()
                check(report)
                #expect(report.stopped)
                #expect(report.requests.planned == 60_000)
                #expect(report.requests.unsent > 0)
                #expect(load.process.standardOutput.contains("stopped early"))
            }
        }

        @Test func aServerThatDiesFailsWhatWasUnderWay() async throws {
            let state = try ScratchFolder()
            let server = try await LorryServer.start(.init(), state: state)
            let load = try Load(
                server,
                [
                    "--workload", "punica", "--popularity", "identical", "--adapters", "1",
                    "--in-flight", "4", "--duration", "2",
                ])
            while true {
                let page = MetricsPage(try await server.client.get("/metrics").text)
                if page.sum("vllm:request_success_total") > 0 { break }
                try #require(load.process.isRunning, "\(load.process.standardError)")
                try await Task.sleep(for: .milliseconds(10))
            }
            await server.kill()
            let report = try await load.report()
            check(report)
            #expect(report.failed >= 4)
            #expect(report.requests.finished > 0)
        }

        @Test func whatCannotBeRunIsNamed() async throws {
            try await LorryServer.run { server in
                for (arguments, word) in [
                    (["--adapters", "6"], "6 are to be asked, and the server has 5"),
                    (
                        ["--adapters", "2", "--adapter-prefix", "pi"],
                        "has 1 whose names begin with 'pi'"
                    ),
                    (["--adapters", "1", "--output-tokens", "500"], "context of 512"),
                    (
                        [
                            "--workload", "punica", "--popularity", "distinct", "--in-flight", "9",
                            "--adapters", "5",
                        ], "needs 9 adapters"
                    ),
                    (["--adapters", "1", "--rate", "0"], "rate of 0"),
                    (["--adapters", "1", "--model", "nobody"], "no model 'nobody'"),
                    (["--trace", "nowhere.jsonl"], "nowhere.jsonl"),
                ] {
                    let load = try Load(server, arguments)
                    #expect(await load.process.wait() == .exit(1))
                    #expect(
                        load.process.standardError.contains(word), "\(load.process.standardError)")
                }
                for arguments in [
                    ["--workload", "other", "--adapters", "1"], [],
                    ["--adapters", "1", "--prompt-tokens", "9-8"],
                    ["--adapters", "1", "--http", "3"],
                    ["--adapters", "1", "--tenant-loads", "1,x"],
                    ["--adapters", "1", "--only-tenant", "1"],
                ] {
                    let load = try Load(server, arguments)
                    #expect(await load.process.wait() == .exit(64), "\(arguments)")
                }
            }
        }
    }
}
