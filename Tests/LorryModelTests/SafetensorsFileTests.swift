import Foundation
import LorryModel
import Testing

@Suite struct SafetensorsFileTests {
    private let folder: TestFolder

    init() throws { folder = try TestFolder() }

    private func reason(_ data: Data) throws -> String {
        try folder.write(data, "x.safetensors")
        let error = #expect(throws: SafetensorsError.self) {
            try SafetensorsFile(path: folder.path("x.safetensors"))
        }
        return error?.reason ?? ""
    }

    private func reason(header: String, elementByteCount: Int = 8) throws -> String {
        try reason(
            CraftedTensors.file(
                header: Data(header.utf8), elements: Data(count: elementByteCount)))
    }

    @Test func readsEveryWeightType() throws {
        var file = CraftedTensors()
        // A name of odd length puts the elements at an odd address.
        file.add("f32x", [3, 2])
        file.add("bf16", [2, 2], dtype: "BF16", value: -1.5)
        file.add("f16", [4], dtype: "F16", value: 0.25)
        file.add("none", [0, 7])
        for padding in 0..<4 {
            file.add(String(repeating: "p", count: padding + 1), [1], value: 2)
            try folder.write(file.data(), "x.safetensors")
            let read = try SafetensorsFile(path: folder.path("x.safetensors"))
            #expect(read.tensors.count == file.tensors.count)
            for (name, tensor) in file.tensors {
                let found = try #require(read.tensors[name])
                #expect(found.shape == tensor.shape)
                #expect(found.floats() == tensor.floats)
            }
        }
    }

    @Test func readsMetadata() throws {
        let header = Data(#"{"__metadata__":{"format":"pt"}}"#.utf8)
        try folder.write(CraftedTensors.file(header: header, elements: Data()), "x.safetensors")
        let read = try SafetensorsFile(path: folder.path("x.safetensors"))
        #expect(read.metadata == ["format": "pt"])
        #expect(read.tensors.isEmpty)
        #expect(try reason(header: #"{"__metadata__":{"a":1}}"#).contains("__metadata__.a"))
        #expect(try reason(header: #"{"__metadata__":[]}"#).contains("__metadata__"))
    }

    @Test func refusesBadHeaders() throws {
        #expect(try reason(Data()).contains("8-byte"))
        #expect(try reason(Data(count: 7)).contains("8-byte"))
        for length in [UInt64(3), 1 << 40, .max] {
            let file = CraftedTensors.file(
                header: Data("{}".utf8), elements: Data(), declaring: length)
            #expect(try reason(file).contains("exceeds the file"))
        }
        for header in ["", "{", "nonsense", "{}{}", "{} \0", "{,}", "{\"a"] {
            #expect(try reason(header: header).contains("header"))
        }
        // The reference library takes white space in front, but no tool writes it.
        for header in ["[]", " {}", "\u{FEFF}{}"] {
            #expect(try reason(header: header).contains("not an object"))
        }
        let nested = String(repeating: "[", count: 50_000)
        #expect(try reason(header: "{\"a\":{\"shape\":\(nested)").contains("'a'"))
    }

    @Test func aMissingFileIsNamed() {
        let error = #expect(throws: SafetensorsError.self) {
            try SafetensorsFile(path: folder.path("absent.safetensors"))
        }
        #expect(error?.description.contains("absent.safetensors") == true)
    }

    private static func tensor(
        dtype: String = "\"F32\"", shape: String = "[2]", offsets: String = "[0,8]"
    ) -> String {
        "{\"dtype\":\(dtype),\"shape\":\(shape),\"data_offsets\":\(offsets)}"
    }

    @Test(arguments: [
        (tensor(dtype: "\"F8\""), "unknown dtype 'F8'"),
        (tensor(dtype: "4"), "no dtype"),
        (tensor(shape: "2"), "no shape"),
        (tensor(shape: "[-2]"), "whole numbers"),
        (tensor(shape: "[1.5]"), "whole numbers"),
        (tensor(shape: "[\"2\"]"), "whole numbers"),
        (tensor(shape: "[4611686018427387904,4611686018427387904]"), "impossible shape"),
        (tensor(shape: "[9223372036854775807]"), "impossible shape"),
        (tensor(shape: "[3]"), "needs 12"),
        (tensor(shape: "[]"), "needs 4"),
        (tensor(offsets: "[0,16]"), "outside the file"),
        (tensor(shape: "[2.0]"), "whole numbers"),
        (tensor(shape: "[2e0]"), "whole numbers"),
        (tensor(shape: "[-0]"), "whole numbers"),
        (tensor(shape: "[02]"), "whole numbers"),
        (tensor(shape: "[18446744073709551618]"), "whole numbers"),
        (tensor(shape: "[\(String(repeating: "1,", count: 64))1]"), "more than 64"),
        (tensor(offsets: "[-8,0]"), "whole numbers"),
        (tensor(offsets: "[0,8,8]"), "more than 2"),
        ("{\"dtype\":\"F32\",\"dtype\":\"F32\"}", "dtype twice"),
        (tensor(offsets: "[8,0]"), "outside the file"),
        (tensor(offsets: "[0]"), "outside the file"),
        (tensor(offsets: "[0,9223372036854775807]"), "outside the file"),
        ("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"extra\":1}", "'extra'"),
        ("7", "no object"),
    ])
    func refusesBadTensors(_ tensor: String, _ part: String) throws {
        let found = try reason(header: "{\"w\":\(tensor)}")
        #expect(found.contains(part) && found.contains("'w'"), "\(found)")
    }

    @Test func everyByteBelongsToOneTensor() throws {
        func two(_ first: String, _ second: String) -> String {
            "{\"a\":\(Self.tensor(shape: "[1]", offsets: first)),"
                + "\"b\":\(Self.tensor(shape: "[1]", offsets: second))}"
        }
        #expect(try reason(header: two("[0,4]", "[2,6]")).contains("overlaps"))
        #expect(try reason(header: two("[0,4]", "[0,4]")).contains("overlaps"))
        #expect(
            try reason(header: two("[0,4]", "[8,12]"), elementByteCount: 12).contains("gap"))
        #expect(try reason(header: two("[4,8]", "[8,12]"), elementByteCount: 12).contains("gap"))
        #expect(
            try reason(header: two("[0,4]", "[4,8]"), elementByteCount: 9)
                .contains("1 bytes after the last"))
        #expect(try reason(header: "{}", elementByteCount: 1).contains("after the last"))
    }

    @Test func refusesBadNames() throws {
        for name in [
            "", "a\\n", "a\\u0000b", "\\u007f", "\\u202e", "a/b", "a\\\\b", "..", "x..y",
            String(repeating: "x", count: 513),
        ] {
            #expect(try reason(header: "{\"\(name)\":\(Self.tensor())}").contains("name"))
        }
        for half in ["\\ud800", "\\udc00", "\\ud800\\u0041"] {
            #expect(try reason(header: "{\"\(half)\":\(Self.tensor())}").contains("surrogate"))
        }
        let twice = "{\"a\":\(Self.tensor()),\"a\":\(Self.tensor())}"
        #expect(try reason(header: twice).contains("'a' is there twice"))
    }

    /// What a header may make of memory is bounded by its length and by the number of entries.
    @Test func boundsHeadersAndMetadata() throws {
        let spaces = [UInt8](repeating: 0x20, count: 1000)
        let header = Array("{}".utf8) + spaces
        let file = Array(CraftedTensors.file(header: Data(header), elements: Data()))
        for (limit, isTaken) in [(1001, false), (1002, true)] {
            let places = file.withUnsafeBytes {
                try? SafetensorsPlaces(of: $0, maximumHeaderByteCount: limit)
            }
            #expect((places != nil) == isTaken)
        }
        let entries = (0..<4097).map { "\"k\($0)\":\"\"" }
        for (count, isTaken) in [(4096, true), (4097, false)] {
            let text = "{\"__metadata__\":{\(entries[..<count].joined(separator: ","))}}"
            let file = Array(CraftedTensors.file(header: Data(text.utf8), elements: Data()))
            let places = file.withUnsafeBytes {
                try? SafetensorsPlaces(of: $0, maximumHeaderByteCount: 1 << 20)
            }
            #expect((places?.metadata.count == count) == isTaken)
        }
    }
}
