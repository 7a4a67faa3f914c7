/// What became of one request. Times are seconds since the run's start, as the client saw them.
public struct LoadRecord: Sendable, Equatable {
    public enum Outcome: Sendable, Equatable {
        /// Not sent, since the run ended before.
        case unsent
        case underWay
        /// All tokens came, and the stream ended as it should.
        case finished
        case failed(String)
        /// Given up by the client, since the run ended.
        case cancelled
    }

    public let planned: NumberedRequest
    public internal(set) var outcome = Outcome.unsent
    /// When it should have been sent; times to tokens count from here.
    public internal(set) var arrivalSeconds: Double
    public internal(set) var sentSeconds: Double?
    public internal(set) var status: Int?
    public internal(set) var firstTokenSeconds: Double?
    public internal(set) var endSeconds: Double?
    /// Between each token and the one before; 0 where both came in one piece.
    public internal(set) var gaps: [Float] = []
    public internal(set) var tokenCount = 0
    /// Empty unless the run keeps them.
    public internal(set) var tokenIDs: [Int32] = []
    public internal(set) var cachedPromptTokenCount = 0

    var lastTokenSeconds: Double?
    var refusal: [UInt8] = []
    var isDone = false
    var told: Int?

    init(_ planned: NumberedRequest, arrivalSeconds: Double) {
        self.planned = planned
        self.arrivalSeconds = arrivalSeconds
    }

    public var request: TraceRequest { planned.request }
    public var isFinished: Bool { outcome == .finished }
    /// From arrival to the first token.
    public var firstTokenDelay: Double? { firstTokenSeconds.map { $0 - arrivalSeconds } }
    /// From arrival to the end.
    public var latency: Double? { isFinished ? endSeconds.map { $0 - arrivalSeconds } : nil }
    /// Mean over the answer; nil where it has a single token.
    public var meanGap: Double? {
        gaps.isEmpty ? nil : gaps.reduce(0) { $0 + Double($1) } / Double(gaps.count)
    }
}

/// The books of a run: every request is entered once and ends in one outcome. Knows no sockets.
public struct LoadLedger: Sendable {
    public private(set) var records: [LoadRecord] = []
    public let keepsTokens: Bool

    package init(keepsTokens: Bool) { self.keepsTokens = keepsTokens }

    /// Enters a request. - Returns: its number in the ledger.
    package mutating func plan(_ request: NumberedRequest, arrivalSeconds: Double) -> Int {
        records.append(LoadRecord(request, arrivalSeconds: arrivalSeconds))
        return records.count - 1
    }

    package mutating func send(_ id: Int, at time: Double) {
        records[id].sentSeconds = time
        records[id].outcome = .underWay
    }

    package mutating func head(_ id: Int, status: Int) { records[id].status = status }

    /// Keeps the words of a refusal, within bounds.
    package mutating func refusal(_ id: Int, _ bytes: some Collection<UInt8>) {
        records[id].refusal += bytes.prefix(max(0, 4096 - records[id].refusal.count))
    }

    package mutating func receive(_ id: Int, _ event: AnswerEvent, at time: Double) {
        guard records[id].outcome == .underWay else { return }
        switch event {
        case .tokens(let count, let ids):
            for _ in 0..<count {
                if let last = records[id].lastTokenSeconds {
                    records[id].gaps.append(Float(time - last))
                } else {
                    records[id].firstTokenSeconds = time
                }
                records[id].lastTokenSeconds = time
            }
            records[id].tokenCount += count
            if keepsTokens { records[id].tokenIDs += ids }
        case .usage(let count, let cached):
            records[id].told = count
            records[id].cachedPromptTokenCount = cached
        case .failure(let message): fail(id, "error in the stream: \(message)", at: time)
        case .done: records[id].isDone = true
        }
    }

    /// The answer ended as HTTP ends one.
    package mutating func end(_ id: Int, at time: Double) {
        guard records[id].outcome == .underWay else { return }
        let record = records[id]
        guard record.status == 200 else { return fail(id, refusalReason(record), at: time) }
        guard record.isDone else { return fail(id, "the stream ended without [DONE]", at: time) }
        guard (record.told ?? record.tokenCount) == record.request.outputTokenCount,
            record.firstTokenSeconds != nil
        else { return fail(id, "an answer of another length than asked for", at: time) }
        records[id].outcome = .finished
        records[id].endSeconds = time
    }

    package mutating func fail(_ id: Int, _ reason: String, at time: Double) {
        guard records[id].outcome == .underWay else { return }
        records[id].outcome = .failed(reason)
        records[id].endSeconds = time
    }

    package mutating func cancel(_ id: Int, at time: Double) {
        guard records[id].outcome == .underWay else { return }
        records[id].outcome = .cancelled
        records[id].endSeconds = time
    }

    private func refusalReason(_ record: LoadRecord) -> String {
        let status = "status \(record.status ?? 0)"
        let message = RefusalMessage.text(of: record.refusal)
        return message.map { "\(status): \($0)" } ?? status
    }

    /// How many requests ended in which way. Each is counted once.
    public var counts: LoadCounts { LoadCounts(records) }
}

/// Requests by what became of them: planned = sent + unsent, and, at the end of a run,
/// sent = finished + failed + cancelled.
public struct LoadCounts: Codable, Sendable, Equatable {
    public var planned = 0
    public var sent = 0
    public var unsent = 0
    public var finished = 0
    public var failed = 0
    public var cancelled = 0
    /// 0 at the end of a run.
    var underWay = 0

    public init() {}

    enum CodingKeys: String, CodingKey {
        case planned, sent, unsent, finished, failed, cancelled
    }
}
