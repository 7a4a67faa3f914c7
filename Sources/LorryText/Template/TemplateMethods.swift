import Foundation
import OrderedCollections

/// Methods of Python's strings, dictionaries and lists, without those that change their object: the
/// sandbox forbids them.
struct TemplateMethods {
    typealias Arguments = TemplateInterpreter.Arguments

    private static let stringMethods: Set<String> = [
        "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format",
        "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric",
        "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition",
        "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title",
        "upper", "zfill",
    ]
    private static let dictMethods: Set<String> = ["items", "keys", "values", "get", "copy"]
    private static let listMethods: Set<String> = ["count", "index", "copy"]
    /// Methods that exist in Python but change their object.
    private static let mutatingMethods: Set<String> = [
        "append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear", "update",
        "setdefault", "popitem",
    ]

    private let interpreter: TemplateInterpreter

    init(_ interpreter: TemplateInterpreter) {
        self.interpreter = interpreter
    }

    static func isMethod(_ name: String, of value: TemplateValue) -> Bool {
        switch value {
        case .string: stringMethods.contains(name)
        case .dict:
            dictMethods.contains(name)
                || ["pop", "update", "clear", "setdefault", "popitem"].contains(name)
        case .list:
            listMethods.contains(name)
                || ["append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear"]
                    .contains(name)
        case .tuple: name == "count" || name == "index"
        case .double: name == "is_integer"
        default: false
        }
    }

    func call(
        _ name: String, of receiver: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        switch receiver {
        case .string(let text):
            return try PythonString(text, interpreter).call(name, arguments)
        case .dict(let dict):
            return try callDict(name, dict, arguments)
        case .list(let elements), .tuple(let elements):
            return try callList(name, elements, receiver, arguments)
        case .loop(let loop): return try callLoop(name, loop, arguments)
        case .cycler(let cycler): return callCycler(name, cycler)
        case .double(let double): return .bool(double.isFinite && double == double.rounded())
        default: throw .runtime("'\(receiver.typeName)' object has no method '\(name)'")
        }
    }

    private func refuse(_ name: String, _ type: String) -> TemplateError {
        .runtime("access to attribute '\(name)' of '\(type)' object is unsafe.")
    }

    private func callDict(
        _ name: String, _ dict: OrderedDictionary<TemplateKey, TemplateValue>,
        _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        switch name {
        case "items":
            try interpreter.charge(dict.count * 32)
            return .lazy(.items, dict.map { .tuple([$0.key.value, $0.value]) })
        case "keys": return .lazy(.keys, dict.keys.map(\.value))
        case "values": return .lazy(.values, Array(dict.values))
        case "copy": return .dict(dict)
        case "get":
            guard let key = arguments.positional.first else {
                throw .runtime("get expected at least 1 argument, got 0")
            }
            if let value = dict[try TemplateKey(key)] { return value }
            return arguments.positional.count > 1 ? arguments.positional[1] : .none
        default: throw refuse(name, "dict")
        }
    }

    private func callList(
        _ name: String, _ elements: [TemplateValue], _ receiver: TemplateValue,
        _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        if Self.mutatingMethods.contains(name) { throw refuse(name, receiver.typeName) }
        if name == "copy" { return receiver }
        guard let item = arguments.positional.first else {
            throw .runtime("\(name)() takes exactly one argument (0 given)")
        }
        try interpreter.charge(elements.count * 8)
        if name == "count" { return .int(elements.count { $0.equals(item) }) }
        guard let index = elements.firstIndex(where: { $0.equals(item) }) else {
            throw .runtime("\(try PythonText.representation(item)) is not in list")
        }
        return .int(index)
    }

    private func callLoop(
        _ name: String, _ loop: LoopValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        let values = arguments.positional
        if name == "cycle" {
            if values.isEmpty { throw .runtime("no items for cycling given") }
            return values[loop.index % values.count]
        }
        if let last = loop.lastChanged, TemplateValue.tuple(last).equals(.tuple(values)) {
            return .bool(false)
        }
        interpreter.noteChange(of: loop, values)
        return .bool(true)
    }

    private func callCycler(_ name: String, _ cycler: CyclerValue) -> TemplateValue {
        if name == "reset" {
            cycler.position = 0
            return .none
        }
        defer { cycler.position = (cycler.position + 1) % cycler.items.count }
        return cycler.items[cycler.position]
    }
}
