import Foundation
import LorryText
import Testing

@Suite struct ChatTemplateTests {
    @Test func rendersAsTheReferenceDoes() throws {
        let golden = try Fixture.json("templates.golden.json")
        let context = try #require(golden["context"])
        let cases = try #require(golden["cases"]?.array)
        #expect(cases.count > 100)
        for example in cases {
            let source = try #require(example["source"]?.string)
            let text = try? ChatTemplate(source: source).render(context)
            #expect(text == example["text"]?.string, "\(source)")
        }
    }

    @Test func tellsRaisedErrorsApart() throws {
        let template = try ChatTemplate(source: "a\n{{ raise_exception('No tools, please.') }}")
        let error = #expect(throws: TemplateError.self) { try template.render([:]) }
        #expect(error?.kind == .raised)
        #expect(error?.message == "No tools, please.")
        #expect(error?.line == 2)
    }

    @Test func tellsTheTime() throws {
        let template = try ChatTemplate(source: "{{ strftime_now('%d %b %Y %-d %H:%M %A %%') }}")
        let components = DateComponents(
            calendar: Calendar(identifier: .gregorian), timeZone: .current, year: 2024, month: 7,
            day: 6, hour: 9, minute: 5)
        let date = try #require(components.date)
        #expect(try template.render([:], now: date) == "06 Jul 2024 6 09:05 Saturday %")
    }

    @Test(arguments: [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 'x' * 9000000000000000000 }}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
        "{{ range(100001) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'a'.center(999999999) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ])
    func boundsWhatATemplateMayDo(_ source: String) throws {
        let template = try ChatTemplate(source: source)
        let error = #expect(throws: TemplateError.self) { try template.render([:]) }
        #expect(error?.kind == .limit)
    }

    @Test(arguments: ["(", "[", "{% if 1 %}", "{{ -", "not ", "{{ a.b", "{{ a|e"])
    func boundsHowDeepATemplateNests(_ unit: String) {
        let start = unit.hasPrefix("{") ? "" : "{{ "
        let source = start + String(repeating: unit, count: 50_000)
        #expect(throws: TokenizerError.self) { try ChatTemplate(source: source) }
        let chain = "{{ a" + String(repeating: ".b", count: 50_000) + " }}"
        #expect(throws: TokenizerError.self) { try ChatTemplate(source: chain) }
    }

    /// The deepest rendering must fit the stack of a secondary thread.
    @Test func needsLittleStack() async throws {
        let template = try ChatTemplate(
            source: "{% macro f(n) %}{% if n %}{{ [f(n)] }}{% endif %}{% endmacro %}{{ f(1) }}")
        let kind = await withCheckedContinuation { continuation in
            let thread = Thread {
                var kind: TemplateError.Kind?
                do throws(TemplateError) {
                    _ = try template.render([:])
                } catch {
                    kind = error.kind
                }
                continuation.resume(returning: kind)
            }
            thread.stackSize = 1 << 20
            thread.start()
        }
        #expect(kind == .limit)
    }
}
