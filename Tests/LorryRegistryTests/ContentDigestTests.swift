import CraftedArchives
import Foundation
import LorryRegistry
import Testing

struct ContentDigestTests {
    private func version(_ files: [NamedFile]) async throws -> AdapterVersionID {
        let scratch = try ScratchFolder()
        let registry = try openRegistry(scratch.sub("state"))
        return try await registry.add("x", files).record.version
    }

    @Test func isTheDocumentedHash() throws {
        let files = [
            StoredFile(name: "b", byteCount: 3, sha256: "b0"),
            StoredFile(name: "adapter_config.json", byteCount: 99, sha256: "ff"),
            StoredFile(name: "README.md", byteCount: 5, sha256: "ee"),
        ]
        let version = try ContentDigest.version(
            of: files, configuration: Array(#"{ "r" : 8 }"#.utf8))
        // printf 'lorry-adapter 1\nadapter_config.json 7 %s\nb 3 b0\n' $(printf '{"r":8}' |
        //     sha256sum | cut -c1-64) | sha256sum
        #expect(
            version.digest == "572c95d8efe191c36f1ed717c01e08a1d98f3e520e2bc79333011ff49123dbed")
    }

    @Test func ignoresFormattingOfTheConfigurationAndTheReadme() async throws {
        let plain = try await version(adapterFiles())
        var reordered = adapterFiles()
        reordered[0].bytes = Array("{\n  \"r\": 8.0,\n  \"peft_type\": \"LO\\u0052A\"\n}\n".utf8)
        #expect(try await version(reordered) == plain)
        #expect(try await version(adapterFiles() + [("README.md", [1])]) == plain)
    }

    @Test func seesEveryOtherChange() async throws {
        var seen = [try await version(adapterFiles())]
        var changed = adapterFiles()
        changed[0].bytes = Array(#"{"peft_type": "LORA", "r": 9}"#.utf8)
        seen.append(try await version(changed))
        seen.append(try await version(adapterFiles("two")))
        for name in [
            "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
            "special_tokens_map.json", "added_tokens.json",
        ] {
            seen.append(try await version(adapterFiles() + [(name, [1])]))
            seen.append(try await version(adapterFiles() + [(name, [2])]))
        }
        #expect(Set(seen).count == seen.count)
    }
}

struct CanonicalJSONTests {
    @Test(arguments: [
        (
            #" {"b" : [1, 2.50, -0, 1e3, true, false, null] , "a":{}} "#,
            #"{"a":{},"b":[1,2.5,0,1000,true,false,null]}"#
        ),
        (#"{"é":"\u00e9\n\"\\\/","Z":0.1}"#, #"{"Z":0.1,"é":"é\u000a\"\\/"}"#),
        ("9007199254740993", "9007199254740993"), ("1.0", "1"), ("1", "1"), ("0", "0"),
        ("[[],{}]", "[[],{}]"), (#""""#, #""""#),
    ])
    func spellsEachValueOneWay(json: String, canonical: String) throws {
        let bytes = try CanonicalJSON.encode(Array(json.utf8), file: "f")
        #expect(String(decoding: bytes, as: UTF8.self) == canonical)
    }

    @Test(arguments: ["", "{", "nul", "{\"a\":}", String(repeating: "[", count: 100_000)])
    func refusesWhatIsNoJSON(text: String) {
        let error = #expect(throws: RegistryError.self) {
            try CanonicalJSON.encode(Array(text.utf8), file: "adapter_config.json")
        }
        #expect(error?.kind == .invalid)
        #expect(error?.message.hasPrefix("adapter_config.json") == true)
    }
}
