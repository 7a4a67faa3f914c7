import Foundation
import Hummingbird
import LorryRegistry

extension APIRouter {
    mutating func addModelRoutes(_ services: APIServices) {
        on(.get, "/v1/models", .role(.inference)) { call in
            let adapters = services.visibleAdapters(for: call.principal)
            let cards =
                [services.baseCard] + adapters.map { services.card(of: $0) }
                + services.visibleAliases(for: call.principal).map { alias, record in
                    services.card(of: record, as: alias)
                }
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
        let bare =
            name.hasPrefix("\(card.name):") ? String(name.dropFirst(card.name.count + 1)) : name
        guard let lease = try? lease(bare, shown: name, principal) else {
            throw .modelNotFound(name)
        }
        return card(of: lease.record, as: String(bare.prefix { $0 != "@" }))
    }

    fileprivate var baseCard: JSON {
        [
            "id": .string(card.name), "object": "model",
            "created": .integer(Int(card.created.timeIntervalSince1970)), "owned_by": "lorry",
            "root": .string(card.name), "parent": nil,
            "max_model_len": .integer(engine.maximumContextLength),
            "permission": Self.permission(card.name, card.created),
        ]
    }

    /// What vLLM says of every model.
    private static func permission(_ name: String, _ created: Date) -> JSON {
        [
            [
                "id": .string("modelperm-\(name)"), "object": "model_permission",
                "created": .integer(Int(created.timeIntervalSince1970)),
                "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
                "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false,
                "organization": "*", "group": nil, "is_blocking": false,
            ]
        ]
    }

    /// - Parameter name: the alias by which it was asked for; nil for its own name.
    fileprivate func card(of record: AdapterRecord, as name: String? = nil) -> JSON {
        [
            "id": .string(name ?? record.name), "object": "model",
            "created": .integer(Int(record.created.timeIntervalSince1970)),
            "owned_by": .string(record.tenant), "root": .string(record.name),
            "parent": .string(card.name),
            "max_model_len": .integer(engine.maximumContextLength),
            "version": .string(record.version.digest),
            "permission": Self.permission(name ?? record.name, record.created),
        ]
    }
}
