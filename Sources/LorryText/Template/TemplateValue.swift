import OrderedCollections

/// A value inside a template: Python's kinds as far as templates meet them.
indirect enum TemplateValue {
    /// What a name or field without a value gives; the text says what was looked for.
    case undefined(String)
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    /// Text that counts as escaped HTML: what is added to it is escaped.
    case markup(String)
    case list([TemplateValue])
    case tuple([TemplateValue])
    case dict(OrderedDictionary<TemplateKey, TemplateValue>)
    case lazy(LazyKind, [TemplateValue])
    case namespace(TemplateNamespace)
    case macro(MacroValue)
    case loop(LoopValue)
    case cycler(CyclerValue)
    /// A function of the environment, by name.
    case function(String)
    /// A method of a value, by name.
    case method(TemplateValue, String)

    /// Sequences that are not lists to a template, though all their elements exist here.
    enum LazyKind {
        case generator, keys, values, items, range
    }
}

/// A key of a dictionary.
enum TemplateKey: Hashable {
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case tuple([TemplateKey])

    init(_ value: TemplateValue) throws(TemplateError) {
        switch value {
        case .none: self = .none
        case .bool(let bool): self = .bool(bool)
        case .int(let int): self = .int(int)
        case .double(let double):
            self = Int(exactly: double).map { .int($0) } ?? .double(double)
        case .string(let string), .markup(let string): self = .string(string)
        case .tuple(let elements):
            var keys: [TemplateKey] = []
            for element in elements { keys.append(try TemplateKey(element)) }
            self = .tuple(keys)
        default: throw .runtime("unhashable type: '\(value.typeName)'")
        }
    }

    var value: TemplateValue {
        switch self {
        case .none: .none
        case .bool(let bool): .bool(bool)
        case .int(let int): .int(int)
        case .double(let double): .double(double)
        case .string(let string): .string(string)
        case .tuple(let keys): .tuple(keys.map(\.value))
        }
    }
}

extension TemplateValue {
    /// Whether values lie in each other more than so many times, as far as they are freed together.
    func isNested(deeperThan limit: Int, _ visitCount: inout Int) -> Bool {
        visitCount += 1
        guard limit > 0 else { return true }
        let parts: [TemplateValue]
        switch self {
        case .list(let elements), .tuple(let elements), .lazy(_, let elements): parts = elements
        case .dict(let members): parts = Array(members.values)
        case .cycler(let cycler): parts = cycler.items
        case .loop(let loop): parts = loop.items
        case .method(let value, _): parts = [value]
        case .undefined, .none, .bool, .int, .double, .string, .markup, .namespace, .macro,
            .function:
            return false
        }
        for part in parts where part.isNested(deeperThan: limit - 1, &visitCount) { return true }
        return false
    }
}

/// The one mutable value of templates.
final class TemplateNamespace {
    var attributes: OrderedDictionary<TemplateKey, TemplateValue>

    init(_ attributes: OrderedDictionary<TemplateKey, TemplateValue>) {
        self.attributes = attributes
    }
}

/// Variables of a part of a template; reading looks outwards, writing stays inside.
final class TemplateScope {
    var variables: [String: TemplateValue] = [:]
    let parent: TemplateScope?

    init(parent: TemplateScope?) {
        self.parent = parent
    }

    func lookup(_ name: String) -> TemplateValue? {
        var scope: TemplateScope? = self
        while let current = scope {
            if let value = current.variables[name] { return value }
            scope = current.parent
        }
        return nil
    }
}

final class MacroValue {
    let macro: TemplateMacro
    /// The variables around its definition.
    let scope: TemplateScope

    init(_ macro: TemplateMacro, scope: TemplateScope) {
        self.macro = macro
        self.scope = scope
    }
}

/// The variable `loop`.
final class LoopValue {
    let items: [TemplateValue]
    let depth: Int
    /// What a recursive loop calls again.
    let recursion: (loop: TemplateLoop, scope: TemplateScope)?
    var index = 0
    var lastChanged: [TemplateValue]?

    init(
        _ items: [TemplateValue], depth: Int, recursion: (loop: TemplateLoop, scope: TemplateScope)?
    ) {
        self.items = items
        self.depth = depth
        self.recursion = recursion
    }

    func attribute(_ name: String) -> TemplateValue? {
        switch name {
        case "index": .int(index + 1)
        case "index0": .int(index)
        case "revindex": .int(items.count - index)
        case "revindex0": .int(items.count - index - 1)
        case "first": .bool(index == 0)
        case "last": .bool(index == items.count - 1)
        case "length": .int(items.count)
        case "depth": .int(depth + 1)
        case "depth0": .int(depth)
        case "previtem":
            index > 0 ? items[index - 1] : .undefined("there is no previous item")
        case "nextitem":
            index + 1 < items.count ? items[index + 1] : .undefined("there is no next item")
        case "cycle", "changed": .method(.loop(self), name)
        default: nil
        }
    }
}

/// What `cycler` and `joiner` make.
final class CyclerValue {
    let items: [TemplateValue]
    let isJoiner: Bool
    var position = 0

    init(_ items: [TemplateValue], isJoiner: Bool) {
        self.items = items
        self.isJoiner = isJoiner
    }
}

extension TemplateValue {
    init(_ value: JSONValue) {
        switch value {
        case .null: self = .none
        case .bool(let bool): self = .bool(bool)
        case .integer(let int): self = .int(int)
        case .double(let double): self = .double(double)
        case .string(let string): self = .string(string)
        case .array(let elements): self = .list(elements.map { TemplateValue($0) })
        case .object(let members):
            var dict = OrderedDictionary<TemplateKey, TemplateValue>(
                minimumCapacity: members.count)
            for (key, member) in members { dict[.string(key)] = TemplateValue(member) }
            self = .dict(dict)
        }
    }

