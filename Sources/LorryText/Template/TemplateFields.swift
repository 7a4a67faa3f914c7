import OrderedCollections

// What a template reads off a value, attributes and items, and what it calls.
extension TemplateInterpreter {
    /// `value.name`: an attribute or method first, an item of a dictionary second.
    func attribute(_ value: TemplateValue, _ name: String) throws(TemplateError) -> TemplateValue {
        switch value {
        case .undefined(let what): throw .runtime(what)
        case .dict(let dict):
            if TemplateMethods.isMethod(name, of: value) { return .method(value, name) }
            if let item = dict[.string(name)] { return item }
        case .namespace(let space):
            if let item = space.attributes[.string(name)] { return item }
        case .loop(let loop):
            if let item = loop.attribute(name) { return item }
        case .cycler(let cycler):
            if !cycler.isJoiner, name == "current", !cycler.items.isEmpty {
                return cycler.items[cycler.position]
            }
            if !cycler.isJoiner, name == "next" || name == "reset" { return .method(value, name) }
        case .macro(let macro):
            if name == "name" { return .string(macro.macro.name) }
            if name == "arguments" {
                return .tuple(macro.macro.parameters.map { .string($0) })
            }
        default:
            if TemplateMethods.isMethod(name, of: value) { return .method(value, name) }
        }
        return .undefined("'\(value.typeName) object' has no attribute '\(name)'")
    }

    /// `value[key]`: an item first, an attribute second.
    func item(
        _ value: TemplateValue, _ key: TemplateValue
    ) throws(TemplateError) -> TemplateValue {
        switch value {
        case .undefined(let what): throw .runtime(what)
        case .dict(let dict):
            if let key = try? TemplateKey(key), let item = dict[key] { return item }
        case .namespace:
            break
        case .list(let elements), .tuple(let elements), .lazy(.range, let elements):
            if let index = key.integer {
                let position = index < 0 ? elements.count + index : index
                if elements.indices.contains(position) { return elements[position] }
                return .undefined("list object has no element \(index)")
            }
        case .string(let text):
            if let index = key.integer {
                let scalars = text.unicodeScalars
                try charge(text.utf8.count)
                let position = index < 0 ? scalars.count + index : index
                if position >= 0,
                    let place = scalars.index(
                        scalars.startIndex, offsetBy: position, limitedBy: scalars.endIndex),
                    place < scalars.endIndex
                {
                    return .string(String(Character(scalars[place])))
                }
                return .undefined("str object has no element \(index)")
            }
        default: break
        }
        if case .string(let name) = key {
            if case .dict = value, !TemplateMethods.isMethod(name, of: value) {
                return .undefined("'dict object' has no attribute '\(name)'")
            }
            return try attribute(value, name)
        }
        return .undefined("'\(value.typeName) object' has no such element")
    }

    func call(
        _ callee: TemplateValue, _ arguments: Arguments, line: Int
    ) throws(TemplateError) -> TemplateValue {
        do throws(TemplateError) {
            switch callee {
            case .macro(let macro): return try call(macro, arguments)
            case .function(let name):
                return try TemplateFunctions.call(name, arguments, self)
            case .method(let receiver, let name):
                return try TemplateMethods(self).call(name, of: receiver, arguments)
            case .loop(let loop): return try callLoop(loop, arguments)
            case .cycler(let cycler): return callJoiner(cycler)
            case .undefined(let what): throw TemplateError.runtime(what)
            default: throw TemplateError.runtime("'\(callee.typeName)' object is not callable")
            }
        } catch {
            throw TemplateError(
                kind: error.kind, message: error.message, line: error.line ?? line)
        }
    }

    private func callLoop(
        _ loop: LoopValue, _ arguments: Arguments
    ) throws(TemplateError) -> TemplateValue {
        guard let recursion = loop.recursion else {
            throw .runtime(
                "The loop must have the 'recursive' marker to be called recursively.")
        }
        guard let sequence = arguments.positional.first else {
            throw .runtime("a recursive loop needs a sequence")
        }
        var output = ""
        try runLoop(
            recursion.loop, over: sequence, depth: loop.depth + 1, recursion.scope, &output)
        return .string(output)
    }

    private func callJoiner(_ cycler: CyclerValue) -> TemplateValue {
        defer { cycler.position = 1 }
        return cycler.position == 0 ? .string("") : cycler.items[0]
    }
}
