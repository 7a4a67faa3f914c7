import Foundation
import LorryAPI
import LorryModel
import Testing

@Suite struct JSONTests {
    @Test func writesWhatFoundationReads() throws {
        let value: JSON = [
            "null": nil, "yes": true, "no": false, "int": -42, "list": [1, "two", []],
            "empty": [:], "text": "quote \" slash \\ / line\n tab\t return\r bell\u{7} é 🦊",
            "big": .integer(Int.max), "number": .double(0.1),
        ]
        let parsed = try JSONSerialization.jsonObject(with: Data(value.bytes)) as? [String: Any]
        let members = try #require(parsed)
        #expect(members["null"] is NSNull)
        #expect(members["yes"] as? Bool == true)
        #expect(members["int"] as? Int == -42)
        #expect(members["big"] as? Int == Int.max)
        #expect(members["number"] as? Double == 0.1)
        #expect(
            members["text"] as? String
                == "quote \" slash \\ / line\n tab\t return\r bell\u{7} é 🦊")
        #expect((members["list"] as? [Any])?.count == 3)
    }

    @Test func everyCharacterSurvives() throws {
        for code in UInt32(0)...0x2FF {
            guard let scalar = UnicodeScalar(code) else { continue }
            let text = "a\(Character(scalar))b"
            let parsed = try JSONSerialization.jsonObject(
                with: Data(JSON.array([.string(text)]).bytes))
            #expect((parsed as? [String])?.first == text, "U+\(String(code, radix: 16))")
        }
    }

    @Test func floatsKeepTheirBits() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let value = Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &generator))
            guard value.isFinite else { continue }
            let text = JSON.float(value).text
            let read = try #require(
                try StrictJSON(parsing: text.utf8).numberValue, "\(text)")
            #expect(Float(read).bitPattern == value.bitPattern, "\(text)")
        }
    }

    @Test func whatHasNoNumberIsNull() {
        #expect(JSON.float(.nan).text == "null")
        #expect(JSON.double(-.infinity).text == "null")
    }

    @Test func objectsKeepTheirOrder() {
        let value: JSON = ["z": 1, "a": 2, "m": [:]]
        #expect(value.text == #"{"z":1,"a":2,"m":{}}"#)
    }
}
