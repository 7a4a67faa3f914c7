/// One step from tokens back to text, after Hugging Face's tokenizers (decoders/).
enum DecoderStep: Sendable {
    case byteLevel
    case byteFallback
    case fuse
    case replaceText([UInt8], with: [UInt8])
    case replacePattern(RegexPattern, with: [UInt8])
    case strip(Unicode.Scalar, start: Int, stop: Int)
    case metaspace(replacement: Unicode.Scalar, dropsFirst: Bool)
    case wordPiece(prefix: [UInt8], cleansUp: Bool)
    case wordSuffix([UInt8])
    case ctc(pad: [UInt8], delimiter: [UInt8], cleansUp: Bool)
    /// Puts a space between tokens: what happens when a tokenizer has no decoder.
    case join

    /// Whether the step needs to see a token whole before it can pass anything on.
    var needsWholeTokens: Bool {
        switch self {
        case .fuse, .join, .metaspace, .replaceText: false
        case .strip(_, _, let stop): stop > 0
        default: true
        }
    }
}

/// Turns a stream of tokens into a stream of text.
///
/// The steps form a pipeline through which fragments of tokens flow as soon as they can no longer
/// change, so that whole decoding and streaming are the same code and agree on every byte.
struct DecoderStream: Sendable {
    /// What a step remembers between fragments.
    private struct StepState: Sendable {
        /// Bytes that are held back: of a scalar, a byte run or a possible match.
        var held: [UInt8] = []
        /// Fragments of the current token, at a step that needs tokens whole.
        var partial: [UInt8] = []
        /// The token before the current one, for steps that look back.
        var previous: [UInt8]?
        var tokenCount = 0
        /// Scalars that may still be stripped from the current token's start.
        var strippable: Int
        var isInsideToken = false

        mutating func takeWhole(_ fragment: [UInt8]) -> [UInt8] {
            if partial.isEmpty { return fragment }
            defer { partial = [] }
            return partial + fragment
        }
    }

    private let steps: [DecoderStep]
    private var states: [StepState]
    /// Text that has come out and was not taken yet: always valid UTF-8.
    private(set) var output: [UInt8] = []

    init(_ steps: [DecoderStep]) {
        self.steps = steps
        states = steps.map { step in
            if case .strip(_, let start, _) = step { return StepState(strippable: start) }
            return StepState(strippable: 0)
        }
    }

    /// Adds a token.
    /// - Complexity: amortized O(1) in the number of tokens before.
    mutating func append(_ token: [UInt8]) {
        feed(0, token, endsToken: true)
    }

    /// Ends the stream: what was held back comes out as whole decoding would have it.
    mutating func finish() {
        for index in steps.indices { flush(index) }
    }

    mutating func takeOutput() -> [UInt8] {
        defer { output.removeAll(keepingCapacity: true) }
        return output
    }

    private mutating func feed(_ index: Int, _ fragment: [UInt8], endsToken: Bool) {
        guard index < steps.count else {
            output.append(contentsOf: fragment)
            return
        }
        let step = steps[index]
        if step.needsWholeTokens {
            if !endsToken {
                states[index].partial.append(contentsOf: fragment)
                return
            }
            process(index, step, states[index].takeWhole(fragment))
            return
        }
        switch step {
        case .fuse:
            if !fragment.isEmpty { feed(index + 1, fragment, endsToken: false) }
        case .join:
            let isNew = !states[index].isInsideToken
            states[index].isInsideToken = !endsToken
            if isNew {
                if states[index].tokenCount > 0 { feed(index + 1, [0x20], endsToken: false) }
                states[index].tokenCount += 1
            }
            feed(index + 1, fragment, endsToken: endsToken)
        case .metaspace(let replacement, let dropsFirst):
            let drops = dropsFirst && states[index].tokenCount == 0
            if endsToken { states[index].tokenCount += 1 }
            let mark = UTF8Bytes.bytes(of: replacement)
            let text = fragment.replacing(text: mark, with: drops ? [] : [0x20])
            feed(index + 1, text, endsToken: endsToken)
        case .replaceText(let pattern, let content):
            replace(index, pattern, content, fragment, endsToken: endsToken)
        case .strip(let scalar, let start, _):
            stripStart(index, scalar, start, fragment, endsToken: endsToken)
        default:
            break
        }
    }

    /// Handles a whole token at a step that needs one.
    private mutating func process(_ index: Int, _ step: DecoderStep, _ token: [UInt8]) {
        switch step {
        case .byteLevel:
            ByteAlphabet.decode(token, into: &states[index].held)
            emitScalars(index, atEnd: false)
        case .byteFallback:
            if let byte = Self.byteToken(token) {
                states[index].held.append(byte)
            } else {
                flushByteRun(index)
                feed(index + 1, token, endsToken: true)
            }
        case .replacePattern(let pattern, let content):
            feed(index + 1, token.replacing(pattern: pattern, with: content), endsToken: true)
        case .strip(let scalar, let start, let stop):
            feed(index + 1, Self.strip(token, scalar, start, stop), endsToken: true)
        case .wordPiece(let prefix, let cleansUp):
            var text = token
            if states[index].tokenCount > 0 {
                if token.hasPrefix(prefix, at: 0) {
                    text.removeFirst(prefix.count)
                } else {
                    text.insert(0x20, at: 0)
                }
            }
            states[index].tokenCount += 1
            feed(index + 1, cleansUp ? Self.cleanUp(text) : text, endsToken: true)
        case .wordSuffix(let suffix):
            if let previous = states[index].previous {
                feed(index + 1, previous.replacing(text: suffix, with: [0x20]), endsToken: true)
            }
            states[index].previous = token
        case .ctc(let pad, let delimiter, let cleansUp):
            if states[index].previous == token { return }
            states[index].previous = token
            var text = token.replacing(text: pad, with: [])
            if cleansUp {
                text = Self.cleanUp(text).replacing(text: delimiter, with: [0x20])
            }
            if !text.isEmpty { feed(index + 1, text, endsToken: true) }
        default:
            break
        }
    }

