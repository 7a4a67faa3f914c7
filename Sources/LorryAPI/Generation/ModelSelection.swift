import HTTPTypes
import LorryModel

/// Which model a request names, in whichever of the ways clients do it.
struct ModelSelection: Sendable, Equatable {
    enum Choice: Sendable, Equatable {
        /// No name at all: the base model, as vLLM has it.
        case base
        /// `model`: the base model's name, an adapter's, `name@version` or `BASE:NAME`.
        case named(String)
        /// LoRAX's `adapter_id`: an adapter, never the base model.
        case adapter(String)
        /// llama.cpp's `lora`: a sum of adapters, the base model where it is empty.
        case sum([Summand])
    }

    /// How an entry of a list names an adapter.
    enum AdapterName: Sendable, Equatable {
        case named(String)
        /// In `GET /lora-adapters`.
        case position(Int)
    }

    /// An entry of `lora`.
    struct Summand: Sendable, Equatable {
        var adapter: AdapterName
        var scale: Float
    }

    /// How many adapters a sum may have.
    static let maximumSummandCount = 16
    /// How many entries `lora` may have, those of scale 0 included.
    private static let maximumEntryCount = 1024

    var choice = Choice.base
    /// Which of the tasks that the adapter knows; nil: the first, where it knows any.
    var taskID: Int?

    init() {}

    init(_ fields: FieldReader) throws(APIError) {
        let model = try fields.string("model")
        if let model, !model.isEmpty { choice = .named(model) }
        if let adapter = try fields.string("adapter_id"), !adapter.isEmpty {
            choice = .adapter(adapter)
        }
        if let entries = try fields.array("lora") {
            choice = .sum(try Self.summands(entries, fields))
        }
        taskID = try fields.integer("task_id", in: 0...Int.max, "non-negative")
    }

    private static func summands(
        _ entries: [StrictJSON], _ fields: FieldReader
    ) throws(APIError) -> [Summand] {
        guard entries.count <= maximumEntryCount else {
            throw fields.fail("lora", "may have at most \(maximumEntryCount) entries.")
        }
        var summands: [Summand] = []
        for (index, entry) in entries.enumerated() {
            guard let object = entry.objectValue else {
                throw fields.fail("lora[\(index)]", "must be an object.")
            }
            summands.append(try summand(FieldReader(object: object, path: "lora[\(index)].")))
        }
        guard summands.count(where: { $0.scale != 0 }) <= maximumSummandCount else {
            throw fields.fail(
                "lora",
                "may name at most \(maximumSummandCount) adapters with a scale other than 0.")
        }
        return summands
    }

    private static func summand(_ entry: FieldReader) throws(APIError) -> Summand {
        let scale = try entry.number("scale", "a number", { _ in true }) ?? 1
        return Summand(adapter: try AdapterName(entry), scale: scale)
    }
}

extension ModelSelection.AdapterName {
    init(_ entry: FieldReader) throws(APIError) {
        if let name = try entry.string("name") ?? entry.value("id")?.stringValue {
            self = .named(name)
        } else if let position = try entry.integer("id") {
            self = .position(position)
        } else {
            throw entry.fail("id", "or name is needed.")
        }
    }
}
