/// Text cut into pieces: ranges of one byte buffer.
struct PieceList: Sendable {
    struct Piece: Sendable, Equatable {
        var start: Int
        var end: Int
        /// Whether the piece begins where the whole input text began.
        var isFirst: Bool
    }

    var bytes: [UInt8]
    var pieces: [Piece]

    init(_ bytes: [UInt8], isFirst: Bool) {
        self.bytes = bytes
        pieces = bytes.isEmpty ? [] : [Piece(start: 0, end: bytes.count, isFirst: isFirst)]
    }
}

/// What becomes of the delimiters that a split finds.
enum SplitBehavior: String, Sendable {
    case removed = "Removed"
    case isolated = "Isolated"
    case mergedWithPrevious = "MergedWithPrevious"
    case mergedWithNext = "MergedWithNext"
    case contiguous = "Contiguous"
}

/// What a split looks for.
enum SplitPattern: Sendable {
    case text([UInt8])
    case pattern(RegexPattern)
    case scalars(ScalarClass)
    /// Runs of word scalars, or of scalars that are neither word nor space (`\w+|[^\w\s]+`).
    case words
}

/// How normalized text is cut into pieces that are tokenized on their own, after Hugging Face's
/// tokenizers (pre_tokenizers/).
indirect enum PreTokenizer: Sendable {
    enum PrependScheme: String, Sendable {
        case first, never, always
    }

    case sequence([PreTokenizer])
    case split(SplitPattern, SplitBehavior, inverted: Bool)
    case byteLevel(addsPrefixSpace: Bool, split: RegexPattern?)
    case metaspace(replacement: [UInt8], PrependScheme, splits: Bool)
    case fixedLength(Int)

    func apply(_ list: inout PieceList) {
        switch self {
        case .sequence(let steps):
            for step in steps { step.apply(&list) }
        case .split(let pattern, let behavior, let inverted):
            Splitter(pattern, behavior, inverted: inverted).apply(&list)
        case .byteLevel(let addsPrefixSpace, let pattern):
            if addsPrefixSpace { Self.prepend([0x20], &list) { _ in true } }
            if let pattern {
                Splitter(.pattern(pattern), .isolated, inverted: false).apply(&list)
            }
            Self.mapBytes(&list)
        case .metaspace(let replacement, let scheme, let splits):
            Self.mapPieces(&list) { bytes, piece, output in
                for index in piece.start..<piece.end {
                    if bytes[index] == 0x20 {
                        output.append(contentsOf: replacement)
                    } else {
                        output.append(bytes[index])
                    }
                }
            }
            if scheme != .never {
                Self.prepend(replacement, &list) { scheme == .always || $0.isFirst }
            }
            if splits {
                Splitter(.text(replacement), .mergedWithNext, inverted: false).apply(&list)
            }
        case .fixedLength(let length):
            Self.cut(&list, length: length)
        }
    }

    /// Rewrites every piece into a new buffer.
    private static func mapPieces(
        _ list: inout PieceList, _ body: ([UInt8], PieceList.Piece, inout [UInt8]) -> Void
    ) {
        var output: [UInt8] = []
        output.reserveCapacity(list.bytes.count * 3 / 2 + 16)
        for index in list.pieces.indices {
            let start = output.count
            body(list.bytes, list.pieces[index], &output)
            list.pieces[index].start = start
            list.pieces[index].end = output.count
        }
        list.bytes = output
    }

    private static func mapBytes(_ list: inout PieceList) {
        mapPieces(&list) { bytes, piece, output in
            ByteAlphabet.encode(bytes, piece.start, piece.end, into: &output)
        }
    }

    /// Puts `prefix` before the pieces that are to have it and do not start with it.
    private static func prepend(
        _ prefix: [UInt8], _ list: inout PieceList, where condition: (PieceList.Piece) -> Bool
    ) {
        mapPieces(&list) { bytes, piece, output in
            let hasPrefix =
                piece.end - piece.start >= prefix.count && bytes.hasPrefix(prefix, at: piece.start)
            if !hasPrefix && condition(piece) { output.append(contentsOf: prefix) }
            output.append(contentsOf: bytes[piece.start..<piece.end])
        }
    }

    private static func cut(_ list: inout PieceList, length: Int) {
        var pieces: [PieceList.Piece] = []
        for piece in list.pieces {
            var start = piece.start
            while start < piece.end {
                var end = start
                for _ in 0..<length where end < piece.end {
                    end += UTF8Bytes.length(lead: list.bytes[end])
                }
                let isFirst = piece.isFirst && start == piece.start
                pieces.append(.init(start: start, end: end, isFirst: isFirst))
                start = end
            }
        }
        list.pieces = pieces
    }
}

