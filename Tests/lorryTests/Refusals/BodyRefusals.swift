import CraftedArchives

extension Refusal {
    private static let good = TarBuilder(CraftedUpload().files)
    private static let note = "README.md"

    static let archives: [Refusal] = [
        .archive("a symbolic link", naming: note, "link") {
            $0.add(note, type: "2", link: "/etc/passwd")
        },
        .archive("a hard link", naming: note, "link") {
            $0.add(note, type: "1", link: "adapter_config.json")
        },
        .archive("a character device", naming: note, "device") { $0.add(note, type: "3") },
        .archive("a block device", naming: note, "device") { $0.add(note, type: "4") },
        .archive("a pipe", naming: note, "pipe") { $0.add(note, type: "6") },
        .archive("a sparse file", 422, naming: note, "sparse") { $0.add(note, type: "S") },
        .archive("an unknown kind of entry", 422, naming: note) { $0.add(note, type: "Z") },
        .archive("an absolute path", naming: "/etc/README.md") { $0.add("/etc/README.md") },
        .archive("a path that leaves", naming: "../README.md") { $0.add("../README.md") },
        .archive("a path that leaves and returns", naming: "a/../README.md") {
            $0.add("a/../README.md")
        },
        .archive("a path with backslashes", naming: "..") { $0.add("..\\README.md") },
        .archive("a nested folder", naming: "a/b/README.md") { $0.add("a/b/README.md") },
        .archive("a second adapter", naming: "other/adapter_config.json") {
            $0.add("other/adapter_config.json", Array("{}".utf8))
        },
        .archive("a file twice", naming: "adapter_config.json", "twice") {
            $0.add("./adapter_config.json", Array("{}".utf8))
        },
        .archive("a name with a control character", naming: "control") { $0.add("READ\u{7}ME.md") },
        .archive("a name that hides bytes", naming: "control") { tar in
            tar.add(note) { $0[20] = UInt8(ascii: "x") }
        },
        .archive("a name of other scripts", naming: "READМE.md") { $0.add("READМE.md") },
        .archive("a folder with content", naming: "a/") {
            $0.add("a/", type: "5", claimedByteCount: 5)
        },
        .archive("an entry of a negative size", naming: note, "size") { tar in
            tar.add(note) {
                $0.replaceSubrange(124..<136, with: [UInt8](repeating: 0xFF, count: 12))
            }
        },
        .archive("an entry of a size beyond 64 bits", naming: note, "size") { tar in
            tar.add(note) {
                $0.replaceSubrange(124..<136, with: [0x80] + [UInt8](repeating: 0x7F, count: 11))
            }
        },
        .archive("a size that is no number", naming: note, "size") { tar in
            tar.add(note) { $0[124] = UInt8(ascii: "9") }
        },
        .archive("a file larger than its limit", 413, naming: "tokenizer.json", "limit") {
            $0.add("tokenizer.json", claimedByteCount: 1 << 33)
        },
        .archive("a path of an extended header that leaves", naming: "../x") {
            $0.addPax([("path", "../x")])
            $0.add(note)
        },
        .archive("an extended header for all files", naming: "path") {
            $0.addPax([("path", "x")], type: "g")
        },
        .archive("an extended header with a sparse file", 422, naming: "sparse") {
            $0.addPax([("GNU.sparse.major", "1")])
        },
        .archive("an extended header that lies", naming: "extended header") {
            $0.add("PaxHeader", Array("99 path=x\n".utf8), type: "x")
        },
        .archive("a long extended header", naming: "extended header", "1048576") {
            $0.add("PaxHeader", type: "x", claimedByteCount: 1 << 20)
        },
        .archive("a long name without end", naming: "extended header") {
            $0.add("././@LongLink", type: "L", claimedByteCount: 1 << 30)
        },
        .archive("too many entries", 413, naming: "64 entries") { tar in
            for _ in 0..<64 { tar.add("./", type: "5") }
        },
        Refusal("an empty body", naming: ["adapter_config.json"], .tar([])),
        Refusal(
            "a header whose checksum does not hold", naming: ["checksum of header 2"],
            .tar(
                {
                    var bytes = good.archive
                    bytes[good.offsets[1]] ^= 1
                    return bytes
                }())),
        Refusal(
            "an archive cut in a file", naming: ["cut short"], .tar(Array(good.bytes.dropLast(600)))
        ),
        Refusal("an archive without its end", naming: ["cut short"], .tar(good.bytes)),
        Refusal("bytes behind the end", naming: ["end marker"], .tar(good.archive + [1])),
        Refusal(
            "an archive behind another", naming: ["end marker"], .tar(good.archive + good.archive)),
        Refusal("a zip file", 422, naming: ["zip"], .tar(Array("PK\u{3}\u{4}rest".utf8))),
        Refusal("a text", naming: ["not a tar archive"], .tar(Array("hello".utf8))),
    ]

