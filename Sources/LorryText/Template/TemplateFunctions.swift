import Foundation
import OrderedCollections

/// The functions that every template can call.
enum TemplateFunctions {
    static let names: Set<String> = [
        "range", "dict", "namespace", "raise_exception", "strftime_now", "cycler", "joiner",
    ]
    /// The sandbox's bound on the length of a range.
    static let maximumRange = 100_000

    static func call(
        _ name: String, _ arguments: TemplateInterpreter.Arguments,
        _ interpreter: TemplateInterpreter
    ) throws(TemplateError) -> TemplateValue {
        switch name {
        case "range": return try range(arguments)
        case "dict": return .dict(try dict(arguments))
        case "namespace": return try interpreter.makeNamespace(try dict(arguments))
        case "cycler":
            if arguments.positional.isEmpty {
                throw .runtime("at least one item has to be provided")
            }
            return .cycler(CyclerValue(arguments.positional, isJoiner: false))
        case "joiner":
            let separator =
                arguments.positional.first ?? arguments.named["sep"] ?? .string(", ")
            return .cycler(CyclerValue([separator], isJoiner: true))
        case "raise_exception":
            let message = arguments.positional.first ?? arguments.named["message"] ?? .none
            throw TemplateError(kind: .raised, message: try PythonText.string(message))
        case "strftime_now":
            guard case .string(let format)? = arguments.positional.first else {
                throw .runtime("strftime_now needs a format")
            }
            return .string(TemplateClock.format(format, interpreter.now))
        default:
            throw .runtime("'\(name)' is undefined")
        }
    }

    private static func range(
        _ arguments: TemplateInterpreter.Arguments
    ) throws(TemplateError) -> TemplateValue {
        var numbers: [Int] = []
        for argument in arguments.positional {
            guard let number = argument.integer else {
                throw .runtime(
                    "'\(argument.typeName)' object cannot be interpreted as an integer")
            }
            numbers.append(number)
        }
        guard (1...3).contains(numbers.count) else {
            throw .runtime("range expected 1 to 3 arguments, got \(numbers.count)")
        }
        let start = numbers.count == 1 ? 0 : numbers[0]
        let stop = numbers.count == 1 ? numbers[0] : numbers[1]
        let step = numbers.count == 3 ? numbers[2] : 1
        if step == 0 { throw .runtime("range() arg 3 must not be zero") }
        var elements: [TemplateValue] = []
        for number in stride(from: start, to: stop, by: step) {
            elements.append(.int(number))
            if elements.count > maximumRange {
                throw .limit(
                    "Range too big. The sandbox blocks ranges larger than \(maximumRange).")
            }
        }
        return .lazy(.range, elements)
    }

    private static func dict(
        _ arguments: TemplateInterpreter.Arguments
    ) throws(TemplateError) -> OrderedDictionary<TemplateKey, TemplateValue> {
        var dict: OrderedDictionary<TemplateKey, TemplateValue> = [:]
        if let first = arguments.positional.first {
            if case .dict(let other) = first {
                dict = other
            } else {
                for pair in try first.elements() {
                    let parts = try pair.elements()
                    guard parts.count == 2 else {
                        throw .runtime("a dictionary needs pairs of a key and a value")
                    }
                    dict[try TemplateKey(parts[0])] = parts[1]
                }
            }
        }
        for (name, value) in arguments.named { dict[.string(name)] = value }
        return dict
    }
}

/// Formats times as C's `strftime` does in its own locale.
enum TemplateClock {
    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October", "November", "December",
    ]
    private static let days = [
        "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
    ]

    static func format(_ format: String, _ date: Date) -> String {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = .current
        let parts = calendar.dateComponents(
            [.year, .month, .day, .hour, .minute, .second, .weekday, .dayOfYear], from: date)
        var output = ""
        var scalars = Array(format.unicodeScalars)[...]
        while let scalar = scalars.popFirst() {
            guard scalar == "%", let directive = scalars.popFirst() else {
                output.unicodeScalars.append(scalar)
                continue
            }
            if directive == "-", let inner = scalars.popFirst() {
                let text = expand(inner, parts, calendar.timeZone, date)
                let digits = text.drop { $0 == "0" || $0 == " " }
                output += digits.isEmpty ? "0" : String(digits)
            } else {
                output += expand(directive, parts, calendar.timeZone, date)
            }
        }
        return output
    }

    private static func padded(_ number: Int?, _ width: Int, _ fill: Character = "0") -> String {
        let text = String(number ?? 0)
        return String(repeating: fill, count: max(0, width - text.count)) + text
    }

    private static func expand(
        _ directive: Unicode.Scalar, _ parts: DateComponents, _ zone: TimeZone, _ date: Date
    ) -> String {
        let month = months[((parts.month ?? 1) + 11) % 12]
        let day = days[((parts.weekday ?? 1) + 6) % 7]
        let hour = parts.hour ?? 0
        func join(_ directives: String) -> String {
            directives.unicodeScalars.map {
                $0.properties.isAlphabetic
                    ? expand($0, parts, zone, date) : String(Character($0))
            }.joined()
        }
        switch directive {
        case "Y": return String(parts.year ?? 0)
        case "y": return padded((parts.year ?? 0) % 100, 2)
        case "m": return padded(parts.month, 2)
        case "d": return padded(parts.day, 2)
        case "e": return padded(parts.day, 2, " ")
        case "j": return padded(parts.dayOfYear, 3)
        case "H": return padded(hour, 2)
        case "I": return padded((hour + 11) % 12 + 1, 2)
        case "M": return padded(parts.minute, 2)
        case "S": return padded(parts.second, 2)
        case "f": return "000000"
        case "p": return hour < 12 ? "AM" : "PM"
        case "B": return month
        case "b", "h": return String(month.prefix(3))
        case "A": return day
        case "a": return String(day.prefix(3))
        case "w": return String(((parts.weekday ?? 1) + 6) % 7)
        case "u": return String(((parts.weekday ?? 1) + 5) % 7 + 1)
        case "F": return join("Y-m-d")
        case "T", "X": return join("H:M:S")
        case "R": return join("H:M")
        case "D", "x": return join("m/d/y")
        case "c": return join("a b e H:M:S Y")
        case "s": return String(Int(date.timeIntervalSince1970))
        case "n": return "\n"
        case "t": return "\t"
        // A time without a zone, as Python's `datetime.now()` gives, has no name for one.
        case "z", "Z": return ""
        case "%": return "%"
        default: return "%" + String(Character(directive))
        }
    }
}
