import ArgumentParser
import Foundation
import LorryBench

/// The flags of `lorry bench load` that say what is sent, and when.
struct LoadWork: ParsableArguments {
    @Option(help: "slora or punica.") var workload = "slora"
    @Option(help: "Adapters that are asked: the server's first so many by name; 0 is the base.")
    var adapters: Int?
    @Option(help: "slora: popularity; 1 is even, less makes few adapters popular.") var alpha = 1.0
    @Option(help: "slora: coefficient of variation of the gaps; 1 is Poisson's.") var cv = 1.0
    @Option(help: "slora: requests per second.") var rate = 2.0
    @Option(help: "Seconds for which requests are sent.") var duration = 60.0
    @Option(help: "punica: \(Popularity.allCases.map(\.rawValue).joined(separator: ", ")).")
    var popularity = "distinct"
    @Option(
        help: """
            punica: requests under way (32 unless given). Otherwise a bound on them, none unless \
            given; what waits for it counts its time from its arrival.
            """)
    var inFlight: Int?
    @Option(help: "Least and most tokens of a prompt.") var promptTokens = "8-128"
    @Option(help: "Least and most tokens of an answer.") var outputTokens = "8-128"
    @Option(help: "Tenants that ask, each with its own API key.") var tenants: Int?
    @Option(help: "How much each tenant asks relative to the others, such as 10,1.")
    var tenantLoads: String?
    @Option(help: "Sends only what this tenant asks, counted from 0: the same requests alone.")
    var onlyTenant: Int?
    @Option(help: "Sends the requests of this file (JSON lines).", completion: .file())
    var trace: String?
    @Option(help: "Writes the requests to this file (not punica's).", completion: .file())
    var writeTrace: String?
    @Option(help: "The same seed gives the same requests.") var seed: UInt64 = 0

    /// What is sent.
    struct Source {
        var source: LoadSource
        var adapterCount: Int
        /// Prompt and answer together, in tokens.
        var longestRequest: Int
    }

    private static let defaultInFlight = 32

    var workloadName: String { trace == nil ? workload : "trace" }
    private var isClosedLoop: Bool { workloadName == "punica" }
    /// A closed loop bounds itself.
    var inFlightBound: Int? { isClosedLoop ? nil : inFlight }

    func check() throws {
        guard ["slora", "punica"].contains(workload) else {
            throw ValidationError("--workload: '\(workload)' is neither slora nor punica")
        }
        guard Popularity(rawValue: popularity) != nil else {
            let names = Popularity.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--popularity: '\(popularity)' is none of \(names)")
        }
        if let inFlight, inFlight < 1 {
            throw ValidationError("--in-flight: \(inFlight) is below 1")
        }
        guard adapters != nil || trace != nil else {
            throw ValidationError("--adapters: how many are to be asked?")
        }
        guard duration > 0, duration <= 1e6 else {
            throw ValidationError("--duration: \(duration) is not above 0 and at most 1000000")
        }
        if isClosedLoop, writeTrace != nil {
            throw ValidationError("--write-trace: punica's requests have no times of their own")
        }
        let loads = try loads()
        // A trace names its tenants itself.
        if let onlyTenant, trace == nil, !loads.indices.contains(onlyTenant) {
            throw ValidationError(
                "--only-tenant: \(onlyTenant) is none of the \(loads.count) tenants")
        }
        _ = try Self.range(promptTokens, "--prompt-tokens")
        _ = try Self.range(outputTokens, "--output-tokens")
    }

    private func loads() throws -> [Double] {
        guard let tenantLoads else {
            guard (1...1000).contains(tenants ?? 1) else {
                throw ValidationError("--tenants: \(tenants ?? 1) is not between 1 and 1000")
            }
            return [Double](repeating: 1, count: tenants ?? 1)
        }
        let loads = try tenantLoads.split(separator: ",").map { part in
            guard let load = Double(part), load > 0, load <= 1e6 else {
                throw ValidationError("--tenant-loads: '\(part)' is no number above 0")
            }
            return load
        }
        guard !loads.isEmpty, loads.count <= 1000, tenants ?? loads.count == loads.count else {
            throw ValidationError("--tenant-loads: must name a load for each tenant")
        }
        return loads
    }

