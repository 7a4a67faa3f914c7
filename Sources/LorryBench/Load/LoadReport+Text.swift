/// The report as a terminal shows it.
extension LoadReport {
    public var lines: [String] {
        var lines = [headline, countsLine]
        lines += failures.map { "  \($0.count) × \($0.reason)" }
        lines += [""] + spreadTable.lines + [""]
        if steady.to > steady.from {
            lines.append(
                "while the load lasted, from \(Figures.significant(steady.from)) to "
                    + "\(Figures.significant(steady.to)) s: "
                    + "\(Figures.significant(steady.requestsPerSecond)) requests/s, "
                    + "\(Figures.significant(steady.tokensPerSecond)) tokens/s")
        }
        if let text = objectiveText { lines.append(text) }
        if cachedPromptTokens > 0 {
            let share = Double(cachedPromptTokens) / Double(max(promptTokens, 1))
            lines.append("prompt tokens from the server's cache: \(Figures.percent(share))")
        }
        if tenants.count > 1 { lines += [""] + tenantTable.lines }
        if adapters.used > 1 { lines += [""] + adapterTable.lines }
        lines.append("")
        lines.append(
            "this client: \(Figures.percent(client.processorShare)) of a core, "
                + "\(client.connections) connections, at most "
                + "\(Figures.duration(client.worstLagSeconds)) late in sending")
        if let verification { lines += verification.lines }
        return lines
    }

    private var headline: String {
        "\(Figures.significant(requestsPerSecond)) requests/s, "
            + "\(Figures.significant(tokensPerSecond)) tokens/s over "
            + "\(Figures.significant(seconds)) s" + (wasStopped ? " (stopped early)" : "")
    }

    private var countsLine: String {
        var text =
            "\(requests.sent) sent: \(requests.finished) finished, \(requests.failed) failed, "
            + "\(requests.cancelled) cancelled"
        if requests.unsent > 0 { text += "; \(requests.unsent) were not sent" }
        return text
    }

    private var objectiveText: String? {
        var parts: [String] = []
        if let limit = objective.firstTokenSeconds {
            parts.append("first token within \(Figures.duration(limit))")
        }
        if let limit = objective.interTokenSeconds {
            parts.append("mean gap within \(Figures.duration(limit))")
        }
        guard !parts.isEmpty else { return nil }
        return parts.joined(separator: ", ") + ": \(Figures.percent(objectiveShare)) of requests"
    }

    private var spreadTable: TextTable {
        var table = TextTable(
            [("", .left), ("p50", .right), ("p95", .right), ("p99", .right), ("max", .right)])
        table.add(["first token"] + firstToken.cells)
        table.add(["between tokens"] + interToken.cells)
        table.add(["whole answer"] + endToEnd.cells)
        return table
    }

    private var tenantTable: TextTable {
        var table = TextTable([
            ("tenant", .left), ("sent", .right), ("finished", .right), ("failed", .right),
            ("tokens/s", .right), ("first token p50", .right), ("p95", .right),
            ("between p50", .right), ("p95", .right), ("answer p50", .right), ("p95", .right),
        ])
        for figures in tenants {
            let spreads = [figures.firstToken, figures.interToken, figures.endToEnd]
            table.add(
                [
                    "\(figures.tenant)", "\(figures.counts.sent)", "\(figures.counts.finished)",
                    "\(figures.counts.failed)", Figures.significant(figures.tokensPerSecond),
                ] + spreads.flatMap { $0.cells.prefix(2) })
        }
        return table
    }

    private var adapterTable: TextTable {
        let requests = adapters.requests
        var table = TextTable([
            ("\(adapters.used) adapters", .left), ("p50", .right), ("p95", .right),
            ("p99", .right), ("max", .right),
        ])
        table.add(
            ["requests of each"]
                + [requests.p50, requests.p95, requests.p99, requests.max].map {
                    Figures.significant($0)
                })
        table.add(["mean first token of each"] + adapters.meanFirstToken.cells)
        table.add(["first token, first request of each"] + adapters.firstRequests.cells)
        table.add(["first token, further requests"] + adapters.furtherRequests.cells)
        return table
    }
}

extension LoadVerification {
    var lines: [String] {
        var lines = [
            "sent again alone: \(compared) compared, \(differences.count) differ"
                + (notCompared > 0 ? ", \(notCompared) could not be compared" : "")
        ]
        for difference in differences.prefix(10) {
            let adapter = difference.adapter.map { "adapter \($0)" } ?? "the base model"
            lines.append(
                "  request \(difference.number) of tenant \(difference.tenant), \(adapter): from "
                    + "token \(difference.position)")
        }
        return lines
    }
}
