import Hummingbird
import NIOCore

/// What ends a connection for taking too long.
extension HTTP1Handler {
    func look(elapsed: TimeAmount) {
        guard let context, !isLingering else { return }
        let now = NIODeadline.now()
        guard var request = current else { return lookAtIdleConnection(context, now: now) }
        if request.isStalled(at: now, limits: settings.limits) {
            settings.metrics.refused(.responseStalled)
            settings.metrics.reset(.stalled)
            return context.close(promise: nil)
        }
        guard !request.isReceived, let body = request.exchange.body else { return }
        let isFastEnough = request.pace.elapsed(
            elapsed, isHungry: body.isHungry, limits: settings.limits)
        current = request
        if !isFastEnough {
            settings.metrics.refused(.bodyTimeout)
            body.fail(HTTPError(.requestTimeout, message: "The request body came too slowly"))
        }
    }

    func lookAtIdleConnection(_ context: ChannelHandlerContext, now: NIODeadline) {
        let headerTimeout = TimeAmount(settings.limits.headerTimeout)
        if let headBegan {
            guard now - headBegan > headerTimeout else { return }
            return refuse(
                HTTP1Rules.Violation(
                    "The request's head came too slowly", status: .requestTimeout,
                    reason: .headerTimeout))
        }
        let patience = isFirstRequest ? headerTimeout : TimeAmount(settings.limits.idleTimeout)
        if now - idleSince > patience {
            settings.metrics.refused(.idle)
            context.close(promise: nil)
        }
    }
}
