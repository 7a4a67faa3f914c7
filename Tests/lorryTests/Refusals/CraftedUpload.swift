import CraftedArchives
import Foundation

/// An upload for the tests' smallest model (hidden size 64, 3 layers) that is good until a row of
/// the matrix breaks it in one place.
struct CraftedUpload: Sendable {
    struct Tensor: Sendable {
        var dtype = "F32"
        var shape: [Int]
        var bytes: [UInt8]

        /// Of small numbers.
        init(_ shape: [Int]) {
            self.shape = shape
            bytes = (0..<4 * shape.reduce(1, *)).map { [0x11, 0x3C, 0x22, 0x3C][$0 % 4] }
        }
    }

    static let configurationName = "adapter_config.json"
    static let weightsName = "adapter_model.safetensors"
    static let prefix = "base_model.model.model.layers."

    /// Members of the configuration, as JSON.
    var fields = [
        "peft_type": #""LORA""#, "task_type": #""CAUSAL_LM""#, "r": "4", "lora_alpha": "8",
        "target_modules": #"["q_proj", "v_proj"]"#, "bias": #""none""#,
    ]
    /// In the place of the fields.
    var configuration: [UInt8]?
    var tensors: [String: Tensor] = [:]
    /// What the header says of tensors in the place of what is so.
    var offsets: [String: ClosedRange<Int>] = [:]
    /// Bytes behind the last tensor, or so many fewer.
    var dataSurplus = 0
    /// In the place of the tensors' header.
    var header: [UInt8]?
    var headerLength: UInt64?
    /// The whole file, in the place of all that.
    var weights: [UInt8]?
    var configurationName: String? = Self.configurationName
    var weightsName: String? = Self.weightsName
    /// Files beside the two.
    var further: [(name: String, bytes: [UInt8])] = []

    init() {
        for layer in 0..<3 {
            for (module, width) in [("q_proj", 64), ("v_proj", 32)] {
                let path = "\(Self.prefix)\(layer).self_attn.\(module)"
                tensors["\(path).lora_A.weight"] = Tensor([4, 64])
                tensors["\(path).lora_B.weight"] = Tensor([width, 4])
            }
        }
    }

    /// A tensor that every row may break.
    static let first = "\(prefix)0.self_attn.q_proj.lora_A.weight"

    var firstTensor: Tensor {
        get { tensors[Self.first] ?? Tensor([4, 64]) }
        set { tensors[Self.first] = newValue }
    }

    var files: [NamedFile] {
        var files: [NamedFile] = []
        if let configurationName { files.append((configurationName, configurationBytes)) }
        if let weightsName { files.append((weightsName, weightsBytes)) }
        return files + further.map { ($0.name, $0.bytes) }
    }

    private var configurationBytes: [UInt8] {
        let members = fields.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value)" }
        return configuration ?? Array("{\(members.joined(separator: ", "))}".utf8)
    }

    private var weightsBytes: [UInt8] {
        if let weights { return weights }
        var members: [String] = []
        var data: [UInt8] = []
        for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
            let end = data.count + tensor.bytes.count
            let (from, to) =
                offsets[name].map { ($0.lowerBound, $0.upperBound) } ?? (data.count, end)
            members.append(
                "\"\(name)\":{\"dtype\":\"\(tensor.dtype)\",\"shape\":\(tensor.shape),"
                    + "\"data_offsets\":[\(from),\(to)]}")
            data += tensor.bytes
        }
        data =
            dataSurplus < 0
            ? data.dropLast(-dataSurplus) : data + [UInt8](repeating: 0, count: dataSurplus)
        let header = header ?? Array("{\(members.joined(separator: ","))}".utf8)
        let length = headerLength ?? UInt64(header.count)
        return withUnsafeBytes(of: length.littleEndian, Array.init) + header + data
    }
}

/// A body with its content type.
struct CraftedBody: Sendable {
    var type: String?
    var bytes: [UInt8]
    var headers: [(String, String)] = []

