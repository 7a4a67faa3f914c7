extension Refusal {
    private static let sound = #"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#

    private static func entry(
        dtype: String = "F32", shape: String = "[2]", offsets: String = "[0,8]"
    ) -> String {
        #"{"dtype":"\#(dtype)","shape":\#(shape),"data_offsets":\#(offsets)}"#
    }

    /// The file, its header as a whole, and its metadata.
    static let safetensorsFiles: [Refusal] = [
        .upload("empty weights", naming: CraftedUpload.weightsName, "8-byte") { $0.weights = [] },
        .upload("weights of seven bytes", naming: "8-byte") {
            $0.weights = [UInt8](repeating: 0, count: 7)
        },
        .upload("header of no bytes", naming: "begin with '{'") { $0.headerLength = 0 },
        .upload("header of a negative length", naming: "header length") {
            $0.headerLength = 1 << 63
        },
        .upload("header beyond the file", naming: "header length", "exceeds the file") {
            $0.headerLength = 1 << 20
        },
        .upload("header over its limit", naming: "header length", "8388608") {
            $0.header = Array("{".utf8) + [UInt8](repeating: 0x20, count: 8 << 20) + [0x7D]
        },
        .upload("a zip file for weights", naming: CraftedUpload.weightsName, "header length") {
            $0.weights = Array("PK\u{3}\u{4}".utf8) + [UInt8](repeating: 7, count: 100)
        },
        .upload("a pickle for weights", naming: CraftedUpload.weightsName, "header length") {
            $0.weights = [0x80, 2] + Array("ctorch._utils\n_rebuild_tensor_v2".utf8)
        },
        .upload("weights cut short", naming: "lies outside the file") { $0.dataSurplus = -4 },
        .upload("bytes behind the last tensor", naming: "4 bytes after the last tensor") {
            $0.dataSurplus = 4
        },
        .header("header that is no JSON", naming: "header", header: "{nonsense}"),
        .header("header that is a list", naming: "begin with '{'", header: "[1]"),
        .header("header behind a space", naming: "begin with '{'", header: " {}"),
        .header("header behind a mark", naming: "begin with '{'", header: "\u{FEFF}{}"),
        .header("bytes behind the header's object", naming: "after the value", header: "{} {}"),
        .header("a NUL behind the header's object", naming: "after the value", header: "{}\0"),
        .header(
            "header that nests deeply", naming: "data_offsets",
            header: #"{"a":{"data_offsets":"# + String(repeating: "[", count: 5000)),
        .header(
            "a tensor twice", naming: "twice", "'a'", header: #"{"a":\#(sound),"a":\#(sound)}"#),
        .header(
            "metadata twice", naming: "__metadata__",
            header: #"{"__metadata__":{},"__metadata__":{}}"#),
        .header("metadata as a list", naming: "__metadata__", header: #"{"__metadata__":[]}"#),
        .header(
            "metadata with a number", naming: "__metadata__.note",
            header: #"{"__metadata__":{"note":1}}"#),
        .header(
            "a metadata key twice", naming: "__metadata__.note",
            header: #"{"__metadata__":{"note":"a","note":"b"}}"#),
        .header(
            "metadata without end", naming: "4096",
            header: #"{"__metadata__":{"#
                + (0..<5000).map { #""k\#($0)":"""# }.joined(separator: ",") + "}}"),
    ]

    /// What the header says of one tensor.
    static let safetensorsEntries: [Refusal] = [
        .entry("a tensor that is a number", naming: "no object", entry: "7"),
        .entry("no dtype", naming: "dtype", entry: #"{"shape":[2],"data_offsets":[0,8]}"#),
        .entry("no shape", naming: "shape", entry: #"{"dtype":"F32","data_offsets":[0,8]}"#),
        .entry("no offsets", naming: "outside", entry: #"{"dtype":"F32","shape":[2]}"#),
        .entry("a field twice", naming: "dtype", entry: #"{"dtype":"F32","dtype":"F16"}"#),
        .entry("an unknown field", naming: "'extra'", entry: #"{"extra":{"a":[]}}"#),
        .entry("an unknown dtype", naming: "F8_E4M3", entry: entry(dtype: "F8_E4M3")),
        .entry("a dtype that is a number", naming: "dtype", entry: #"{"dtype":4}"#),
        .entry("sizes with a fraction", naming: "shape", entry: entry(shape: "[2.0]")),
        .entry("sizes with an exponent", naming: "shape", entry: entry(shape: "[2e0]")),
        .entry("a negative size", naming: "shape", entry: entry(shape: "[-2]")),
        .entry("a size of -0", naming: "shape", entry: entry(shape: "[-0]")),
        .entry(
            "a size beyond 64 bits", naming: "shape", entry: entry(shape: "[18446744073709551618]")),
        .entry("a size of 1e999", naming: "shape", entry: entry(shape: "[1e999]")),
        .entry("a size in quotes", naming: "shape", entry: entry(shape: #"["2"]"#)),
        .entry(
            "sizes whose product overflows", naming: "impossible shape",
            entry: entry(shape: "[4294967296,4294967296]")),
        .entry(
            "65 dimensions", naming: "64",
            entry: entry(shape: "[\([String](repeating: "1", count: 65).joined(separator: ","))]")),
        .entry("another number of bytes", naming: "needs 12", entry: entry(shape: "[3]")),
        .entry("offsets the wrong way round", naming: "outside", entry: entry(offsets: "[8,0]")),
        .entry("offsets beyond the file", naming: "outside", entry: entry(offsets: "[8,16]")),
        .entry("negative offsets", naming: "data_offsets", entry: entry(offsets: "[-8,0]")),
        .entry("one offset", naming: "outside", entry: entry(offsets: "[0]")),
        .entry("three offsets", naming: "data_offsets", entry: entry(offsets: "[0,8,8]")),
        .header(
            "tensors that overlap", naming: "'b'", "overlaps",
            header: #"{"a":\#(sound),"b":\#(entry(shape: "[1]", offsets: "[4,8]"))}"#),
        .header(
            "a gap between tensors", naming: "'b'", "gap",
            header: #"{"b":\#(entry(shape: "[1]", offsets: "[4,8]"))}"#),
        .name("no name", naming: "name is empty", name: ""),
        .name("a name with NUL", naming: #"a\0b"#, "do not print", name: #"a\u0000b"#),
        .name("a name with a line break", naming: "do not print", name: #"a\nb"#),
        .name("a name that turns text around", naming: "do not print", name: "a\u{202E}b"),
        .name("a name with a slash", naming: "'a/b'", "path", name: "a/b"),
        .name("a name with a backslash", naming: "path", name: #"a\\b"#),
        .name("a name that leaves its folder", naming: "'..'", "path", name: ".."),
        .name("a long name", naming: "512", name: String(repeating: "n", count: 513)),
        .name("a name of half a pair", naming: "surrogate", name: #"\ud800"#),
        .upload("a name that is no UTF-8", naming: "UTF-8") {
            $0.tensors = [:]
            $0.header = Array("{\"a".utf8) + [0xFF] + Array("\":\(sound)}".utf8)
            $0.dataSurplus = 8
        },
    ]

    private static func number(_ rule: String, _ dtype: String, _ bytes: [UInt8]) -> Refusal {
        .upload(rule, naming: CraftedUpload.first, "NaN or an infinity") {
            let size = dtype == "F32" ? 4 : 2
            $0.firstTensor.dtype = dtype
            $0.firstTensor.bytes = Array($0.firstTensor.bytes.prefix(256 * size))
            $0.firstTensor.bytes.replaceSubrange(100 * size..<100 * size + size, with: bytes)
        }
    }

    /// What tensors hold, and whether they are the adapter's.
    static let tensors: [Refusal] = [
        number("NaN in F32", "F32", [0, 0, 0xC0, 0x7F]),
        number("infinity in F32", "F32", [0, 0, 0x80, 0x7F]),
        number("NaN in BF16", "BF16", [0xC0, 0x7F]),
        number("infinity in BF16", "BF16", [0x80, 0xFF]),
        number("NaN in F16", "F16", [0, 0x7E]),
        number("infinity in F16", "F16", [0, 0xFC]),
        .upload("weights in F64", naming: CraftedUpload.first, "F64") {
            $0.firstTensor.dtype = "F64"
            $0.firstTensor.bytes += $0.firstTensor.bytes
        },
        .upload("weights in I32", naming: CraftedUpload.first, "I32") {
            $0.firstTensor.dtype = "I32"
        },
        .upload("weights in BOOL", naming: CraftedUpload.first, "BOOL") {
            $0.firstTensor.dtype = "BOOL"
            $0.firstTensor.bytes.removeLast(256 * 3)
        },
        .upload("a dimension of 0", naming: CraftedUpload.first) {
            $0.firstTensor = .init([0, 64])
        },
        .upload("another number of dimensions", naming: CraftedUpload.first, "[4, 64, 1]") {
            $0.firstTensor = .init([4, 64, 1])
        },
        .upload("another base model's width", naming: CraftedUpload.first, "[4, 128]") {
            $0.firstTensor = .init([4, 128])
        },
        .upload("another rank than the configuration's", naming: CraftedUpload.first, "rank 2") {
            $0.firstTensor = .init([2, 64])
            $0.tensors["\(CraftedUpload.prefix)0.self_attn.q_proj.lora_B.weight"] = .init([64, 2])
        },
        .upload("A and B of different ranks", naming: "0.self_attn.q_proj.lora_B") {
            $0.tensors["\(CraftedUpload.prefix)0.self_attn.q_proj.lora_B.weight"] = .init([64, 8])
        },
        .upload("A without B", naming: "layers.0.self_attn.q_proj", "lora_B") {
            $0.tensors["\(CraftedUpload.prefix)0.self_attn.q_proj.lora_B.weight"] = nil
        },
        .upload("a target without tensors", naming: "layers.1.self_attn.v_proj") { upload in
            for factor in ["A", "B"] {
                upload.tensors["\(CraftedUpload.prefix)1.self_attn.v_proj.lora_\(factor).weight"] =
                    nil
            }
        },
        .upload("a tensor of no module", naming: "'stray.weight'", "matches no module") {
            $0.tensors["stray.weight"] = .init([2])
        },
        .upload("a tensor of a layer that is not there", naming: "layers.9.") {
            $0.tensors["\(CraftedUpload.prefix)9.self_attn.q_proj.lora_A.weight"] = .init([4, 64])
        },
        .upload("tensors of a module that is no target", naming: "0.mlp.up_proj") {
            let path = "\(CraftedUpload.prefix)0.mlp.up_proj"
            $0.tensors["\(path).lora_A.weight"] = .init([4, 64])
            $0.tensors["\(path).lora_B.weight"] = .init([160, 4])
        },
        .upload("no tensors", naming: CraftedUpload.weightsName, "lora_A") { $0.tensors = [:] },
        .upload("the file is named as it is", naming: "adapter.safetensors: ", "lora_B") {
            $0.weightsName = "adapter.safetensors"
            $0.tensors["\(CraftedUpload.prefix)0.self_attn.q_proj.lora_B.weight"] = nil
        },
    ]
}