    private mutating func flush(_ index: Int) {
        switch steps[index] {
        case .byteLevel:
            emitScalars(index, atEnd: true)
            feed(index + 1, [], endsToken: true)
        case .byteFallback:
            flushByteRun(index)
        case .fuse:
            feed(index + 1, [], endsToken: true)
        case .wordSuffix(let suffix):
            if let previous = states[index].previous {
                feed(index + 1, previous.replacing(text: suffix, with: []), endsToken: true)
            }
        default:
            break
        }
    }

    /// Passes on whole scalars of the held bytes, and U+FFFD for what can never become one.
    private mutating func emitScalars(_ index: Int, atEnd: Bool) {
        let held = states[index].held
        var text: [UInt8] = []
        var start = 0
        scan: while start < held.count {
            switch UTF8Bytes.prefix(held, at: start, end: held.count) {
            case .whole(let length):
                text.append(contentsOf: held[start..<(start + length)])
                start += length
            case .broken(let length):
                text.append(contentsOf: UTF8Bytes.replacement)
                start += length
            case .incomplete:
                if !atEnd { break scan }
                text.append(contentsOf: UTF8Bytes.replacement)
                start = held.count
            }
        }
        states[index].held.removeFirst(start)
        if !text.isEmpty { feed(index + 1, text, endsToken: false) }
    }

    /// The byte of a token such as `<0x0A>`.
    static func byteToken(_ token: [UInt8]) -> UInt8? {
        guard token.count == 6, token[0] == 0x3C, token[1] == 0x30, token[2] == 0x78,
            token[5] == 0x3E
        else { return nil }
        return UInt8(String(decoding: token[3..<5], as: UTF8.self), radix: 16)
    }

    /// A run of byte tokens is text when all of it is valid, else one U+FFFD per byte. That is why
    /// nothing of a run can come out before it ends.
    private mutating func flushByteRun(_ index: Int) {
        let run = states[index].held
        if run.isEmpty { return }
        states[index].held.removeAll(keepingCapacity: true)
        if UTF8Bytes.isValid(run) {
            feed(index + 1, run, endsToken: true)
        } else {
            for _ in run { feed(index + 1, UTF8Bytes.replacement, endsToken: true) }
        }
    }

    private mutating func replace(
        _ index: Int, _ pattern: [UInt8], _ content: [UInt8], _ fragment: [UInt8], endsToken: Bool
    ) {
        let text = states[index].held + fragment
        states[index].held.removeAll(keepingCapacity: true)
        var result: [UInt8] = []
        var position = 0
        while position < text.count {
            if !pattern.isEmpty, text.hasPrefix(pattern, at: position) {
                result.append(contentsOf: content)
                position += pattern.count
            } else if !endsToken, text.count - position < pattern.count,
                pattern.hasPrefix(Array(text[position...]), at: 0)
            {
                states[index].held.append(contentsOf: text[position...])
                break
            } else {
                result.append(text[position])
                position += 1
            }
        }
        if endsToken || !result.isEmpty { feed(index + 1, result, endsToken: endsToken) }
    }

    private mutating func stripStart(
        _ index: Int, _ scalar: Unicode.Scalar, _ limit: Int, _ fragment: [UInt8], endsToken: Bool
    ) {
        let mark = UTF8Bytes.bytes(of: scalar)
        var start = 0
        while states[index].strippable > 0, start < fragment.count {
            guard fragment.hasPrefix(mark, at: start) else {
                states[index].strippable = 0
                break
            }
            start += mark.count
            states[index].strippable -= 1
        }
        if endsToken { states[index].strippable = limit }
        feed(index + 1, start == 0 ? fragment : Array(fragment[start...]), endsToken: endsToken)
    }

    private static func strip(
        _ token: [UInt8], _ scalar: Unicode.Scalar, _ start: Int, _ stop: Int
    ) -> [UInt8] {
        let mark = UTF8Bytes.bytes(of: scalar)
        var low = 0
        var high = token.count
        for _ in 0..<start where token.hasPrefix(mark, at: low) { low += mark.count }
        for _ in 0..<stop
        where high - mark.count >= low && token.hasPrefix(mark, at: high - mark.count) {
            high -= mark.count
        }
        return Array(token[low..<high])
    }

    private static func cleanUp(_ text: [UInt8]) -> [UInt8] {
        let rules = [
            (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"),
            (" 'm", "'m"), (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
        ]
        return rules.reduce(text) { $0.replacing(text: Array($1.0.utf8), with: Array($1.1.utf8)) }
    }
}
