import HTTPTypes
import Hummingbird

/// How long a client waits for its whole answer.
struct ClientPatience: Sendable {
    /// When nobody will want the answer any more; nil where the client does not say.
    let deadline: ContinuousClock.Instant?

    /// The least of what a request says: the field `timeout` in seconds, `Prefer: wait=SECONDS`
    /// (RFC 7240, section 4.3), and `x-envoy-expected-rq-timeout-ms`, which Envoy and gateways made
    /// of it send along where they have a timeout themselves. Headers that make no sense are
    /// ignored, as RFC 7240 wants it.
    ///
    /// - Throws: `APIError` 400 where the field is not a positive number.
    init(
        _ fields: FieldReader, _ headers: HTTPFields, now: ContinuousClock.Instant = .now
    ) throws(APIError) {
        let field = try fields.number(
            "timeout", "greater than 0 and at most \(Self.maximumSeconds) seconds"
        ) { $0 > 0 && $0 <= Double(Self.maximumSeconds) }
        let seconds = [field.map { Double($0) }, Self.preferred(headers), Self.gateway(headers)]
        deadline = seconds.compactMap { $0 }.min().map { now + .seconds($0) }
    }

    private static let maximumSeconds = 1_000_000

    private static func preferred(_ headers: HTTPFields) -> Double? {
        for value in headers[values: .prefer] {
            for preference in value.split(whereSeparator: { $0 == "," || $0 == ";" }) {
                let parts = preference.split(separator: "=", maxSplits: 1).map(\.trimmingSpaces)
                guard parts.count == 2, parts[0].lowercased() == "wait" else { continue }
                return seconds(parts[1].filter { $0 != "\"" }, perSecond: 1)
            }
        }
        return nil
    }

    private static func gateway(_ headers: HTTPFields) -> Double? {
        headers[.envoyTimeout].flatMap { seconds($0.trimmingSpaces, perSecond: 1000) }
    }

    private static func seconds(_ text: String, perSecond: Int) -> Double? {
        guard let count = Int(text), count > 0, count <= maximumSeconds * perSecond else {
            return nil
        }
        return Double(count) / Double(perSecond)
    }
}
