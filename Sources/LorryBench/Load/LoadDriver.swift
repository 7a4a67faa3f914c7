import Foundation
import NIOCore
import NIOPosix
import NIOSSL

/// Sends a run's requests and enters what comes back. One event loop owns it: no locks, one thread.
final class LoadDriver: LoadConnectionOwner {
    private let server: LoadServer
    private let options: LoadOptions
    private let writer: RequestWriter
    private let loop: any EventLoop
    private let tls: NIOSSLContext?
    private let onProgress: @Sendable (LoadProgress) -> Void
    private let done: EventLoopPromise<LoadResult>

    private var arrivals: ArrivalQueue
    private var ledger: LoadLedger
    private var readers: [Int: AnswerReader] = [:]
    private var carriers: [Int: any LoadConnection] = [:]
    /// Due, and not sent yet.
    private var due = CircularBuffer<Int>()
    /// Connections with a free place, but for those that were idle too long.
    private var free: [any LoadConnection] = []
    private var connections: [any LoadConnection] = []

    private let start = NIODeadline.now()
    private let processorStart = ProcessorTime.now()
    private var connectionCount = 0
    private var worstLag = 0.0
    private var tokenCount = 0
    private var finishedCount = 0
    private var failedCount = 0
    private var isDispatching = false
    private var isStopped = false
    private var hasEnded = false
    private var alarm: Scheduled<Void>?
    private var ticker: RepeatedTask?

    init(
        _ source: LoadSource, _ server: LoadServer, _ options: LoadOptions, _ writer: RequestWriter,
        on loop: any EventLoop, done: EventLoopPromise<LoadResult>,
        onProgress: @escaping @Sendable (LoadProgress) -> Void
    ) throws {
        self.server = server
        self.options = options
        self.writer = writer
        self.loop = loop
        self.done = done
        self.onProgress = onProgress
        arrivals = ArrivalQueue(source)
        ledger = LoadLedger(keepsTokens: options.keepsTokens)
        tls = try server.tls.map { configuration in
            var configuration = configuration
            if server.version == .http2 { configuration.applicationProtocols = ["h2"] }
            return try NIOSSLContext(configuration: configuration)
        }
    }

    private var now: Double { Double((NIODeadline.now() - start).nanoseconds) / 1e9 }

    func begin() {
        let bound = NIOLoopBound(self, eventLoop: loop)
        ticker = loop.scheduleRepeatedTask(
            initialDelay: .milliseconds(200), delay: .milliseconds(200)
        ) { _ in bound.value.tick() }
        takeArrivals()
    }

    /// Ends the run: what is under way is cancelled, what was not sent stays unsent.
    func stop() {
        guard !hasEnded else { return }
        isStopped = true
        cancelAll()
        end()
    }

    // MARK: arrivals

    private func takeArrivals() {
        guard !hasEnded else { return }
        alarm?.cancel()
        let time = now
        while let arrival = arrivals.next(at: time) {
            due.append(ledger.plan(arrival.request, arrivalSeconds: arrival.seconds))
        }
        dispatch()
        guard let next = arrivals.nextSeconds else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        alarm = loop.scheduleTask(deadline: start + .nanoseconds(Int64(next * 1e9))) {
            bound.value.takeArrivals()
        }
    }

    private func dispatch() {
        while !due.isEmpty, carriers.count < options.inFlightLimit ?? .max {
            send(due.removeFirst())
        }
        endIfIdle()
    }

    /// After the events at hand: a stream's end frees its place only with the next of them.
    private func dispatchSoon() {
        guard !isDispatching else { return }
        isDispatching = true
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.execute {
            bound.value.isDispatching = false
            bound.value.takeArrivals()
        }
    }

    private func send(_ id: Int) {
        let time = now
        let record = ledger.records[id]
        if options.inFlightLimit == nil { worstLag = max(worstLag, time - record.arrivalSeconds) }
        let connection = connectionWithPlace()
        carriers[id] = connection
        readers[id] = AnswerReader()
        ledger.send(id, at: time)
        connection.send(
            id, body: writer.body(of: record.planned),
            apiKey: server.apiKey(ofTenant: record.request.tenant))
        if !connection.hasFreePlace, free.last === connection { free.removeLast() }
    }

