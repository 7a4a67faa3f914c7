/// Reads `multipart/form-data` (RFC 7578, RFC 2046 section 5.1) as its bytes arrive.
///
/// Pushed chunks may be split anywhere. Only one part's header and less than a delimiter's length
/// of its content are ever held.
package struct MultipartParser {
    package enum Event: Equatable {
        /// A part begins; `fileName` is its `filename` parameter where it has one.
        case part(name: String, fileName: String?)
        case content([UInt8])
        case partEnd
    }

    package struct Failure: Error, CustomStringConvertible, Equatable {
        package let description: String
    }

    private enum State {
        /// Before the first delimiter line.
        case preamble
        /// Just after a delimiter: `--` ends the body, a line break begins a part.
        case afterDelimiter
        case header
        case content
        case epilogue
    }

    static let maximumHeaderByteCount = 8 << 10

    private let delimiter: [UInt8]
    private var state = State.preamble
    /// Bytes that are not decided yet.
    private var pending: [UInt8]

    /// - Parameter contentType: the request's, with its `boundary`.
    package init(contentType: String) throws(Failure) {
        let boundary = HeaderParameters(contentType)["boundary"] ?? ""
        guard (1...70).contains(boundary.utf8.count) else {
            throw Failure(description: "the multipart content type has no valid boundary")
        }
        delimiter = Array("\r\n--\(boundary)".utf8)
        // The first delimiter may stand at the very start, without a line break before it.
        pending = [0x0D, 0x0A]
    }

    var isComplete: Bool { if case .epilogue = state { true } else { false } }

    /// Takes the next bytes of the body and returns what they make certain.
    package mutating func push(_ bytes: some Sequence<UInt8>) throws(Failure) -> [Event] {
        if isComplete { return [] }
        pending.append(contentsOf: bytes)
        var events: [Event] = []
        while try step(&events) {}
        return events
    }

    /// - Throws: where the body ended before its closing delimiter.
    package func finish() throws(Failure) {
        guard isComplete else {
            throw Failure(description: "the multipart body ends before its closing delimiter")
        }
    }

    /// Returns whether another step may find something.
    private mutating func step(_ events: inout [Event]) throws(Failure) -> Bool {
        switch state {
        case .preamble: return try skipPreamble()
        case .afterDelimiter: return try readDelimiterEnd()
        case .header: return try readHeader(&events)
        case .content: return readContent(&events)
        case .epilogue:
            pending = []
            return false
        }
    }

    private mutating func skipPreamble() throws(Failure) -> Bool {
        if let start = firstDelimiter() {
            pending.removeSubrange(..<start.upperBound)
            state = .afterDelimiter
            return true
        }
        guard pending.count <= Self.maximumHeaderByteCount else {
            throw Failure(description: "the multipart body does not begin with its delimiter")
        }
        return false
    }

    private mutating func readDelimiterEnd() throws(Failure) -> Bool {
        if pending.starts(with: "--".utf8) {
            state = .epilogue
            return true
        }
        // Spaces may follow the boundary before the line break.
        guard let end = pending.firstIndex(where: { $0 != 0x20 && $0 != 0x09 }) else {
            try boundHeader()
            return false
        }
        let rest = pending[end...]
        if rest.starts(with: [0x0D, 0x0A]) {
            // The line break stays: it may begin the empty line that ends an empty header.
            pending.removeSubrange(..<end)
            state = .header
            return true
        }
        guard rest.count < 2 && (rest.first == 0x0D || rest.first == UInt8(ascii: "-")) else {
            throw Failure(description: "a multipart delimiter is followed by other bytes")
        }
        return false
    }

    private mutating func readHeader(_ events: inout [Event]) throws(Failure) -> Bool {
        guard let end = pending.firstRange(of: [0x0D, 0x0A, 0x0D, 0x0A]) else {
            try boundHeader()
            return false
        }
        guard end.lowerBound <= Self.maximumHeaderByteCount else {
            throw Failure(description: "a multipart part's header is too long")
        }
        let text = String(decoding: pending[..<end.lowerBound], as: UTF8.self)
        pending.removeSubrange(..<end.upperBound)
        var disposition: HeaderParameters?
        for line in text.split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else {
                throw Failure(description: "a multipart part's header has a line without a colon")
            }
            guard line[..<colon].lowercased() == "content-disposition" else { continue }
            disposition = HeaderParameters(String(line[line.index(after: colon)...]))
        }
        guard let disposition, disposition.value == "form-data", let name = disposition["name"]
        else {
            throw Failure(description: "a multipart part has no content-disposition with a name")
        }
        events.append(.part(name: name, fileName: disposition["filename"]))
        state = .content
        return true
    }

    private mutating func readContent(_ events: inout [Event]) -> Bool {
        if let start = firstDelimiter() {
            if start.lowerBound > 0 { events.append(.content(Array(pending[..<start.lowerBound]))) }
            events.append(.partEnd)
            pending.removeSubrange(..<start.upperBound)
            state = .afterDelimiter
            return true
        }
        // What could be the delimiter's beginning stays.
        let held = longestDelimiterPrefix()
        let certain = pending.count - held
        if certain > 0 {
            events.append(.content(Array(pending[..<certain])))
            pending.removeSubrange(..<certain)
        }
        return false
    }

    private func firstDelimiter() -> Range<Int>? {
        var start = 0
        while let next = pending[start...].firstIndex(of: 0x0D) {
            let end = next + delimiter.count
            guard end <= pending.count else { return nil }
            if pending[next..<end].elementsEqual(delimiter) { return next..<end }
            start = next + 1
        }
        return nil
    }

    private func longestDelimiterPrefix() -> Int {
        for count in stride(from: min(delimiter.count - 1, pending.count), to: 0, by: -1)
        where pending.suffix(count).elementsEqual(delimiter.prefix(count)) {
            return count
        }
        return 0
    }

    private func boundHeader() throws(Failure) {
        guard pending.count <= Self.maximumHeaderByteCount else {
            throw Failure(description: "a multipart part's header is too long")
        }
    }
}

/// A header value and its parameters: `form-data; name="a"; filename="b"`.
package struct HeaderParameters {
    /// In lower case.
    package let value: String
    private var parameters: [String: String] = [:]

    package init(_ text: String) {
        var rest = text[...]
        value = rest.prefix { $0 != ";" }.trimmingSpaces.lowercased()
        rest = rest.drop { $0 != ";" }
        while rest.first == ";" {
            rest = rest.dropFirst().drop { $0 == " " || $0 == "\t" }
            let name = rest.prefix { $0 != "=" && $0 != ";" }
            rest = rest.dropFirst(name.count)
            guard rest.first == "=" else { continue }
            rest = rest.dropFirst()
            let content: String
            if rest.first == "\"" {
                (content, rest) = Self.quoted(rest.dropFirst())
            } else {
                let token = rest.prefix { $0 != ";" }
                content = token.trimmingSpaces
                rest = rest.dropFirst(token.count)
            }
            let key = name.trimmingSpaces.lowercased()
            if parameters[key] == nil { parameters[key] = content }
            rest = rest.drop { $0 != ";" }
        }
    }

    package subscript(name: String) -> String? { parameters[name] }

    /// Browsers escape a quotation mark in a file name as `%22`; others by a backslash.
    private static func quoted(_ text: Substring) -> (String, Substring) {
        var content = ""
        var rest = text
        while let character = rest.popFirst() {
            if character == "\"" { break }
            if character == "\\", let next = rest.first, next == "\"" || next == "\\" {
                content.append(next)
                rest = rest.dropFirst()
            } else {
                content.append(character)
            }
        }
        return (content, rest)
    }
}
