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

    @Test func findsMembersOfLargeObjects() throws {
        for count in [16, 17, 40] {
            let members = (0..<count).map { "\"k\($0)\":\($0)" }.joined(separator: ",")
            let object = try #require(try parse("{\(members)}").objectValue)
            #expect(object.members.map(\.key) == (0..<count).map { "k\($0)" })
            for index in 0..<count { #expect(object["k\(index)"] == .integer(index)) }
            #expect(object["k\(count)"] == nil)
            let error = #expect(throws: StrictJSON.ParseError.self) {
                try parse("{\(members),\"k3\":1}")
            }
            #expect(error?.reason == "duplicate key 'k3'")
        }
    }

    @Test(arguments: [#""\ud800""#, #""\udc00x""#, #""\ud800\u0041""#])
    func halvesOfPairsAreReplacedOrRefused(text: String) throws {
        #expect(try parse(text).stringValue?.contains("\u{FFFD}") == true)
        #expect(throws: StrictJSON.ParseError.self) {
            try StrictJSON(parsing: text.utf8, takesLoneSurrogates: false)
        }
    }

    /// Names in messages are cut and escaped.
    @Test func showsWhatIsSafe() {
        #expect(shown("a\u{7}b\u{202E}c\n") == #"a\u{07}b\u{202E}c\n"#)
        #expect(shown("größe…") == "größe…")
        #expect(shown(String(repeating: "x", count: 121)).count == 121)
        #expect(AdapterError(.invalid, String(repeating: "x", count: 5000)).message.count == 1001)
    }

    @Test func refusesInvalidUTF8() {
        #expect(throws: StrictJSON.ParseError.self) {
            try StrictJSON(parsing: [0x22, 0xFF, 0x22])
        }
    }
}
