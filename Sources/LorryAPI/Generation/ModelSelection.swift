import HTTPTypes
import LorryModel

/// Which model a request names, in whichever of the ways clients do it.
struct ModelSelection: Sendable, Equatable {
    enum Choice: Sendable, Equatable {
        /// No name at all: what the tenant set by `POST /lora-adapters`, else the base model, as
        /// vLLM has it.
        case unnamed
        /// Nothing but the base model, in APIs where no name means just that.
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
        /// In `GET /lora-adapters`, and the name that the client found there, if it says so.
        case position(Int, expected: String? = nil)
    }

    /// An entry of `lora`.
    struct Summand: Sendable, Equatable {
        /// Beyond it activations overflow, and norms turn what is infinite into an answer that looks
        /// like one.
        static let largestScale = 10_000.0

        var adapter: AdapterName
        var scale: Float
    }

    /// How many adapters a sum may have.
    static let maximumSummandCount = 16
    /// How many entries `lora` may have, those of scale 0 included.
    private static let maximumEntryCount = 1024

    var choice = Choice.unnamed
    /// SGLang's `lora_path`: an adapter, where `model` names none.
    var loraPath: String?
    /// Which of the tasks that the adapter knows; nil: the first, where it knows any.
    var taskID: Int?

    init(_ choice: Choice = .unnamed) { self.choice = choice }

    init(_ fields: FieldReader) throws(APIError) {
        let model = try fields.string("model")
        if let model, !model.isEmpty { choice = .named(model) }
        if let adapter = try fields.string("adapter_id"), !adapter.isEmpty {
            choice = .adapter(adapter)
        }
        if let entries = try fields.array("lora") {
            choice = .sum(try Self.summands(entries))
        }
        if let path = try fields.string("lora_path"), !path.isEmpty { loraPath = path }
        taskID = try fields.integer("task_id", in: 0...Int.max, "non-negative")
    }

    /// - Parameter list: what messages call the list.
    static func summands(
        _ entries: [StrictJSON], of list: String = "lora"
    ) throws(APIError) -> [Summand] {
        guard entries.count <= maximumEntryCount else {
            throw .invalid(list, "\(list) may have at most \(maximumEntryCount) entries.")
        }
        var summands: [Summand] = []
        for (index, entry) in entries.enumerated() {
            guard let object = entry.objectValue else {
                throw .invalid("\(list)[\(index)]", "\(list)[\(index)] must be an object.")
            }
            summands.append(try summand(FieldReader(object: object, path: "\(list)[\(index)].")))
        }
        try checkCount(of: summands, list)
        return summands
    }

    static func checkCount(of summands: [Summand], _ list: String) throws(APIError) {
        guard summands.count(where: { $0.scale != 0 }) <= maximumSummandCount else {
            throw .invalid(
                list,
                "\(list) may name at most \(maximumSummandCount) adapters with a scale other "
                    + "than 0.")
        }
    }

    private static func summand(_ entry: FieldReader) throws(APIError) -> Summand {
        let largest = Summand.largestScale
        let scale = try entry.number(
            "scale", "a number from \(-Int(largest)) to \(Int(largest))", { abs($0) <= largest })
        return Summand(adapter: try AdapterName(entry), scale: scale ?? 1)
    }
}

extension ModelSelection.AdapterName {
    init(_ entry: FieldReader) throws(APIError) {
        let path = try entry.string("path")
        if let name = try entry.string("name") ?? entry.value("id")?.stringValue {
            self = .named(name)
        } else if let position = try entry.integer("id") {
            self = .position(position, expected: path)
        } else if let path {
            self = .named(path)
        } else {
            throw entry.fail("id", "or name is needed.")
        }
    }
}