    /// Python's name of the type, for messages.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .int: "int"
        case .double: "float"
        case .string: "str"
        case .markup: "Markup"
        case .list: "list"
        case .tuple: "tuple"
        case .dict: "dict"
        case .lazy(.generator, _): "generator"
        case .lazy(.keys, _): "dict_keys"
        case .lazy(.values, _): "dict_values"
        case .lazy(.items, _): "dict_items"
        case .lazy(.range, _): "range"
        case .namespace: "Namespace"
        case .macro: "Macro"
        case .loop: "LoopContext"
        case .cycler(let cycler): cycler.isJoiner ? "Joiner" : "Cycler"
        case .function: "function"
        case .method: "builtin_function_or_method"
        }
    }

    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let bool): bool
        case .int(let int): int != 0
        case .double(let double): double != 0
        case .string(let string), .markup(let string): !string.isEmpty
        case .list(let elements), .tuple(let elements): !elements.isEmpty
        case .dict(let dict): !dict.isEmpty
        case .lazy(.generator, _): true
        case .lazy(_, let elements): !elements.isEmpty
        case .loop(let loop): !loop.items.isEmpty
        default: true
        }
    }

    /// The value with escaped text as text like any other.
    var plain: TemplateValue {
        if case .markup(let text) = self { return .string(text) }
        return self
    }

    var isUndefined: Bool {
        if case .undefined = self { return true }
        return false
    }

    /// The number that Python's arithmetic sees; a Boolean is one.
    var integer: Int? {
        switch self {
        case .int(let int): int
        case .bool(let bool): bool ? 1 : 0
        default: nil
        }
    }

    var number: Double? {
        if case .double(let double) = self { return double }
        return integer.map { Double($0) }
    }

    /// The elements that a loop over the value sees.
    func elements() throws(TemplateError) -> [TemplateValue] {
        switch self {
        case .undefined: []
        case .list(let elements), .tuple(let elements), .lazy(_, let elements): elements
        case .string(let string), .markup(let string):
            string.unicodeScalars.map { .string(String(Character($0))) }
        case .dict(let dict): dict.keys.map(\.value)
        default: throw .runtime("'\(typeName)' object is not iterable")
        }
    }

    /// What `length` counts: scalars, elements or keys.
    func count() throws(TemplateError) -> Int {
        switch self {
        case .undefined: return 0
        case .string(let string), .markup(let string): return string.unicodeScalars.count
        case .list(let elements), .tuple(let elements): return elements.count
        case .dict(let dict): return dict.count
        case .lazy(let kind, let elements):
            if case .generator = kind { break }
            return elements.count
        case .loop(let loop): return loop.items.count
        default: break
        }
        throw .runtime("object of type '\(typeName)' has no len()")
    }
}

extension TemplateValue {
    /// Python's `==`.
    func equals(_ other: TemplateValue) -> Bool {
        switch (plain, other.plain) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.string(let left), .string(let right)):
            return left.utf8.elementsEqual(right.utf8)
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
            return left.count == right.count && zip(left, right).allSatisfy { $0.equals($1) }
        case (.dict(let left), .dict(let right)):
            guard left.count == right.count else { return false }
            return left.allSatisfy { key, value in right[key].map { $0.equals(value) } ?? false }
        case (.lazy(_, let left), .lazy(_, let right)):
            return left.count == right.count && zip(left, right).allSatisfy { $0.equals($1) }
        case (.namespace(let left), .namespace(let right)): return left === right
        case (.macro(let left), .macro(let right)): return left === right
        default:
            if let left = integer, let right = other.integer { return left == right }
            if let left = number, let right = other.number { return left == right }
            return false
        }
    }

    /// Python's `<`.
    func isLess(than other: TemplateValue) throws(TemplateError) -> Bool {
        if let left = integer, let right = other.integer { return left < right }
        if let left = number, let right = other.number { return left < right }
        switch (plain, other.plain) {
        case (.string(let left), .string(let right)):
            return left.utf8.lexicographicallyPrecedes(right.utf8)
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
            for (first, second) in zip(left, right) where !first.equals(second) {
                return try first.isLess(than: second)
            }
            return left.count < right.count
        default:
            throw .runtime(
                "'<' not supported between instances of '\(typeName)' and '\(other.typeName)'")
        }
    }

    /// Python's `item in self`.
    func contains(_ item: TemplateValue) throws(TemplateError) -> Bool {
        switch plain {
        case .string(let text):
            guard case .string(let part) = item.plain else {
                throw .runtime(
                    "'in <string>' requires string as left operand, not \(item.typeName)")
            }
            return part.isEmpty || text.utf8Find(part) != nil
        case .dict(let dict):
            return dict[try TemplateKey(item)] != nil
        case .namespace, .macro, .function, .method, .none, .bool, .int, .double, .loop, .cycler:
            throw .runtime("argument of type '\(typeName)' is not iterable")
        default:
            return try elements().contains { $0.equals(item) }
        }
    }
}

extension String {
    /// The first place of a text, compared byte by byte and not by canonical equivalence.
    func utf8Find(_ part: String, from start: String.Index? = nil) -> Range<String.Index>? {
        let haystack = utf8
        let needle = Array(part.utf8)
        guard let first = needle.first else { return nil }
        var index = start ?? startIndex
        while index < haystack.endIndex {
            guard let candidate = haystack[index...].firstIndex(of: first) else { return nil }
            if haystack[candidate...].starts(with: needle) {
                return candidate..<haystack.index(candidate, offsetBy: needle.count)
            }
            index = haystack.index(after: candidate)
        }
        return nil
    }
}