    /// `8-128`, or one number.
    private static func range(_ text: String, _ flag: String) throws -> ClosedRange<Int> {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard let low = parts.first ?? nil, let high = parts.last ?? nil, parts.count <= 2,
            low >= 1, high >= low, high <= 1 << 24
        else { throw ValidationError("\(flag): '\(text)' is no range such as 8-128") }
        return low...high
    }

    /// - Throws: `BenchError` or `StartError` where a number or the trace is no good.
    func source() throws -> Source {
        if let trace { return try traced(trace) }
        let lengths = try TokenLengths(
            prompt: Self.range(promptTokens, "--prompt-tokens"),
            output: Self.range(outputTokens, "--output-tokens"))
        let longest = lengths.prompt.upperBound + lengths.output.upperBound
        let count = adapters ?? 0
        let loads = try loads()
        guard isClosedLoop else {
            let workload = try SLoRAWorkload(
                adapterCount: count, alpha: alpha, cv: cv, rate: rate, seconds: duration,
                lengths: lengths, tenantLoads: loads, seed: seed)
            let requests = onlyTenant.map(workload.trace(ofTenant:)) ?? workload.trace()
            return Source(
                source: .trace(NumberedRequest.numbered(requests)), adapterCount: count,
                longestRequest: longest)
        }
        let workload = try PunicaWorkload(
            adapterCount: count, popularity: Popularity(rawValue: popularity) ?? .distinct,
            inFlight: inFlight ?? Self.defaultInFlight, lengths: lengths, tenantLoads: loads,
            seed: seed)
        return Source(
            source: .closedLoop(
                workload, tenants: onlyTenant.map { [$0] } ?? Array(loads.indices),
                seconds: duration),
            adapterCount: count, longestRequest: longest)
    }

    private func traced(_ path: String) throws -> Source {
        guard let data = try? Data(contentsOf: URL(filePath: path)) else {
            throw StartError("--trace \(path): cannot be read")
        }
        let all = NumberedRequest.numbered(try TraceFile.requests(data))
        let requests =
            onlyTenant.map { tenant in all.filter { $0.request.tenant == tenant } } ?? all
        guard !requests.isEmpty else {
            throw StartError("--only-tenant: the trace has no tenant \(onlyTenant ?? 0)")
        }
        let needed = (requests.compactMap(\.request.adapter).max() ?? -1) + 1
        if let adapters, adapters < needed {
            throw StartError("--adapters: the trace asks \(needed) adapters, more than \(adapters)")
        }
        let longest = requests.map { $0.request.promptTokenCount + $0.request.outputTokenCount }
        return Source(
            source: .trace(requests), adapterCount: needed, longestRequest: longest.max() ?? 0)
    }

    func writeTrace(_ source: Source) throws {
        guard let writeTrace, case .trace(let requests) = source.source else { return }
        do {
            try TraceFile.data(requests.map(\.request)).write(to: URL(filePath: writeTrace))
        } catch {
            throw StartError("--write-trace \(writeTrace): cannot be written")
        }
    }

    func describe(in setting: inout LoadSetting) {
        setting.seed = seed
        setting.onlyTenant = onlyTenant
        setting.trace = trace
        setting.inFlight = isClosedLoop ? inFlight ?? Self.defaultInFlight : inFlight
        guard trace == nil else { return }
        setting.duration = duration
        setting.tenantLoads = (try? loads()) ?? [1]
        for (text, path) in [
            (promptTokens, \LoadSetting.promptTokens), (outputTokens, \.outputTokens),
        ] {
            let range = try? Self.range(text, "")
            setting[keyPath: path] = range.map { [$0.lowerBound, $0.upperBound] }
        }
        if isClosedLoop {
            setting.popularity = popularity
        } else {
            setting.alpha = alpha
            setting.cv = cv
            setting.rate = rate
        }
    }
}