    /// Of gzip bodies, which are made here.
    static func compressed() throws -> [Refusal] {
        let body = try gzip(good.archive)
        var wrongSum = body
        wrongSum[body.count - 5] ^= 1
        var bomb = TarBuilder()
        bomb.add("tokenizer.json", [UInt8](repeating: 0, count: 40 << 20))
        return [
            Refusal("gzip cut short", naming: ["gzip"], .gzip(body.dropLast(9))),
            Refusal("a gzip checksum that does not hold", naming: ["gzip"], .gzip(wrongSum)),
            Refusal("bytes behind gzip", naming: ["gzip"], .gzip(body + [1, 2, 3])),
            Refusal("gzip of a text", naming: ["not a tar"], .gzip(try gzip(Array("hello".utf8)))),
            Refusal("gzip of gzip", naming: ["not a tar"], .gzip(try gzip(body))),
            Refusal("a gzip bomb", 413, naming: ["expands"], .gzip(try gzip(bomb.archive))),
            Refusal(
                "a bomb as the transfer's coding", 413, naming: ["limit"],
                .init(
                    type: "application/json",
                    bytes: try gzip([UInt8](repeating: 32, count: 20 << 20)),
                    headers: [("content-encoding", "gzip")])),
        ]
    }

    private static func part(_ name: String, _ bytes: [UInt8] = [1]) -> (String, [UInt8]) {
        (CraftedBody.head(of: name), bytes)
    }

    static let multiparts: [Refusal] = [
        Refusal(
            "parts without boundary", naming: ["boundary"],
            .init(type: "multipart/form-data", bytes: [1])),
        Refusal(
            "a long boundary", naming: ["boundary"],
            .init(
                type: "multipart/form-data; boundary=\(String(repeating: "b", count: 71))",
                bytes: [1])),
        Refusal("another boundary", naming: ["delimiter"], .multipart([part(note)], boundary: "c")),
        Refusal("parts without end", naming: ["delimiter"], .multipart([part(note)], end: "")),
        Refusal("no part", naming: ["adapter_config.json is missing"], .multipart([])),
        Refusal(
            "a part without name", naming: ["content-disposition"],
            .multipart([("Content-Type: text/plain", [1])])),
        Refusal(
            "a header line without colon", naming: ["colon"],
            .multipart([("\(CraftedBody.head(of: note))\r\nnonsense", [1])])),
        Refusal(
            "a flood of header lines", naming: ["header is too long"],
            .multipart([(String(repeating: "X: y\r\n", count: 2000), [1])])),
        Refusal(
            "bytes behind a delimiter", naming: ["delimiter"],
            .multipart([part(note)], end: "--bxx\r\n")),
        Refusal("a part twice", naming: [note, "twice"], .multipart([part(note), part(note)])),
        Refusal(
            "too many parts", 413, naming: ["64 files"],
            .multipart((0..<65).map { part("._\($0)") })),
        Refusal(
            "a part with a path", naming: ["../adapter_config.json"],
            .multipart([part("../adapter_config.json")])),
        Refusal("a part that is a pickle", 422, naming: ["x.pkl"], .multipart([part("x.pkl")])),
        Refusal(
            "parts within a part", naming: ["inner"],
            .multipart([
                (
                    "Content-Disposition: form-data; name=\"inner\"\r\n"
                        + "Content-Type: multipart/mixed; boundary=c",
                    Array("--c\r\n\r\nx\r\n--c--\r\n".utf8)
                )
            ])),
    ]

    /// The request around the body.
    static let requests: [Refusal] = [
        Refusal(
            "no content type", 415, naming: ["content type"], .init(type: nil, bytes: good.archive)),
        Refusal(
            "another content type", 415, naming: ["text/plain"],
            .init(type: "text/plain", bytes: good.archive)),
        Refusal("a path without allowed folders", naming: ["/etc"], .json(#"{"path": "/etc"}"#)),
        Refusal(
            "JSON with a key twice", naming: ["duplicate key 'path'"],
            .json(#"{"path":"a","path":"b"}"#)),
        Refusal(
            "JSON that nests deeply", naming: ["nested deeper"],
            .json(String(repeating: "[", count: 100_000))),
        Refusal("JSON that is a list", naming: ["object"], .json("[]")),
        Refusal("JSON without path", naming: ["path"], .json("{}")),
        Refusal("JSON that is cut short", naming: ["byte"], .json(#"{"path": "a"#)),
        Refusal(
            "an adapter's name with a line break", naming: ["name"], path: "/admin/adapters/a%0Ab",
            .tar(good)),
        Refusal("a name that leaves", naming: ["name"], path: "/admin/adapters/..%2Fa", .tar(good)),
        Refusal(
            "a name that begins with a dot", naming: ["name"], path: "/admin/adapters/.a",
            .tar(good)),
        Refusal(
            "an adapter's long name", naming: ["name"],
            path: "/admin/adapters/\(String(repeating: "a", count: 129))", .tar(good)),
        Refusal(
            "the base model's name", 409, naming: ["tiny"], path: "/admin/adapters/tiny", .tar(good)
        ),
        Refusal(
            "a length beyond the limit", 413, naming: ["limit"],
            .init(type: "application/x-tar", bytes: [], headers: [("content-length", "5368709120")])
        ),
    ]
}
