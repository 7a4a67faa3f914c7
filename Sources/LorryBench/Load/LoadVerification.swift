/// Whether answers depended on what else was served: some of a run's requests, each sent again with
/// nothing beside it.
public struct LoadVerification: Codable, Sendable, Equatable {
    public struct Difference: Codable, Sendable, Equatable {
        public var tenant: Int
        public var number: Int
        public var adapter: Int?
        /// The first token that differs, counted from 0.
        public var position: Int
    }

    /// Answers that could be compared.
    public var compared: Int
    /// Requests that failed when sent alone, or whose token ids the server does not tell.
    public var notCompared: Int
    public var differences: [Difference]

    public var isPassed: Bool { differences.isEmpty && notCompared == 0 && compared > 0 }

    enum CodingKeys: String, CodingKey {
        case compared, differences
        case notCompared = "not_compared"
    }

    /// Finished requests spread evenly over the run, in order.
    public static func sample(of records: [LoadRecord], count: Int) -> [LoadRecord] {
        let finished = records.filter(\.isFinished)
        guard count > 0, finished.count > count else { return finished }
        return (0..<count).map { finished[$0 * finished.count / count] }
    }

    /// - Parameter alone: the records of the same requests in the same order, sent one by one.
    public init(_ sample: [LoadRecord], alone: [LoadRecord]) {
        compared = 0
        notCompared = max(0, sample.count - alone.count)
        differences = []
        for (record, other) in zip(sample, alone) {
            guard other.isFinished, record.isSameRequest(as: other),
                !record.tokenIDs.isEmpty, !other.tokenIDs.isEmpty
            else {
                notCompared += 1
                continue
            }
            compared += 1
            guard record.tokenIDs != other.tokenIDs else { continue }
            let common = zip(record.tokenIDs, other.tokenIDs).prefix { $0 == $1 }.count
            differences.append(
                Difference(
                    tenant: record.request.tenant, number: record.planned.number,
                    adapter: record.request.adapter, position: common))
        }
    }

    /// The sample as a trace that is all due at once, to be sent one by one.
    public static func replay(_ sample: [LoadRecord]) -> LoadSource {
        .trace(
            sample.map { record in
                var planned = record.planned
                planned.request.arrivalSeconds = 0
                return planned
            })
    }
}

extension LoadRecord {
    fileprivate func isSameRequest(as other: LoadRecord) -> Bool {
        (planned.number, request.tenant, request.adapter)
            == (other.planned.number, other.request.tenant, other.request.adapter)
    }
}