    static func tar(_ tar: TarBuilder) -> CraftedBody {
        CraftedBody(type: "application/x-tar", bytes: tar.archive)
    }

    static func tar(_ bytes: [UInt8]) -> CraftedBody {
        CraftedBody(type: "application/x-tar", bytes: bytes)
    }

    static func gzip(_ bytes: [UInt8]) -> CraftedBody {
        CraftedBody(type: "application/gzip", bytes: bytes)
    }

    static func json(_ text: String) -> CraftedBody {
        CraftedBody(type: "application/json", bytes: Array(text.utf8))
    }

    /// - Parameter parts: each part's header fields and content.
    static func multipart(
        _ parts: [(head: String, content: [UInt8])], boundary: String = "b",
        end: String = "--b--\r\n"
    ) -> CraftedBody {
        var bytes: [UInt8] = []
        for (head, content) in parts {
            bytes += "--b\r\n\(head)\r\n\r\n".utf8
            bytes += content
            bytes += "\r\n".utf8
        }
        return CraftedBody(
            type: "multipart/form-data; boundary=\(boundary)", bytes: bytes + Array(end.utf8))
    }

    static func head(of name: String) -> String {
        "Content-Disposition: form-data; name=\"file\"; filename=\"\(name)\""
    }
}

/// A row of the matrix: what must be refused, how, and what the message must name.
struct Refusal: Sendable {
    let rule: String
    var path = "/admin/adapters/crafted"
    let status: Int
    let culprits: [String]
    let body: CraftedBody

    init(
        _ rule: String, _ status: Int = 400, naming culprits: [String], path: String? = nil,
        _ body: CraftedBody
    ) {
        self.rule = rule
        self.status = status
        self.culprits = culprits
        self.body = body
        if let path { self.path = path }
    }

    /// Of an upload that is good but for one change.
    static func upload(
        _ rule: String, _ status: Int = 400, naming culprits: String...,
        change: (inout CraftedUpload) -> Void
    ) -> Refusal {
        var upload = CraftedUpload()
        change(&upload)
        return Refusal(rule, status, naming: culprits, .tar(TarBuilder(upload.files)))
    }

    /// Of weights with this header over 8 bytes of data.
    static func header(_ rule: String, naming culprits: String..., header: String) -> Refusal {
        upload(rule, naming: CraftedUpload.weightsName) {
            $0.tensors = [:]
            $0.dataSurplus = 8
            $0.header = Array(header.utf8)
        }.naming(culprits)
    }

    /// Of weights whose header says this of its only tensor, of 8 bytes.
    static func entry(_ rule: String, naming culprits: String..., entry: String) -> Refusal {
        header(rule, header: "{\"culprit.w\":\(entry)}").naming(culprits + ["culprit.w"])
    }

    /// Of a tensor with this name, as JSON has it.
    static func name(_ rule: String, naming culprits: String..., name: String) -> Refusal {
        header(
            rule, header: "{\"\(name)\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"
        )
        .naming(culprits)
    }

    /// Of a configuration with this in a field's place.
    static func field(
        _ rule: String, _ status: Int = 400, naming culprits: String..., field: String,
        _ value: String?
    ) -> Refusal {
        upload(rule, status, naming: CraftedUpload.configurationName, field) {
            $0.fields[field] = value
        }.naming(culprits)
    }

    /// Of a configuration with this text.
    static func configuration(
        _ rule: String, naming culprits: String..., text: [UInt8]
    ) -> Refusal {
        upload(rule, naming: CraftedUpload.configurationName) { $0.configuration = text }
            .naming(culprits)
    }

    /// Of an archive with something added to the good files.
    static func archive(
        _ rule: String, _ status: Int = 400, naming culprits: String...,
        change: (inout TarBuilder) -> Void
    ) -> Refusal {
        var tar = TarBuilder(CraftedUpload().files)
        change(&tar)
        return Refusal(rule, status, naming: culprits, .tar(tar))
    }

    private func naming(_ further: [String]) -> Refusal {
        Refusal(rule, status, naming: culprits + further, path: path, body)
    }
}