    private func connectionWithPlace() -> any LoadConnection {
        while let last = free.last {
            if last.hasFreePlace { return last }
            free.removeLast()
        }
        let connection: any LoadConnection =
            switch server.version {
            case .http1: HTTP1LoadConnection(server, on: loop, tls: tls, owner: self)
            case .http2:
                HTTP2LoadConnection(
                    server, placeCount: options.streamsPerConnection, on: loop, tls: tls,
                    owner: self)
            }
        connectionCount += 1
        connections.append(connection)
        free.append(connection)
        return connection
    }

    // MARK: answers

    func received(_ event: ExchangeEvent, for id: Int) {
        guard carriers[id] != nil else { return }
        let time = now
        switch event {
        case .head(let status): ledger.head(id, status: status)
        case .body(let bytes):
            guard ledger.records[id].status == 200 else {
                return ledger.refusal(id, bytes.readableBytesView)
            }
            for event in readers[id]?.append(bytes.readableBytesView) ?? [] {
                if case .tokens(let count, _) = event { tokenCount += count }
                ledger.receive(id, event, at: time)
            }
        case .end:
            ledger.end(id, at: time)
            ended(id)
        case .broken(let reason):
            ledger.fail(id, reason, at: time)
            ended(id)
        }
    }

    private func ended(_ id: Int) {
        carriers[id] = nil
        readers[id] = nil
        let record = ledger.records[id]
        switch record.outcome {
        case .finished: finishedCount += 1
        case .failed: failedCount += 1
        default: break
        }
        arrivals.ended(tenant: record.request.tenant, hasFailed: !record.isFinished, at: now)
        dispatchSoon()
    }

    func becameFree(_ connection: any LoadConnection) { free.append(connection) }

    func becameClosed(_ connection: any LoadConnection) {
        connections.removeAll { $0 === connection }
        free.removeAll { $0 === connection }
    }

    // MARK: time

    private func tick() {
        guard !hasEnded else { return }
        let time = now
        for id in Array(carriers.keys) {
            guard let sent = ledger.records[id].sentSeconds, time - sent > options.requestTimeout
            else { continue }
            let limit = Figures.significant(options.requestTimeout)
            ledger.fail(id, "no end within \(limit) s", at: time)
            carriers[id]?.cancel(id)
            ended(id)
        }
        if let drain = options.drainSeconds, arrivals.isExhausted,
            time > arrivals.lastSeconds + drain
        {
            cancelAll()
            return end()
        }
        report()
    }

    private func report() {
        onProgress(
            LoadProgress(
                seconds: now, share: min(1, now / max(arrivals.lastSeconds, 0.001)),
                sentCount: ledger.records.count - due.count, finishedCount: finishedCount,
                failedCount: failedCount, inFlightCount: carriers.count, tokenCount: tokenCount))
    }

    private func cancelAll() {
        let time = now
        for (id, connection) in carriers {
            ledger.cancel(id, at: time)
            connection.cancel(id)
        }
        carriers = [:]
    }

    private func endIfIdle() {
        if arrivals.isExhausted, carriers.isEmpty, due.isEmpty { end() }
    }

    private func end() {
        guard !hasEnded else { return }
        hasEnded = true
        ticker?.cancel()
        alarm?.cancel()
        // A trace's requests that never became due are unsent, and counted.
        while let rest = arrivals.next(at: .infinity, isEnding: true) {
            _ = ledger.plan(rest.request, arrivalSeconds: rest.seconds)
        }
        for connection in connections { connection.close() }
        done.succeed(
            LoadResult(
                ledger: ledger, seconds: now, lastArrivalSeconds: min(arrivals.lastSeconds, now),
                clientProcessorSeconds: ProcessorTime.now() - processorStart,
                connectionCount: connectionCount, worstLag: worstLag, wasStopped: isStopped))
    }
}
