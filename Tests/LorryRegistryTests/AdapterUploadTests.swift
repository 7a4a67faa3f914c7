import CraftedArchives
import Foundation
import LorryRegistry
import Testing

struct AdapterUploadTests {
    @Test func aTenantHasHalfOfThePlaces() async throws {
        let scratch = try ScratchFolder()
        let registry = try openRegistry(scratch.sub("state")) { $0.maxOpenUploads = 4 }
        let blue = AdapterKey(name: "a", tenant: "blue")
        var open = [try registry.makeUpload(for: blue), try registry.makeUpload(for: blue)]
        let refusal = await error { _ = try registry.makeUpload(for: blue) }
        #expect(refusal?.kind == .busy)
        #expect(refusal?.message.hasPrefix("2 uploads of the tenant") == true)
        open.append(try registry.makeUpload(for: AdapterKey(name: "a", tenant: "red")))
        open.append(try registry.makeUpload())
        #expect(await kind { _ = try registry.makeUpload() } == .busy)
        for upload in open { await upload.discard() }
        #expect(registry.openUploadCount == 0)
        await registry.close()
    }

    let scratch: ScratchFolder
    let state: URL
    let registry: AdapterRegistry

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
        registry = try openRegistry(state) { configuration in
            configuration.limits.maxConfigurationByteCount = 1000
            configuration.limits.maxWeightsByteCount = 100_000
            configuration.limits.maxBodyByteCount = 200_000
            configuration.limits.maxEntryCount = 12
            configuration.limits.freeExpansionByteCount = 50_000
        }
    }

    /// Nothing of a refused upload may stay.
    private func expectNothingLeft(_ comment: Comment = "") {
        #expect(stagedNames(state).isEmpty, comment)
        #expect(storedVersions(state).isEmpty, comment)
        #expect(registry.count == 0, comment)
        #expect(registry.openUploadCount == 0, comment)
    }

    @Test(arguments: ["", "./", "pirate/", "./pirate/"], [1, 700, 1 << 20])
    func takesFlatAndOneFolderArchives(prefix: String, pieceByteCount: Int) async throws {
        let tar = TarBuilder(adapterFiles(), prefix: prefix)
        let outcome = try await registry.addArchive(
            "pirate", tar.archive, pieceByteCount: pieceByteCount)
        #expect(outcome.created)
        #expect(outcome.record.method == "LORA")
        #expect(try registry.weights("pirate") == "weights one")
        #expect(stagedNames(state).isEmpty)
    }

    @Test(arguments: [1, 700, 1 << 20])
    func takesGzipByItsMagic(pieceByteCount: Int) async throws {
        let body = try gzip(TarBuilder(adapterFiles()).archive)
        try await registry.addArchive("pirate", body, pieceByteCount: pieceByteCount)
        #expect(try registry.weights("pirate") == "weights one")
    }

    @Test func takesGzipInSeveralMembers() async throws {
        let archive = TarBuilder(adapterFiles()).archive
        let body = try gzip(Array(archive[..<777])) + gzip(Array(archive[777...]))
        try await registry.addArchive("pirate", body, pieceByteCount: 13)
        #expect(try registry.weights("pirate") == "weights one")
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let kind: RegistryError.Kind
        /// What the message must name.
        let culprit: String
        let archive: [UInt8]

        init(
            _ what: String, _ kind: RegistryError.Kind = .invalid, naming culprit: String,
            _ build: (inout TarBuilder) -> Void
        ) {
            testDescription = what
            self.kind = kind
            self.culprit = culprit
            var tar = TarBuilder(adapterFiles())
            build(&tar)
            archive = tar.archive
        }
    }

    static let refusals: [Refusal] =
        [
            Refusal("symbolic link", naming: "tokenizer.json") {
                $0.add("tokenizer.json", type: "2", link: "/etc/passwd")
            },
            Refusal("hard link", naming: "tokenizer.json") {
                $0.add("tokenizer.json", type: "1", link: "adapter_config.json")
            },
            Refusal("character device", naming: "tokenizer.json") {
                $0.add("tokenizer.json", type: "3")
            },
            Refusal("block device", naming: "tokenizer.json") {
                $0.add("tokenizer.json", type: "4")
            },
            Refusal("pipe", naming: "tokenizer.json") { $0.add("tokenizer.json", type: "6") },
            Refusal("sparse file", .unsupported, naming: "tokenizer.json") {
                $0.add("tokenizer.json", type: "S")
            },
            Refusal("unknown type", .unsupported, naming: "tokenizer.json") {
                $0.add("tokenizer.json", type: "Z")
            },
            Refusal("absolute path", naming: "/etc/README.md") { $0.add("/etc/README.md") },
            Refusal("path that leaves", naming: "../README.md") { $0.add("../README.md") },
            Refusal("path that leaves and returns", naming: "a/../README.md") {
                $0.add("a/../README.md")
            },
            Refusal("folder that leaves", naming: "../x/") { $0.add("../x/", type: "5") },
            Refusal("backslashes", naming: "..\\README.md") { $0.add("..\\README.md") },
            Refusal("empty part", naming: "a//README.md") { $0.add("a//README.md") },
            Refusal("empty name", naming: "''") { $0.add("") },
            Refusal("control character", naming: "README\\n.md") { $0.add("README\n.md") },
            Refusal("hidden bytes after a NUL", naming: "README.md\\0x") { tar in
                tar.add("README.md") { $0[10] = UInt8(ascii: "x") }
            },
            Refusal("non-ASCII name", naming: "READMEé") { tar in
                tar.add("READMEé.md")
            },
            Refusal("nested folder", naming: "a/b/README.md") { $0.add("a/b/README.md") },
            Refusal("two folders", naming: "other/README.md") { $0.add("other/README.md") },
            Refusal("name twice", naming: "adapter_config.json") {
                $0.add("adapter_config.json", Array("{}".utf8))
            },
            Refusal("name twice, once with ./", naming: "adapter_config.json") {
                $0.add("./adapter_config.json", Array("{}".utf8))
            },
            Refusal("folder with content", naming: "a/") {
                $0.add("a/", type: "5", claimedByteCount: 5)
            },
            Refusal("unknown file", naming: "notes.xyz") { $0.add("notes.xyz") },
            Refusal("wrong case", naming: "Tokenizer.json") { $0.add("Tokenizer.json") },
            Refusal("configuration over its limit", .tooLarge, naming: "adapter_config.json") {
                tar in
                tar = TarBuilder()
                tar.add("adapter_config.json", [UInt8](repeating: 32, count: 1001))
            },
            Refusal("weights over their limit", .tooLarge, naming: "adapter_model.safetensors") {
                tar in
                tar = TarBuilder()
                tar.add("adapter_model.safetensors", claimedByteCount: 100_001)
            },
            Refusal("too many entries", .tooLarge, naming: "12 entries") { tar in
                for index in 0..<12 { tar.add("d\(index)/", type: "5") }
            },
            Refusal("body over its limit", .tooLarge, naming: "200000") { tar in
                for name in ["tokenizer.json", "README.md"] {
                    tar.add(name, [UInt8](repeating: 1, count: 120_000))
                }
            },
            Refusal("no configuration", naming: "adapter_config.json is missing") { tar in
                tar = TarBuilder([adapterFiles()[1]])
            },
            Refusal("no weights", naming: "adapter_model.safetensors is missing") { tar in
                tar = TarBuilder([adapterFiles()[0]])
            },
            Refusal("configuration that is no JSON", naming: "adapter_config.json: invalid JSON") {
                tar in
                tar = TarBuilder([("adapter_config.json", [123]), adapterFiles()[1]])
            },
            Refusal("weights that the model refuses", naming: "no such weights") { tar in
                tar = TarBuilder([adapterFiles()[0], ("adapter_model.safetensors", [1])])
            },
            Refusal("nothing", naming: "adapter_config.json is missing") { $0 = TarBuilder() },
        ]
        + [
            "adapter_model.bin", "a.pt", "a.pth", "a.pkl", "a.PICKLE", "a.ckpt",
            "training_args.bin",
        ].map { name in
            Refusal("pickle \(name)", .unsupported, naming: "safetensors") { $0.add(name) }
        }
        + [
            "model.safetensors", "adapter.gguf", "a.h5", "a.npz", "model.safetensors.index.json",
        ].map { name in
            Refusal("other weights \(name)", .unsupported, naming: name) { $0.add(name) }
        }

    @Test(arguments: refusals)
    func refuses(refusal: Refusal) async throws {
        let refused = await error { try await registry.addArchive("x", refusal.archive) }
        #expect(refused?.kind == refusal.kind)
        #expect(refused?.message.contains(refusal.culprit) == true, "\(refused?.message ?? "none")")
        expectNothingLeft()
    }

    @Test func refusesEveryCutArchive() async throws {
        let tar = TarBuilder(adapterFiles())
        for count in stride(from: 0, to: tar.archive.count, by: 512) {
            let cut = Array(tar.archive[..<count])
            #expect(await kind { try await registry.addArchive("x", cut) } == .invalid, "\(count)")
        }
        expectNothingLeft()
    }

    @Test func refusesEveryCutAndEveryDamagedGzip() async throws {
        let body = try gzip(TarBuilder(adapterFiles()).archive)
        for count in 0..<body.count {
            let refused = await kind { try await registry.addArchive("x", Array(body[..<count])) }
            #expect(refused == .invalid, "cut at \(count)")
        }
        // The trailer is the CRC and the length.
        for index in body.count - 8..<body.count {
            var damaged = body
            damaged[index] ^= 1
            #expect(await kind { try await registry.addArchive("x", damaged) } == .invalid)
        }
        #expect(await kind { try await registry.addArchive("x", body + [1, 2, 3]) } == .invalid)
        expectNothingLeft()
    }

    @Test func stopsAGzipBomb() async throws {
        var tar = TarBuilder()
        tar.add("tokenizer.json", [UInt8](repeating: 0, count: 8 << 20))
        let body = try gzip(tar.archive)
        #expect(body.count < 50_000)
        let refused = await error { try await registry.addArchive("x", body) }
        #expect(refused?.kind == .tooLarge)
        #expect(refused?.message.contains("expands") == true)
        expectNothingLeft()
    }

    @Test(arguments: [
        (Array("PK\u{3}\u{4}xxxx".utf8), "zip"), (Array("BZh91AY".utf8), "bzip2"),
        ([0x28, 0xB5, 0x2F, 0xFD, 0, 0], "zstd"), ([0xFD] + Array("7zXZ\u{0}".utf8), "xz"),
    ])
    func namesOtherFormats(head: [UInt8], name: String) async {
        let refused = await error { try await registry.addArchive("x", head, pieceByteCount: 1) }
        #expect(refused?.kind == .unsupported)
        #expect(refused?.message.contains(name) == true)
        expectNothingLeft()
    }

    @Test func leavesOutWhatTrainersAddAndSaysSo() async throws {
        let extra: [NamedFile] = [
            ("._adapter_config.json", [1]), (".gitattributes", [2]), ("LICENSE", [3]),
            ("trainer_state.json", [4]),
        ]
        let tar = TarBuilder(extra + adapterFiles())
        let outcome = try await registry.addArchive("x", tar.archive)
        #expect(outcome.ignoredFiles == extra.map(\.name))
        let lease = try registry.acquire("x")
        #expect(tree(lease.directory) == adapterFiles().map(\.name))
    }

    @Test func refusesMixedAndMisorderedUse() async throws {
        let mixed = try registry.makeUpload()
        try await mixed.beginFile("README.md")
        #expect(await kind { try await mixed.writeArchive([1]) } == .invalid)
        #expect(await kind { try await mixed.endFile() } == .invalid)
        await mixed.discard()
        let unended = try registry.makeUpload()
        try await unended.beginFile("README.md")
        #expect(await kind { try await unended.beginFile("LICENSE") } == .invalid)
        await unended.discard()
        let unbegun = try registry.makeUpload()
        #expect(await kind { try await unbegun.writeFile([1]) } == .invalid)
        await unbegun.discard()
        await unbegun.discard()
        expectNothingLeft()
    }

    @Test func boundsNamedFilesTogether() async throws {
        let files: [NamedFile] = [
            ("README.md", [UInt8](repeating: 1, count: 150_000)),
            ("tokenizer.json", [UInt8](repeating: 1, count: 60_000)),
        ]
        #expect(await kind { try await registry.add("x", files) } == .tooLarge)
        expectNothingLeft()
    }

    @Test func letsGoOfADroppedUpload() async throws {
        var upload: AdapterUpload? = try registry.makeUpload()
        try await upload?.beginFile("README.md")
        try await upload?.writeFile([1])
        #expect(!stagedNames(state).isEmpty)
        upload = nil
        while !stagedNames(state).isEmpty { try await Task.sleep(for: .milliseconds(1)) }
        while registry.openUploadCount > 0 { try await Task.sleep(for: .milliseconds(1)) }
        expectNothingLeft()
    }

    @Test func boundsOpenUploads() async throws {
        let registry = try openRegistry(scratch.sub("other")) { $0.maxOpenUploads = 2 }
        let first = try registry.makeUpload()
        let second = try registry.makeUpload()
        #expect(await kind { _ = try registry.makeUpload() } == .busy)
        await first.discard()
        await second.discard()
        try await registry.add("x")
        #expect(registry.openUploadCount == 0)
    }
}
