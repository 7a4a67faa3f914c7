import OrderedCollections

/// Filters on sequences.
struct SequenceFilters {
    typealias Arguments = TemplateInterpreter.Arguments

    private let interpreter: TemplateInterpreter

    init(_ interpreter: TemplateInterpreter) {
        self.interpreter = interpreter
    }

    func apply(
        _ name: String, _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        switch name {
        case "items": return try items(value)
        case "dictsort": return try dictSorted(value, arguments)
        case "reverse":
            if case .string(let text) = value {
                return .string(PythonString.string(text.unicodeScalars.reversed()))
            }
        case "last":
            if case .lazy(let kind, _) = value, kind == .generator {
                throw .runtime("'generator' object is not reversible")
            }
        case "map", "select", "reject", "selectattr", "rejectattr":
            // Nothing to go through is not an error, even when it is no sequence.
            if !value.isTrue { return .lazy(.generator, []) }
        default: break
        }
        let elements = try value.elements()
        try interpreter.charge(elements.count * 16)
        switch name {
        case "first": return elements.first ?? .undefined("No first item, sequence was empty.")
        case "last": return elements.last ?? .undefined("No last item, sequence was empty.")
        case "list": return .list(elements)
        case "reverse": return .lazy(.generator, elements.reversed())
        case "join": return try join(elements, arguments)
        case "map": return .lazy(.generator, try map(elements, arguments))
        case "select", "reject", "selectattr", "rejectattr":
            return .lazy(.generator, try select(name, elements, arguments))
        case "sort": return .list(try sorted(elements, arguments))
        case "unique": return .lazy(.generator, try unique(elements, arguments))
        case "min", "max": return try extreme(name, elements, arguments)
        case "sum": return try sum(elements, arguments)
        case "groupby": return .list(try grouped(elements, arguments))
        case "batch": return .lazy(.generator, try batches(elements, arguments))
        default: return .lazy(.generator, try slices(elements, arguments))
        }
    }

    private func items(_ value: TemplateValue) throws(TemplateError) -> TemplateValue {
        switch value {
        case .undefined: return .lazy(.generator, [])
        case .dict(let dict):
            try interpreter.charge(dict.count * 32)
            return .lazy(.generator, dict.map { .tuple([$0.key.value, $0.value]) })
        default: throw .runtime("Can only get item pairs from a mapping.")
        }
    }

    /// `a.b.0` of a value, for filters that take an attribute.
    private func attribute(
        _ value: TemplateValue, _ path: TemplateValue
    ) throws(TemplateError) -> TemplateValue {
        guard case .string(let text) = path else { return try interpreter.item(value, path) }
        var value = value
        for part in text.split(separator: ".", omittingEmptySubsequences: false) {
            value = try interpreter.item(
                value, Int(part).map { .int($0) } ?? .string(String(part)))
        }
        return value
    }

    /// The value that a filter orders or compares by.
    private func key(
        _ value: TemplateValue, _ path: TemplateValue?, isCaseSensitive: Bool
    ) throws(TemplateError) -> TemplateValue {
        var result = value
        if let path, path.isTrue || path.integer != nil { result = try attribute(value, path) }
        if !isCaseSensitive, case .string(let text) = result { return .string(text.lowercased()) }
        return result
    }

    private func join(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        let separator = try arguments.text(0, "d") ?? ""
        var output = ""
        for (index, element) in elements.enumerated() {
            if index > 0 { output += separator }
            var part = element
            if let path = arguments.value(1, "attribute"), path.isTrue || path.integer != nil {
                part = try attribute(element, path)
            }
            let text = try PythonText.string(part)
            try interpreter.charge(text.utf8.count + separator.utf8.count)
            output += text
        }
        return .string(output)
    }

    private func map(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        var results: [TemplateValue] = []
        if arguments.positional.isEmpty, let path = arguments.named["attribute"] {
            for element in elements {
                let found = try attribute(element, path)
                results.append(
                    found.isUndefined ? arguments.named["default"] ?? found : found)
            }
            return results
        }
        guard case .string(let filter)? = arguments.positional.first else {
            throw .runtime("map requires a filter argument")
        }
        var rest = arguments
        rest.positional.removeFirst()
        for element in elements {
            results.append(try TemplateFilters(interpreter).apply(filter, element, rest))
        }
        return results
    }

