import CraftedArchives
import LorryRegistry
import Testing

struct TarReaderTests {
    private func read(_ archive: [UInt8], pieceByteCount: Int = 512) throws -> [String: [UInt8]] {
        var reader = TarReader()
        var files: [String: [UInt8]] = [:]
        var path = ""
        for start in stride(from: 0, to: archive.count, by: pieceByteCount) {
            try reader.push(archive[start..<min(archive.count, start + pieceByteCount)]) { event in
                switch event {
                case .entry(let entry):
                    path = entry.path
                    files[path] = []
                case .data(let data): files[path, default: []] += data
                case .endOfFile: break
                }
            }
        }
        try reader.finish()
        return files
    }

    @Test(arguments: [1, 3, 511, 512, 513, 100_000])
    func readsTheSameInPiecesOfAnySize(pieceByteCount: Int) throws {
        let long = [UInt8](repeating: 7, count: 1300)
        var tar = TarBuilder([
            ("a", [1]), ("b", long), ("empty", []), ("block", Array(long[..<512])),
        ])
        tar.add("folder/", type: "5")
        let files = try read(tar.archive, pieceByteCount: pieceByteCount)
        #expect(
            files == [
                "a": [1], "b": long, "empty": [], "block": Array(long[..<512]), "folder/": [],
            ])
    }

    @Test func takesPathsFromPrefixLongNameAndPax() throws {
        var tar = TarBuilder()
        tar.add("name", [1]) { header in
            for (index, byte) in "folder".utf8.enumerated() { header[345 + index] = byte }
        }
        tar.add("././@LongLink", Array("long/name\0".utf8), type: "L")
        tar.add("long", [2])
        tar.addPax([("mtime", "1.5"), ("path", "pax/name"), ("size", "3")])
        tar.add("pax", [3, 4, 5], claimedByteCount: 1)
        tar.addPax([("comment", "abc")], type: "g")
        tar.add("last", [6])
        #expect(
            try read(tar.archive)
                == ["folder/name": [1], "long/name": [2], "pax/name": [3, 4, 5], "last": [6]])
    }

    @Test func readsBaseTwoHundredFiftySixSizes() throws {
        var tar = TarBuilder()
        tar.add("a", [1, 2, 3]) { header in
            header.replaceSubrange(124..<136, with: [0x80] + [UInt8](repeating: 0, count: 10) + [3])
        }
        #expect(try read(tar.archive) == ["a": [1, 2, 3]])
    }

    @Test(arguments: [
        [UInt8](repeating: 0xFF, count: 12), [0x80] + [UInt8](repeating: 0xFF, count: 11),
        Array("00000000009\0".utf8), Array("-0000000001\0".utf8),
        [UInt8](repeating: 0, count: 12), Array("1 2        \0".utf8),
    ])
    func refusesSizesThatAreNone(field: [UInt8]) {
        var tar = TarBuilder()
        tar.add("a", [1]) { $0.replaceSubrange(124..<136, with: field) }
        #expect(throws: RegistryError.self) { try read(tar.archive) }
    }

    @Test func refusesEveryFlippedByteOfAHeader() throws {
        let good = TarBuilder([("name", [1])]).archive
        for index in 0..<512 {
            var bad = good
            bad[index] ^= 0x41
            #expect(throws: RegistryError.self, "byte \(index)") { try read(bad) }
        }
    }

    @Test func refusesEveryCutBeforeTheEndMarker() throws {
        let tar = TarBuilder([("a", [1]), ("b", [UInt8](repeating: 0, count: 600))])
        for count in 0..<tar.archive.count {
            #expect(throws: RegistryError.self, "cut at \(count)") {
                try read(Array(tar.archive[..<count]))
            }
        }
        #expect(try read(tar.archive + [UInt8](repeating: 0, count: 8192)).count == 2)
    }

    @Test(arguments: [
        [("path", "a"), ("path", "b")], [("linkpath", "x")], [("GNU.sparse.major", "1")],
        [("size", "-1")], [("size", "99999999999999999999")], [("path", "a\u{0}b")],
        [("path", "é")],
    ])
    func refusesExtendedHeaders(records: [(String, String)]) {
        var tar = TarBuilder()
        tar.addPax(records)
        tar.add("a", [1])
        #expect(throws: RegistryError.self) { try read(tar.archive) }
    }

    @Test(arguments: ["", "x", "5 a=b\n", "99 a=b\n", "6 a=b", "0 \n", "7 ab\n\n\n"])
    func refusesMalformedExtendedHeaders(text: String) {
        var tar = TarBuilder()
        tar.add("PaxHeader", Array(text.utf8), type: "x")
        tar.add("a", [1])
        #expect(throws: RegistryError.self) { try read(tar.archive) }
    }

    @Test func refusesDataAfterTheEndMarker() {
        let archive = TarBuilder([("a", [1])]).archive
        #expect(throws: RegistryError.self) { try read(archive + archive) }
    }

    @Test func refusesWhatIsNoArchive() throws {
        var reader = TarReader()
        #expect(throws: RegistryError(.invalid, "the body is not a tar archive")) {
            try reader.finish()
        }
        let text = [UInt8](repeating: UInt8(ascii: "{"), count: 600)
        let error = #expect(throws: RegistryError.self) { try reader.push(text[...]) { _ in } }
        #expect(error?.message.contains("not a tar archive") == true)
    }

    @Test func countsEntries() {
        var reader = TarReader(maxEntryCount: 2)
        let tar = TarBuilder([("a", []), ("b", []), ("c", [])])
        let error = #expect(throws: RegistryError.self) {
            try reader.push(tar.archive[...]) { _ in }
        }
        #expect(error?.kind == .tooLarge)
    }
}
