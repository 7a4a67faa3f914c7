/// Turns generated ids into text piece by piece.
///
/// Whatever is emitted is final: whole scalars only, never a part of a stop string, and all of it
/// together equals `Tokenizer.decode` of the ids, cut at the first stop string. Text that could
/// still change or become a stop string is held back until it cannot.
public struct StreamingDetokenizer: Sendable {
    public struct Options: Sendable {
        /// Text at which generation ends. Empty ones are ignored.
        public var stopStrings: [String] = []
        public var skipSpecialTokens = true
        /// Whether the stop string itself is a part of the text.
        public var includesStopString = false
        /// Stop strings that end within the first so many tokens do not count.
        public var minimumTokenCount = 0

        public init(
            stopStrings: [String] = [], skipSpecialTokens: Bool = true,
            includesStopString: Bool = false, minimumTokenCount: Int = 0
        ) {
            self.stopStrings = stopStrings
            self.skipSpecialTokens = skipSpecialTokens
            self.includesStopString = includesStopString
            self.minimumTokenCount = minimumTokenCount
        }
    }

    public struct Output: Sendable, Equatable {
        /// Text that is safe to send; often empty.
        public var text: String
        /// The stop string that ended the text; nothing follows it.
        public var stop: String?

        public init(text: String, stop: String? = nil) {
            self.text = text
            self.stop = stop
        }
    }

    private let tokenizer: Tokenizer
    private let options: Options
    private var stream: DecoderStream
    private var matcher: StopMatcher
    /// Decoded bytes that may be the beginning of a stop string.
    private var held: [UInt8] = []
    private var tokenCount = 0
    /// The stop string that ended the text.
    public private(set) var stop: String?

    init(_ tokenizer: Tokenizer, options: Options) {
        self.tokenizer = tokenizer
        self.options = options
        stream = DecoderStream(tokenizer.decoder)
        matcher = StopMatcher(options.stopStrings)
    }

    /// Makes the text continue that of a prompt: decoding then knows that its first piece is not
    /// the first of all, so that a leading space of it stays. The prompt itself is not emitted, but
    /// bytes of a scalar that it left incomplete are.
    /// - Parameter prompt: the prompt's ids; the last few suffice
    public mutating func prime(prompt: some BidirectionalCollection<Int32>) {
        for id in prompt.suffix(16) {
            if let token = tokenizer.tokenBytes(id, skipSpecialTokens: options.skipSpecialTokens) {
                stream.append(token)
            }
        }
        _ = stream.takeOutput()
    }

    /// Adds a generated id.
    /// - Complexity: amortized O(1) in the number of ids before.
    public mutating func append(_ id: Int32) -> Output {
        tokenCount += 1
        if stop != nil { return Output(text: "", stop: stop) }
        if let token = tokenizer.tokenBytes(id, skipSpecialTokens: options.skipSpecialTokens) {
            stream.append(token)
        }
        return emit(isLast: false)
    }

    /// Ends the text: gives what was held back, incomplete scalars as U+FFFD. A stop string can
    /// still be found in it.
    public mutating func finish() -> Output {
        if stop != nil { return Output(text: "", stop: stop) }
        stream.finish()
        return emit(isLast: true)
    }

    private mutating func emit(isLast: Bool) -> Output {
        let bytes = stream.takeOutput()
        if matcher.isEmpty {
            return Output(text: String(decoding: bytes, as: UTF8.self), stop: nil)
        }
        let first = held.count
        held.append(contentsOf: bytes)
        if tokenCount <= options.minimumTokenCount, options.minimumTokenCount > 0 {
            matcher.reset()
            return Output(text: take(held.count), stop: nil)
        }
        for index in first..<held.count {
            guard let match = matcher.advance(held[index]) else { continue }
            stop = options.stopStrings[match.stop]
            let end = index + 1
            let text = take(options.includesStopString ? end : end - match.length)
            held = []
            return Output(text: text, stop: stop)
        }
        return Output(
            text: take(isLast ? held.count : held.count - matcher.heldByteCount), stop: nil)
    }

    private mutating func take(_ count: Int) -> String {
        let text = String(decoding: held[..<count], as: UTF8.self)
        held.removeFirst(count)
        return text
    }
}

extension Tokenizer {
    public func makeDetokenizer(
        _ options: StreamingDetokenizer.Options = .init()
    ) -> StreamingDetokenizer {
        StreamingDetokenizer(self, options: options)
    }

    public func makeDetokenizer(
        stopStrings: [String], skipSpecialTokens: Bool, includesStopString: Bool = false
    ) -> StreamingDetokenizer {
        StreamingDetokenizer(
            self,
            options: .init(
                stopStrings: stopStrings, skipSpecialTokens: skipSpecialTokens,
                includesStopString: includesStopString))
    }
}
