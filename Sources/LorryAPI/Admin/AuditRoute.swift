import HTTPTypes
import Hummingbird
import LorryRegistry

extension APIRouter {
    mutating func addAuditRoute(_ services: APIServices) {
        on(.get, "/admin/events", .role(.admin)) { call in
            let accepts = call.request.headers[.accept]?.contains("text/event-stream") ?? false
            return accepts ? try services.streamEvents(call) : try await services.listEvents(call)
        }
    }
}

extension APIServices {
    private func auditTenant(_ call: Call) -> String? {
        call.principal.tenant == AdapterKey.sharedTenant ? nil : call.principal.tenant
    }

    /// Events that the key may see: of its tenant, and of the adapters in its list.
    private func shownEvents(_ call: Call) -> @Sendable (RegistryEvent) -> Bool {
        let tenant = auditTenant(call)
        let principal = call.principal
        return { event in
            (tenant == nil || event.tenant == tenant) && principal.mayUse(adapter: event.name)
        }
    }

    fileprivate func listEvents(_ call: Call) async throws -> Response {
        var query = EventQuery()
        query.after = try call.eventID("after") ?? 0
        query.before = try call.eventID("before")
        query.limit = try call.pageLimit(default: 100)
        query.tenant = auditTenant(call)
        query.names = call.principal.allowedAdapters
        switch call.query("order") {
        case nil, "asc": break
        case "desc": query.newestFirst = true
        default: throw APIError.invalid("order", "order must be asc or desc.")
        }
        let events = try await registry.events(query)
        let next = events.count == query.limit ? events.last.map { Int($0.id) } : nil
        return .json(["events": .array(events.map { JSON($0) }), "next": .optional(next)])
    }

    /// Events as they are committed; with `Last-Event-ID` or `after` first those missed since.
    fileprivate func streamEvents(_ call: Call) throws(APIError) -> Response {
        var after = try call.eventID("after")
        if let text = call.request.headers[.lastEventID], let id = Int64(text) { after = id }
        let isShown = shownEvents(call)
        let principal = call.principal
        let start = after
        let services = self
        let body = ResponseBody { writer in
            // Listening begins before the past is read, so that nothing falls between.
            let live = services.registry.eventStream()
            // A key that has expired or been revoked since hears no more.
            let isCurrent = { @Sendable in services.keys?.isCurrent(principal) ?? true }
            let stream = services.readiness.untilStopping(live, while: isCurrent)
            var last = start
            if start != nil { try await services.sendPast(&last, isShown, to: &writer) }
            for await event in stream {
                guard isCurrent() else { break }
                if let known = last, event.id <= known { continue }
                if let known = last, event.id > known + 1 {
                    try await services.sendPast(&last, isShown, to: &writer)
                    continue
                }
                last = event.id
                if isShown(event) {
                    try await writer.write(EventStream.event(event))
                }
            }
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: EventStream.headers, body: body)
    }

    /// Sends what was stored after `last`, which becomes the newest stored event's id.
    private func sendPast(
        _ last: inout Int64?, _ isShown: (RegistryEvent) -> Bool,
        to writer: inout any ResponseBodyWriter
    ) async throws {
        while true {
            var query = EventQuery()
            query.after = last ?? 0
            query.limit = 500
            let events = try await registry.events(query)
            for event in events where isShown(event) {
                try await writer.write(EventStream.event(event))
            }
            last = events.last?.id ?? last
            if events.count < query.limit { return }
        }
    }
}

extension EventStream {
    fileprivate static func event(_ event: RegistryEvent) -> ByteBuffer {
        self.event(id: event.id, name: event.action.rawValue, JSON(event))
    }
}
