import LorryModel
import Testing

@Suite struct StrictJSONTests {
    private func parse(_ text: String) throws -> StrictJSON { try StrictJSON(parsing: text.utf8) }

    @Test func keepsOrderAndIntegers() throws {
        let value = try parse(
            #"{"b": 1, "a": [2.5, -3, 1e2, true, null, "x\n\u00e9\ud83d\ude00"]}"#)
        let object = try #require(value.objectValue)
        #expect(object.members.map(\.key) == ["b", "a"])
        #expect(object["b"] == .integer(1))
        #expect(
            object["a"]
                == .array([
                    .number(2.5), .integer(-3), .number(100), .bool(true), .null, .string("x\né😀"),
                ]))
    }

    @Test(arguments: [
        "", "{", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "01", "1.", "1e", "-", "tru", "\"a", "\"\\x\"",
        "\"\\u12g4\"", "1 2", "{\"a\":1,\"a\":2}", "\"\u{1}\"", "[1 2]", "{1:2}", "nul",
    ])
    func refusesWhatIsNoJSON(_ text: String) {
        #expect(throws: StrictJSON.ParseError.self) { try parse(text) }
    }

    @Test func boundsTheNesting() throws {
        let fits = String(repeating: "[", count: 60) + String(repeating: "]", count: 60)
        #expect(try parse(fits).arrayValue != nil)
        let tooDeep = String(repeating: "[", count: 100_000)
        #expect(throws: StrictJSON.ParseError.self) { try parse(tooDeep) }
    }

    @Test func refusesInvalidUTF8() {
        #expect(throws: StrictJSON.ParseError.self) {
            try StrictJSON(parsing: [0x22, 0xFF, 0x22])
        }
    }
}