    private func select(
        _ name: String, _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        var rest = arguments
        var path: TemplateValue?
        if name.hasSuffix("attr") {
            guard !rest.positional.isEmpty else {
                throw .runtime("Missing parameter for attribute name")
            }
            path = rest.positional.removeFirst()
        }
        var test: String?
        if case .string(let named)? = rest.positional.first {
            guard
                TemplateTests.names.contains(named)
                    || ["==", "!=", "<", "<=", ">", ">="].contains(named)
            else { throw .runtime("No test named '\(named)'.") }
            test = named
            rest.positional.removeFirst()
        }
        let keeps = name.hasPrefix("select")
        var results: [TemplateValue] = []
        for element in elements {
            try interpreter.charge()
            var subject = element
            if let path { subject = try attribute(element, path) }
            if try passes(subject, test, rest) == keeps { results.append(element) }
        }
        return results
    }

    private func passes(
        _ value: TemplateValue, _ test: String?, _ arguments: Arguments
    ) throws(TemplateError) -> Bool {
        guard let test else { return value.isTrue }
        if TemplateTests.names.contains(test) {
            return try TemplateTests.apply(test, value, arguments)
        }
        guard let operand = arguments.positional.first else {
            throw .runtime("the test '\(test)' needs an argument")
        }
        return try TemplateOperators.compare(test, value, operand)
    }

    /// Sorts stably by the keys' `<`.
    private func sorted(
        _ entries: [(key: TemplateValue, value: TemplateValue)], isReversed: Bool
    ) throws(TemplateError) -> [TemplateValue] {
        try interpreter.charge(entries.count * 256)
        var failure: TemplateError?
        func isBefore(_ left: TemplateValue, _ right: TemplateValue) -> Bool {
            do throws(TemplateError) {
                return try left.isLess(than: right)
            } catch {
                failure = failure ?? error
                return false
            }
        }
        let order = entries.enumerated().sorted { left, right in
            let first = isReversed ? right.element.key : left.element.key
            let second = isReversed ? left.element.key : right.element.key
            if isBefore(first, second) { return true }
            return !isBefore(second, first) && left.offset < right.offset
        }
        if let failure { throw failure }
        return order.map(\.element.value)
    }

    private func sorted(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        let isReversed = arguments.value(0, "reverse")?.isTrue ?? false
        let isCaseSensitive = arguments.value(1, "case_sensitive")?.isTrue ?? false
        let paths: [TemplateValue?]
        if case .string(let text)? = arguments.value(2, "attribute") {
            paths = text.split(separator: ",").map { .string(String($0)) }
        } else {
            paths = [arguments.value(2, "attribute")]
        }
        var entries: [(key: TemplateValue, value: TemplateValue)] = []
        for element in elements {
            var keys: [TemplateValue] = []
            for path in paths {
                keys.append(try key(element, path, isCaseSensitive: isCaseSensitive))
            }
            entries.append((keys.count == 1 ? keys[0] : .tuple(keys), element))
        }
        return try sorted(entries, isReversed: isReversed)
    }

    private func dictSorted(
        _ value: TemplateValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        guard case .dict(let dict) = value else {
            throw .runtime("'\(value.typeName)' object has no attribute 'items'")
        }
        let isCaseSensitive = arguments.value(0, "case_sensitive")?.isTrue ?? false
        let by = try arguments.text(1, "by") ?? "key"
        let isReversed = arguments.value(2, "reverse")?.isTrue ?? false
        guard by == "key" || by == "value" else {
            throw .runtime("You can only sort by either \"key\" or \"value\"")
        }
        var entries: [(key: TemplateValue, value: TemplateValue)] = []
        for (name, member) in dict {
            let subject = by == "key" ? name.value : member
            entries.append(
                (
                    try key(subject, nil, isCaseSensitive: isCaseSensitive),
                    .tuple([name.value, member])
                ))
        }
        return .list(try sorted(entries, isReversed: isReversed))
    }

