import Foundation
import LorryBench
import Testing

struct LoadReportTests {
    /// Ten requests, one a second: each has its first token after half a second and two more in
    /// steps of 0.1 s; every fifth fails at once.
    private func result() -> LoadResult {
        var ledger = LoadLedger(keepsTokens: false)
        for index in 0..<10 {
            let arrival = Double(index)
            let planned = NumberedRequest(
                TraceRequest(
                    arrivalSeconds: arrival, adapter: index % 3, tenant: index % 2,
                    promptTokenCount: 8, outputTokenCount: 3), number: index / 2)
            let id = ledger.plan(planned, arrivalSeconds: arrival)
            ledger.send(id, at: arrival)
            if index % 5 == 4 {
                ledger.fail(id, "reset", at: arrival + 0.25)
                continue
            }
            ledger.head(id, status: 200)
            for token in 0..<3 {
                ledger.receive(
                    id, .tokens(count: 1, ids: []), at: arrival + 0.5 + 0.1 * Double(token))
            }
            ledger.receive(id, .done, at: arrival + 0.75)
            ledger.end(id, at: arrival + 0.75)
        }
        return LoadResult(
            ledger: ledger, seconds: 10, lastArrivalSeconds: 9, clientProcessorSeconds: 0.5,
            connectionCount: 1, worstLag: 0, wasStopped: false)
    }

    private func report(
        warmUp: Double = 0,
        objective: ServiceObjective = .init(
            firstTokenSeconds: 6, interTokenSeconds: nil)
    ) -> LoadReport {
        var setting = LoadSetting(
            url: "http://a", http: 2, workload: "slora", model: "<model>", adapters: 3)
        setting.seed = 7
        return LoadReport(result(), setting: setting, objective: objective, warmUp: warmUp)
    }

    @Test func figuresAreThoseOfTheRecords() {
        let report = report()
        // From 0 to the end of the last, which failed at 9.25.
        #expect(abs(report.seconds - 9.25) < 1e-9)
        #expect(abs(report.requestsPerSecond - 8 / 9.25) < 1e-9)
        #expect(abs(report.tokensPerSecond - 24 / 9.25) < 1e-9)
        #expect(report.failed == 2)
        #expect(report.failures.map(\.reason) == ["reset"])
        #expect(report.failures.map(\.count) == [2])
        #expect(report.firstToken.count == 8)
        #expect(abs(report.firstToken.p50 - 0.5) < 1e-9)
        #expect(abs(report.interToken.p99 - 0.1) < 1e-6)
        #expect(abs(report.endToEnd.max - 0.75) < 1e-9)
        #expect(report.client.processorShare == 0.05)
    }

    @Test func sharesWithinTheObjectiveCountFailures() {
        #expect(report().objectiveShare == 0.8)
        let strict = ServiceObjective(firstTokenSeconds: 0.4, interTokenSeconds: nil)
        #expect(report(objective: strict).objectiveShare == 0)
        let gaps = ServiceObjective(firstTokenSeconds: nil, interTokenSeconds: 0.05)
        #expect(report(objective: gaps).objectiveShare == 0)
    }

    @Test func warmUpLeavesEarlyRequestsOut() {
        let report = report(warmUp: 5)
        #expect(report.firstToken.count == 4)
        #expect(report.requests.finished == 8)
        #expect(report.steady.from == 5)
        // Requests 5 to 8 end between 5 and 9 s.
        #expect(report.steady.requestsPerSecond == 1)
        #expect(abs(report.steady.tokensPerSecond - 3) < 1e-9)
    }

    @Test func tenantsAndAdaptersAreTold() {
        let report = report()
        #expect(report.tenants.map(\.tenant) == [0, 1])
        #expect(report.tenants.map(\.counts.sent) == [5, 5])
        #expect(report.adapters.used == 3)
        #expect(report.adapters.firstRequests.count == 3)
        #expect(report.adapters.furtherRequests.count == 5)
        #expect(report.adapters.requests.max == 4)
    }

    @Test func intervalsAddUp() {
        let series = report().series
        #expect(series.intervals.reduce(0) { $0 + $1.tokens } == 24)
        #expect(series.intervals.reduce(0) { $0 + $1.finished } == 8)
        #expect(series.intervals.reduce(0) { $0 + $1.failed } == 2)
        #expect(series.intervals.last?.inFlight == 0)
        #expect(series.intervals.compactMap(\.firstTokenP50).allSatisfy { abs($0 - 0.5) < 1e-9 })
        #expect(abs(series.intervalSeconds * Double(series.intervals.count) - 10) < 1e-6)
    }

    @Test func jsonHasTheNamesThatScriptsRead() throws {
        let data = try JSONEncoder().encode(report())
        let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
        #expect(object["requests_per_second"] as? Double != nil)
        #expect(object["tokens_per_second"] as? Double != nil)
        #expect(object["failed"] as? Int == 2)
        for name in ["first_token_seconds", "inter_token_seconds"] {
            let spread = try #require(object[name] as? [String: Any])
            for percentile in ["p50", "p95", "p99"] {
                #expect(spread[percentile] as? Double != nil, "\(name).\(percentile)")
            }
        }
        #expect(try JSONDecoder().decode(LoadReport.self, from: data) == report())
    }

    @Test func linesTellTheMain() {
        let text = report().lines.joined(separator: "\n")
        #expect(text.contains("10 sent: 8 finished, 2 failed, 0 cancelled"))
        #expect(text.contains("2 × reset"))
        #expect(text.contains("tenant"))
        #expect(text.contains("3 adapters"))
    }

    @Test func nothingAtAllIsReportedToo() {
        let empty = LoadResult(
            ledger: LoadLedger(keepsTokens: false), seconds: 0, lastArrivalSeconds: 0,
            clientProcessorSeconds: 0, connectionCount: 0, worstLag: 0, wasStopped: true)
        let report = LoadReport(
            empty, setting: report().setting,
            objective: .init(firstTokenSeconds: 6, interTokenSeconds: nil))
        #expect(report.requestsPerSecond == 0)
        #expect(!report.lines.isEmpty)
        #expect(LoadPlot.svg(report).hasSuffix("</svg>\n"))
    }

    @Test func thePictureIsWellFormed() throws {
        let svg = LoadPlot.svg(report())
        let parser = XMLElements()
        #expect(parser.read(svg), "\(svg)")
        #expect(parser.names["svg"] == 1)
        // Failures have a diagram of their own.
        #expect(svg.contains("Failures per second"))
        #expect(svg.contains("&lt;model&gt;"))
        #expect(!svg.contains("nan") && !svg.contains("inf"))
    }
}

/// Counts elements, so far as needed to see that tags are balanced.
private final class XMLElements {
    var names: [String: Int] = [:]

    func read(_ text: String) -> Bool {
        var open: [Substring] = []
        for match in text.matches(of: /<(\/?)([a-z]+)([^<>]*?)(\/?)>/) {
            names[String(match.2), default: 0] += 1
            if match.1 == "/" {
                guard open.popLast() == match.2 else { return false }
                names[String(match.2), default: 0] -= 1
            } else if match.4.isEmpty {
                open.append(match.2)
            }
        }
        return open.isEmpty
    }
}
