import LorryText
import Testing

@Suite struct JSONScannerTests {
    @Test func keepsKeyOrderAndNumberKinds() throws {
        let value = try JSONValue(parsing: #"{"b": 1, "a": [1.0, -2, true, null, "xé😀"]}"#.utf8)
        #expect(value.members?.map(\.key) == ["b", "a"])
        #expect(value["b"] == .integer(1))
        #expect(
            value["a"]?.array == [.double(1), .integer(-2), .bool(true), .null, .string("xé😀")])
    }

    @Test(arguments: [
        "", "{", "[1,]", #"{"a" 1}"#, "01", "1.", "nul", #""\x""#, "\"\u{1}\"", #""\u12"#, "1 2",
        "-",
    ])
    func refusesWhatIsNotJSON(_ text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: text.utf8) }
    }

    @Test func boundsNesting() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: JSONError.self) { try JSONValue(parsing: deep.utf8) }
    }
}
