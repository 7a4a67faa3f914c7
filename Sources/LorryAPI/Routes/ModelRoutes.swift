import Foundation
import Hummingbird
import LorryRegistry

extension APIRouter {
    mutating func addModelRoutes(_ services: APIServices) {
        on(.get, "/v1/models", .role(.inference)) { call in
            let adapters = services.visibleAdapters(for: call.principal)
            let cards = [services.baseCard] + adapters.map(services.card(of:))
            return .json(["object": "list", "data": .array(cards)])
        }
        // Names of base models may hold slashes.
        on(.get, "/v1/models/**", .role(.inference)) { call in
            let raw = call.context.parameters.getCatchAll().joined(separator: "/")
            let name = raw.removingPercentEncoding ?? raw
            return .json(try services.modelCard(named: name, for: call.principal))
        }
    }
}

extension APIServices {
    fileprivate func modelCard(
        named name: String, for principal: Principal
    ) throws(APIError) -> JSON {
        if name == card.name { return baseCard }
        let adapters = visibleAdapters(for: principal)
        let bare =
            name.hasPrefix("\(card.name):") ? String(name.dropFirst(card.name.count + 1)) : name
        let base = String(bare.prefix { $0 != "@" })
        guard let record = adapters.first(where: { $0.name == base }) else {
            throw .modelNotFound(name)
        }
        guard base != bare else { return card(of: record) }
        guard let lease = try? registry.acquire(bare, tenant: principal.tenant) else {
            throw .modelNotFound(name)
        }
        return card(of: lease.record)
    }

    fileprivate var baseCard: JSON {
        [
            "id": .string(card.name), "object": "model",
            "created": .integer(Int(card.created.timeIntervalSince1970)), "owned_by": "lorry",
            "root": .string(card.name), "parent": nil,
            "max_model_len": .integer(engine.maximumContextLength),
        ]
    }

    fileprivate func card(of record: AdapterRecord) -> JSON {
        [
            "id": .string(record.name), "object": "model",
            "created": .integer(Int(record.created.timeIntervalSince1970)),
            "owned_by": .string(record.tenant), "root": .string(record.name),
            "parent": .string(card.name),
            "max_model_len": .integer(engine.maximumContextLength),
            "version": .string(record.version.digest),
        ]
    }
}
