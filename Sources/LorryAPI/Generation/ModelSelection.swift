import HTTPTypes
import LorryModel

/// Which model a request names, in whichever of the ways clients do it.
struct ModelSelection: Sendable, Equatable {
    enum Choice: Sendable, Equatable {
        /// No name at all: the base model, as vLLM has it.
        case base
        /// `model`: the base model's name, an adapter's, `name@version` or `BASE:NAME`.
        case named(String)
        /// LoRAX's `adapter_id`, or llama.cpp's `lora` by name: an adapter, never the base model.
        case adapter(String, field: String)
        /// llama.cpp's `lora` by the position in `GET /lora-adapters`.
        case position(Int)
    }
    var choice = Choice.base

    init() {}

    init(_ fields: FieldReader) throws(APIError) {
        let model = try fields.string("model")
        if let model, !model.isEmpty { choice = .named(model) }
        if let adapter = try fields.string("adapter_id"), !adapter.isEmpty {
            choice = .adapter(adapter, field: "adapter_id")
        }
        guard let entries = try fields.array("lora"), !entries.isEmpty else { return }
        guard entries.count == 1, let entry = entries[0].objectValue else {
            throw fields.fail("lora", "must hold exactly one adapter: mixtures are not supported.")
        }
        let member = FieldReader(object: entry, path: "lora[0].")
        let scale = try member.number("scale", "a number", { _ in true }) ?? 1
        guard scale == 1 else {
            throw member.fail("scale", "must be 1: scaled adapters are not supported.")
        }
        if let name = try member.string("name") {
            choice = .adapter(name, field: "lora[0].name")
        } else if let name = member.value("id")?.stringValue {
            choice = .adapter(name, field: "lora[0].id")
        } else if let position = try member.integer("id") {
            choice = .position(position)
        } else {
            throw member.fail("id", "or name is needed.")
        }
    }
}