/// Cuts pieces at the matches of a pattern.
struct Splitter {
    private struct Span {
        var start: Int
        var end: Int
        var isMatch: Bool
    }

    private let pattern: SplitPattern
    private let behavior: SplitBehavior
    private let inverted: Bool
    private let matcher: RegexPattern.Matcher?

    init(_ pattern: SplitPattern, _ behavior: SplitBehavior, inverted: Bool) {
        self.pattern = pattern
        self.behavior = behavior
        self.inverted = inverted
        if case .pattern(let regex) = pattern {
            matcher = RegexPattern.Matcher(regex)
        } else {
            matcher = nil
        }
    }

    func apply(_ list: inout PieceList) {
        var pieces: [PieceList.Piece] = []
        pieces.reserveCapacity(list.pieces.count + list.bytes.count / 4)
        var spans: [Span] = []
        for piece in list.pieces {
            spans.removeAll(keepingCapacity: true)
            findSpans(list.bytes, piece, into: &spans)
            let kept = merge(&spans)
            for span in spans where span.start < span.end && (kept || !span.isMatch) {
                let isFirst = piece.isFirst && span.start == piece.start
                pieces.append(.init(start: span.start, end: span.end, isFirst: isFirst))
            }
        }
        list.pieces = pieces
    }

    /// Covers the piece by matches and what lies between them.
    private func findSpans(_ bytes: [UInt8], _ piece: PieceList.Piece, into spans: inout [Span]) {
        var last = piece.start
        func add(_ low: Int, _ high: Int) {
            if last < low { spans.append(Span(start: last, end: low, isMatch: inverted)) }
            spans.append(Span(start: low, end: high, isMatch: !inverted))
            last = high
        }
        switch pattern {
        case .text(let text):
            var index = piece.start
            while !text.isEmpty, index + text.count <= piece.end {
                if bytes.hasPrefix(text, at: index) {
                    add(index, index + text.count)
                    index += text.count
                } else {
                    index += 1
                }
            }
        case .pattern:
            matcher?.forEachMatch(in: bytes, piece.start, piece.end, add)
        case .scalars(let scalars):
            var index = piece.start
            while index < piece.end {
                let (scalar, length) = UTF8Bytes.scalar(bytes, at: index)
                if scalars.contains(scalar) { add(index, index + length) }
                index += length
            }
        case .words:
            findWords(bytes, piece, add)
        }
        if last < piece.end {
            spans.append(Span(start: last, end: piece.end, isMatch: inverted))
        }
    }

    private func findWords(
        _ bytes: [UInt8], _ piece: PieceList.Piece, _ add: (Int, Int) -> Void
    ) {
        var runStart = piece.start
        var runKind = 0
        var index = piece.start
        while index < piece.end {
            let (scalar, length) = UTF8Bytes.scalar(bytes, at: index)
            let isSpace = ScalarClass.isWhitespace(scalar)
            let kind = isSpace ? 0 : ScalarClass.isWord(scalar) ? 1 : 2
            if kind != runKind {
                if runKind != 0 { add(runStart, index) }
                runStart = index
                runKind = kind
            }
            index += length
        }
        if runKind != 0 { add(runStart, piece.end) }
    }

    /// Joins spans as the behavior says; answers whether matches are kept as pieces.
    private func merge(_ spans: inout [Span]) -> Bool {
        switch behavior {
        case .removed: return false
        case .isolated: return true
        case .contiguous:
            joinForward(&spans) { $0 == $1 }
        case .mergedWithPrevious:
            joinForward(&spans) { isMatch, previousIsMatch in isMatch && !previousIsMatch }
        case .mergedWithNext:
            var joined: [Span] = []
            var previousIsMatch = false
            for span in spans.reversed() {
                if span.isMatch && !previousIsMatch, !joined.isEmpty {
                    joined[joined.count - 1].start = span.start
                } else {
                    joined.append(span)
                }
                previousIsMatch = span.isMatch
            }
            spans = joined.reversed()
        }
        return true
    }

    private func joinForward(_ spans: inout [Span], _ joins: (Bool, Bool) -> Bool) {
        var joined: [Span] = []
        var previousIsMatch = false
        for span in spans {
            if joins(span.isMatch, previousIsMatch), !joined.isEmpty {
                joined[joined.count - 1].end = span.end
            } else {
                joined.append(span)
            }
            previousIsMatch = span.isMatch
        }
        spans = joined
    }
}
