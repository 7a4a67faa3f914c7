import NIOCore

/// Says which request is due when. Knows no clock: it is told the time.
package struct ArrivalQueue {
    private enum Kind {
        case trace([NumberedRequest], next: Int)
        case closedLoop([Int: ClosedLoopRequests], until: Double)
    }

    private var kind: Kind
    private var counts: [Int: Int] = [:]
    /// Places of a closed loop that are free, with the time since when.
    private var freePlaces = CircularBuffer<(tenant: Int, since: Double)>()
    /// When the last request arrives, or a closed loop stops.
    package let lastSeconds: Double
    /// A place whose request failed is used again after this, so that a server which refuses at
    /// once is not asked without end.
    package static let pauseAfterFailure = 0.1

    package init(_ source: LoadSource) {
        switch source {
        case .trace(let requests):
            kind = .trace(requests, next: 0)
            lastSeconds = requests.last?.request.arrivalSeconds ?? 0
        case .closedLoop(let workload, let tenants, let seconds):
            let requests = tenants.map { ($0, workload.requests(ofTenant: $0)) }
            kind = .closedLoop(Dictionary(requests) { first, _ in first }, until: seconds)
            lastSeconds = seconds
            for tenant in tenants where workload.places.indices.contains(tenant) {
                for _ in 0..<workload.places[tenant] { freePlaces.append((tenant, 0)) }
            }
        }
    }

    /// Whether nothing more will come. Of a closed loop at the given end, whoever waits for places.
    package private(set) var isExhausted = false

    /// The next request that is due at `time`; nil where none is.
    ///
    /// - Parameter isEnding: the run is over, and a closed loop has no further requests.
    package mutating func next(
        at time: Double, isEnding: Bool = false
    ) -> (request: NumberedRequest, seconds: Double)? {
        switch kind {
        case .trace(let requests, let next):
            guard next < requests.count else {
                isExhausted = true
                return nil
            }
            let seconds = requests[next].request.arrivalSeconds
            guard seconds <= time else { return nil }
            kind = .trace(requests, next: next + 1)
            isExhausted = next + 1 == requests.count
            return (requests[next], seconds)
        case .closedLoop(let tenants, let until):
            isExhausted = isExhausted || isEnding || time >= until
            guard !isExhausted, let place = freePlaces.first, place.since <= time else {
                return nil
            }
            freePlaces.removeFirst()
            return draw(from: tenants, until: until, place)
        }
    }

    private mutating func draw(
        from tenants: [Int: ClosedLoopRequests], until: Double,
        _ place: (tenant: Int, since: Double)
    ) -> (request: NumberedRequest, seconds: Double)? {
        var tenants = tenants
        guard var request = tenants[place.tenant]?.next() else { return nil }
        kind = .closedLoop(tenants, until: until)
        request.arrivalSeconds = place.since
        let number = counts[place.tenant, default: 0]
        counts[place.tenant] = number + 1
        return (NumberedRequest(request, number: number), place.since)
    }

    /// When to ask again, where that is known; nil where only an end of a request brings the next.
    package var nextSeconds: Double? {
        switch kind {
        case .trace(let requests, let next):
            next < requests.count ? requests[next].request.arrivalSeconds : nil
        case .closedLoop(_, let until):
            isExhausted ? nil : min(freePlaces.first?.since ?? until, until)
        }
    }

    /// A request ended: of a closed loop its place is free.
    package mutating func ended(tenant: Int, hasFailed: Bool, at time: Double) {
        guard case .closedLoop = kind else { return }
        let since = hasFailed ? time + Self.pauseAfterFailure : time
        let index = freePlaces.firstIndex { $0.since > since } ?? freePlaces.endIndex
        freePlaces.insert((tenant, since), at: index)
    }
}
