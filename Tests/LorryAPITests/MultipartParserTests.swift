import LorryAPI
import Testing

@Suite struct MultipartParserTests {
    static let body = Array(
        """
        preamble\r
        --AbC \r
        Content-Disposition: form-data; name="file"; filename="adapter_config.json"\r
        Content-Type: application/json\r
        \r
        {"a": "--AbC\r\n--AbX\r\n-"}\r
        --AbC\r
        content-disposition: form-data; name=empty\r
        \r
        \r
        --AbC\r
        Content-Disposition: form-data; name="w"; filename="a \\"b\\".txt"\r
        \r
        \r
        \r
        end\r
        \r
        --AbC--\r
        epilogue
        """.utf8)

    static let events: [MultipartParser.Event] = [
        .part(name: "file", fileName: "adapter_config.json"),
        .content(Array("{\"a\": \"--AbC\r\n--AbX\r\n-\"}".utf8)), .partEnd,
        .part(name: "empty", fileName: nil), .partEnd,
        .part(name: "w", fileName: "a \"b\".txt"),
        .content(Array("\r\n\r\nend\r\n".utf8)), .partEnd,
    ]

    private func parse(
        _ chunks: [ArraySlice<UInt8>], boundary: String = "AbC"
    ) throws -> [MultipartParser.Event] {
        var parser = try MultipartParser(
            contentType: "multipart/form-data; charset=utf-8; boundary=\"\(boundary)\"")
        var events: [MultipartParser.Event] = []
        for chunk in chunks {
            for event in try parser.push(chunk) {
                if case .content(let more) = event, case .content(let old)? = events.last {
                    events[events.count - 1] = .content(old + more)
                } else {
                    events.append(event)
                }
            }
        }
        try parser.finish()
        return events
    }

    @Test func everySplitGivesTheSame() throws {
        let body = Self.body
        for split in 0...body.count {
            #expect(try parse([body[..<split], body[split...]]) == Self.events, "at \(split)")
        }
        for size in 1...7 {
            let chunks = stride(from: 0, to: body.count, by: size).map {
                body[$0..<min($0 + size, body.count)]
            }
            #expect(try parse(chunks) == Self.events, "chunks of \(size)")
        }
    }

    @Test func everyTruncationIsNoticed() throws {
        let end = Self.body.count - "\r\nepilogue".utf8.count
        for count in 0..<end {
            #expect(throws: MultipartParser.Failure.self, "\(count) bytes") {
                try parse([Self.body[..<count]])
            }
        }
    }

    @Test func contentIsHandedOnAtOnce() throws {
        var parser = try MultipartParser(contentType: "multipart/form-data; boundary=b")
        _ = try parser.push("--b\r\nContent-Disposition: form-data; name=x\r\n\r\n".utf8)
        let events = try parser.push(Array(repeating: UInt8(7), count: 100_000))
        #expect(events == [.content(Array(repeating: 7, count: 100_000))])
    }

    @Test(arguments: [
        "--b\r\n\r\nx\r\n--b--", "--bx\r\n", "--b\r\nno colon here\r\n\r\n",
        "--b\r\nContent-Disposition: attachment; name=x\r\n\r\n",
        "--b\r\nContent-Disposition: form-data\r\n\r\n",
    ])
    func malformed(_ text: String) {
        #expect(throws: MultipartParser.Failure.self) {
            try parse([Array(text.utf8)[...]], boundary: "b")
        }
    }

    @Test func headersAreBounded() throws {
        var parser = try MultipartParser(contentType: "multipart/form-data; boundary=b")
        #expect(throws: MultipartParser.Failure.self) {
            _ = try parser.push("--b\r\n".utf8)
            for _ in 0..<100 { _ = try parser.push(Array(repeating: UInt8(65), count: 1000)) }
        }
        var preamble = try MultipartParser(contentType: "multipart/form-data; boundary=b")
        #expect(throws: MultipartParser.Failure.self) {
            for _ in 0..<100 { _ = try preamble.push(Array(repeating: UInt8(65), count: 1000)) }
        }
    }

    @Test(arguments: ["multipart/form-data", "multipart/form-data; boundary=", "a; boundary=\"\""])
    func boundaryIsNeeded(_ type: String) {
        #expect(throws: MultipartParser.Failure.self) { try MultipartParser(contentType: type) }
    }
}
