import Hummingbird
import NIOCore

/// What ends a connection, a stream or the server's patience with them.
extension HTTP2Handler {
    func look(elapsed: TimeAmount) {
        guard let session, let context, !isLingering else { return }
        let now = NIODeadline.now()
        if let unwritableSince,
            now - unwritableSince > TimeAmount(settings.limits.responseStallTimeout)
        {
            settings.metrics.refused(.responseStalled)
            return context.close(promise: nil)
        }
        if running.isEmpty {
            if now - idleSince > TimeAmount(settings.limits.idleTimeout) {
                settings.metrics.refused(.idle)
                session.terminate(code: .noError)
            }
        }
        lookAtUnfinishedFrame(session, now: now)
        for stream in Array(running.keys) { look(at: stream, elapsed: elapsed, now: now) }
        flush()
    }

    /// A header block or a frame other than DATA may take no longer than an HTTP/1.1 head.
    func lookAtUnfinishedFrame(_ session: HTTP2Session, now: NIODeadline) {
        let progress = session.frameProgress
        guard progress.isInside else {
            unfinishedFrame = nil
            return
        }
        guard let unfinishedFrame, unfinishedFrame.ordinal == progress.count else {
            unfinishedFrame = (progress.count, now)
            return
        }
        guard now - unfinishedFrame.since > TimeAmount(settings.limits.headerTimeout) else {
            return
        }
        settings.metrics.refused(.headerTimeout)
        isCutOff = true
        session.terminate(code: .enhanceYourCalm)
    }

    func look(at stream: Int32, elapsed: TimeAmount, now: NIODeadline) {
        guard var request = running[stream] else { return }
        if request.isStalled(at: now, limits: settings.limits) {
            settings.metrics.refused(.responseStalled)
            settings.metrics.reset(.stalled)
            session?.reset(stream: stream, code: .cancel)
            return
        }
        guard !request.isReceived, let body = request.exchange.body else { return }
        let isFastEnough = request.pace.elapsed(
            elapsed, isHungry: body.isHungry, limits: settings.limits)
        running[stream] = request
        if !isFastEnough {
            settings.metrics.refused(.bodyTimeout)
            body.fail(HTTPError(.requestTimeout, message: "The request body came too slowly"))
        }
    }

    /// Two steps (RFC 9113 §6.8): say that the end is near, then, when the client has read that,
    /// refuse what it begins later.
    func drain(_ context: ChannelHandlerContext) {
        guard !isDraining, let session else { return }
        isDraining = true
        session.announceShutdown()
        flush()
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .seconds(1)) {
            bound.value.session?.refuseNewStreams()
            bound.value.flush()
        }
    }
}
