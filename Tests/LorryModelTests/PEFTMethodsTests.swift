import Foundation
import LorryModel
import Testing

@Suite struct PEFTMethodsTests {
    private static let page = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "docs/adapters.md")

    /// The types in the first cells of a section's table.
    private func types(under heading: String) throws -> Set<String> {
        let text = try String(contentsOf: Self.page, encoding: .utf8)
        let start = try #require(text.range(of: "\n\(heading)\n")).upperBound
        let section = text[start...]
        let end = section.range(of: "\n\n#")?.lowerBound ?? section.endIndex
        let cells = section[..<end].split(separator: "\n").filter { $0.hasPrefix("| `") }
            .compactMap { $0.split(separator: "|").first }
        return Set(
            cells.flatMap { $0.matches(of: /`([A-Z0-9_]+)`/).map { String($0.output.1) } })
    }

    @Test func eachTypeIsDocumentedOnce() throws {
        #expect(Set(PEFTMethods.servedTypes).count == PEFTMethods.servedTypes.count)
        let served = try types(under: "## Methods")
        #expect(served == Set(PEFTMethods.servedTypes))
        #expect(try types(under: "## What is refused").isSuperset(of: PEFTMethods.refusedTypes))
        #expect(served.isDisjoint(with: PEFTMethods.refusedTypes))
    }
}