    private func unique(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        let isCaseSensitive = arguments.value(0, "case_sensitive")?.isTrue ?? false
        var seen: Set<TemplateKey> = []
        var results: [TemplateValue] = []
        for element in elements {
            let key = try key(
                element, arguments.value(1, "attribute"), isCaseSensitive: isCaseSensitive)
            if seen.insert(try TemplateKey(key)).inserted { results.append(element) }
        }
        return results
    }

    private func extreme(
        _ name: String, _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        let isCaseSensitive = arguments.value(0, "case_sensitive")?.isTrue ?? false
        let path = arguments.value(1, "attribute")
        guard var best = elements.first else {
            return .undefined("No aggregated item, sequence was empty.")
        }
        var bestKey = try key(best, path, isCaseSensitive: isCaseSensitive)
        for element in elements.dropFirst() {
            let key = try key(element, path, isCaseSensitive: isCaseSensitive)
            let isBetter =
                name == "min" ? try key.isLess(than: bestKey) : try bestKey.isLess(than: key)
            if isBetter { (best, bestKey) = (element, key) }
        }
        return best
    }

    private func sum(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        var total = arguments.value(1, "start") ?? .int(0)
        for element in elements {
            var term = element
            if let path = arguments.value(0, "attribute"), path.isTrue || path.integer != nil {
                term = try attribute(element, path)
            }
            total = try TemplateOperators(interpreter).arithmetic("+", total, term)
        }
        return total
    }

    private func grouped(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        guard let path = arguments.value(0, "attribute") else {
            throw .runtime("groupby needs an attribute")
        }
        let fallback = arguments.value(1, "default")
        let isCaseSensitive = arguments.value(2, "case_sensitive")?.isTrue ?? false
        var entries: [(key: TemplateValue, value: TemplateValue)] = []
        for element in elements {
            var found = try attribute(element, path)
            if found.isUndefined, let fallback { found = fallback }
            let sortKey = try key(found, nil, isCaseSensitive: isCaseSensitive)
            entries.append((sortKey, .tuple([sortKey, found, element])))
        }
        var groups: [(key: TemplateValue, shown: TemplateValue, members: [TemplateValue])] = []
        for entry in try sorted(entries, isReversed: false) {
            guard case .tuple(let parts) = entry else { continue }
            if let last = groups.last, last.key.equals(parts[0]) {
                groups[groups.count - 1].members.append(parts[2])
            } else {
                groups.append((parts[0], parts[1], [parts[2]]))
            }
        }
        return groups.map { .tuple([$0.shown, .list($0.members)]) }
    }

    private func size(
        _ arguments: Arguments, _ name: String
    ) throws(TemplateError) -> Int {
        guard let size = try arguments.integer(0, name), size > 0, size <= 100_000 else {
            throw .runtime("\(name) must be a positive number")
        }
        return size
    }

    private func batches(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        let size = try size(arguments, "linecount")
        var results: [TemplateValue] = []
        for start in stride(from: 0, to: elements.count, by: size) {
            var batch = Array(elements[start..<min(start + size, elements.count)])
            if let fill = arguments.value(1, "fill_with"), batch.count < size {
                if case .none = fill {
                } else {
                    batch += Array(repeating: fill, count: size - batch.count)
                }
            }
            results.append(.list(batch))
        }
        return results
    }

    private func slices(
        _ elements: [TemplateValue], _ arguments: Arguments
    ) throws(TemplateError) -> [TemplateValue] {
        let count = try size(arguments, "slices")
        let share = elements.count / count
        let longer = elements.count % count
        var results: [TemplateValue] = []
        var start = 0
        for index in 0..<count {
            let end = start + share + (index < longer ? 1 : 0)
            var slice = Array(elements[start..<end])
            if let fill = arguments.value(1, "fill_with"), index >= longer, longer > 0 {
                if case .none = fill {
                } else {
                    slice.append(fill)
                }
            }
            results.append(.list(slice))
            start = end
        }
        return results
    }
}
