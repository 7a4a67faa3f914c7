import LorryText
import Testing

@Suite struct StreamingDetokenizerTests {
    /// Random ids, most of them from real text so that scalars are often whole.
    private func randomIDs(
        _ tokenizer: Tokenizer, _ generator: inout SeededGenerator
    ) -> [Int32] {
        let texts = ["the lorry 日本 🙂🙂 é", " ", "héllo\n\n x", "🙂", "привет lo", "  a  b "]
        var ids: [Int32] = []
        for _ in 0..<Int.random(in: 0...8, using: &generator) {
            if Bool.random(using: &generator) {
                let text = texts.randomElement(using: &generator) ?? ""
                let more = tokenizer.encode(text, addSpecialTokens: Bool.random(using: &generator))
                ids += more.dropLast(Int.random(in: 0...2, using: &generator))
            } else {
                ids.append(Int32.random(in: 0..<Int32(tokenizer.idLimit), using: &generator))
            }
        }
        return ids
    }

    @Test(arguments: Fixture.families)
    func emitsWhatWholeDecodingGives(_ family: String) throws {
        let tokenizer = try Fixture.tokenizer(family)
        for seed in UInt64(0)..<400 {
            var generator = SeededGenerator(seed: seed)
            let ids = randomIDs(tokenizer, &generator)
            let skips = Bool.random(using: &generator)
            var stream = tokenizer.makeDetokenizer(stopStrings: [], skipSpecialTokens: skips)
            var text = ""
            for id in ids { text += stream.append(id).text }
            text += stream.finish().text
            let whole = tokenizer.decode(ids, skipSpecialTokens: skips)
            #expect(text.utf8.elementsEqual(whole.utf8), "seed \(seed), ids \(ids)")
        }
    }

    @Test(arguments: Fixture.families)
    func stopsExactlyAtTheFirstStopString(_ family: String) throws {
        let tokenizer = try Fixture.tokenizer(family)
        let stops = ["rry", "🙂", "\n\n", "o l", " a"]
        for seed in UInt64(0)..<400 {
            var generator = SeededGenerator(seed: seed)
            let ids = randomIDs(tokenizer, &generator)
            let includes = Bool.random(using: &generator)
            var stream = tokenizer.makeDetokenizer(
                stopStrings: stops, skipSpecialTokens: true, includesStopString: includes)
            var text = ""
            var found: String?
            for id in ids where found == nil {
                let output = stream.append(id)
                text += output.text
                found = output.stop
            }
            if found == nil {
                let output = stream.finish()
                text += output.text
                found = output.stop
            }
            let expected = Self.cut(
                Array(tokenizer.decode(ids, skipSpecialTokens: true).utf8), stops,
                includes: includes)
            #expect(Array(text.utf8) == expected.text, "seed \(seed), ids \(ids)")
            #expect(found == expected.stop, "seed \(seed), ids \(ids)")
        }
    }

    /// The text up to the stop string that ends first, of several the longest.
    private static func cut(
        _ text: [UInt8], _ stops: [String], includes: Bool
    ) -> (text: [UInt8], stop: String?) {
        for end in 0...text.count {
            let ending = stops.filter { text[..<end].reversed().starts(with: $0.utf8.reversed()) }
            guard let stop = ending.max(by: { $0.utf8.count < $1.utf8.count }) else { continue }
            return (Array(text[..<(includes ? end : end - stop.utf8.count)]), stop)
        }
        return (text, nil)
    }

    @Test func holdsBackPartsOfScalarsAndStops() throws {
        let tokenizer = try Fixture.tokenizer("gpt2")
        var stream = tokenizer.makeDetokenizer(stopStrings: ["END"], skipSpecialTokens: true)
        func id(_ token: String) throws -> Int32 { try #require(tokenizer.id(of: token)) }
        let smile = try ["ð", "Ł", "Ļ", "Ĥ"].map { try id($0) }
        #expect(smile.dropLast().map { stream.append($0).text } == ["", "", ""])
        #expect(stream.append(smile[3]).text == "🙂")
        #expect(stream.append(try id("E")).text == "")
        #expect(stream.append(try id("N")).text == "")
        #expect(stream.append(try id("E")).text == "EN")
        #expect(stream.append(try id("N")).text == "")
        let last = stream.append(try id("D"))
        #expect(last == .init(text: "", stop: "END"))
        #expect(stream.append(try id("x")) == .init(text: "", stop: "END"))
        #expect(stream.finish().text == "")
    }

    @Test func givesAReplacementForAnIncompleteEnd() throws {
        let tokenizer = try Fixture.tokenizer("gpt2")
        var stream = tokenizer.makeDetokenizer()
        _ = stream.append(try #require(tokenizer.id(of: "ð")))
        #expect(stream.finish().text == "\u{FFFD}")
    }

    @Test func keepsTheSpaceBehindAPrompt() throws {
        let tokenizer = try Fixture.tokenizer("llama2")
        let ids = tokenizer.encode("the lorry", addSpecialTokens: false)
        var alone = tokenizer.makeDetokenizer()
        #expect(alone.append(ids[0]).text.first != " ")
        var primed = tokenizer.makeDetokenizer()
        primed.prime(prompt: tokenizer.encode("Once", addSpecialTokens: true))
        #expect(primed.append(ids[0]).text.first == " ")
    }

    @Test func ignoresStopsBeforeTheMinimum() throws {
        let tokenizer = try Fixture.tokenizer("gpt2")
        let x = try #require(tokenizer.id(of: "x"))
        var stream = tokenizer.makeDetokenizer(.init(stopStrings: ["x"], minimumTokenCount: 2))
        #expect(stream.append(x) == .init(text: "x", stop: nil))
        #expect(stream.append(x) == .init(text: "x", stop: nil))
        #expect(stream.append(x) == .init(text: "", stop: "x"))
    }
}
