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

    /// Macros hold the variables around them, which hold the macros; so may namespaces and loops.
    @Test(arguments: [
        "{% macro m() %}{{ x }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ x }}",
        "{% for i in [1] %}{{ loop.changed(loop) }}{% set y = x %}{% endfor %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ x }}{% endcall %}",
    ])
    func keepsNothingOfARendering(_ source: String) throws {
        let template = try ChatTemplate(source: source)
        let text = String(repeating: "a", count: 1 << 20)
        let before = try residentByteCount()
        for _ in 0..<200 { _ = try template.render(["x": .string(text + "b")]) }
        let growth = try residentByteCount() - before
        // Each rendering has a text of 1 MiB of its own.
        #expect(growth < 100 << 20, "\(growth) bytes")
    }

    private func residentByteCount() throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
        let pages = try #require(status.split(separator: " ").dropFirst().first.flatMap { Int($0) })
        return pages * Int(getpagesize())
    }

    /// What is freed goes one call deeper for each value within a value.
    @Test(arguments: [
        "{% set ns.x = [ns.x] %}", "{% set ns.x = {'k': ns.x} %}", "{% set ns.x = cycler(ns.x) %}",
    ])
    func boundsNesting(_ step: String) throws {
        let loop = "{% set ns = namespace(x=1) %}{% for i in range(100000) %}\(step){% endfor %}"
        let template = try ChatTemplate(source: loop)
        let error = #expect(throws: TemplateError.self) { try template.render([:]) }
        #expect(error?.kind == .limit)
    }

    @Test(arguments: [
        "{% set ns.x = namespace(y=ns.x) %}",
        "{% set p = ns.x %}{% macro m() %}{{ p }}{% endmacro %}{% set ns.x = m %}",
    ])
    func freesLongChains(_ step: String) throws {
        let loop = "{% set ns = namespace(x=1) %}{% for i in range(50000) %}\(step){% endfor %}."
        #expect(try ChatTemplate(source: loop).render([:]) == ".")
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
