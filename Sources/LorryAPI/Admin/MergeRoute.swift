import Dispatch
import HTTPTypes
import Hummingbird
import LorryModel
import LorryRegistry

/// The body of `POST /admin/adapters/{name}/merge`, with the names of peft's
/// `add_weighted_adapter`.
struct MergeRequest {
    let adapters: [(adapter: ModelSelection.AdapterName, weight: Double)]
    let options: MergeOptions

    init(_ fields: FieldReader) throws(APIError) {
        guard let entries = try fields.array("adapters"), !entries.isEmpty else {
            throw fields.fail("adapters", "is required: a list of adapters with weights.")
        }
        guard entries.count <= ModelSelection.maximumSummandCount else {
            throw fields.fail(
                "adapters", "may name at most \(ModelSelection.maximumSummandCount) adapters.")
        }
        var adapters: [(ModelSelection.AdapterName, Double)] = []
        for (index, entry) in entries.enumerated() {
            guard let object = entry.objectValue else {
                throw fields.fail("adapters[\(index)]", "must be an object.")
            }
            let member = FieldReader(object: object, path: "adapters[\(index)].")
            let weight = try member.finite("weight") ?? 1
            adapters.append((try ModelSelection.AdapterName(member), weight))
        }
        self.adapters = adapters
        options = try Self.options(fields)
    }

    private static func options(_ fields: FieldReader) throws(APIError) -> MergeOptions {
        var options = MergeOptions()
        if let type: MergeOptions.Combination = try fields.choice("combination_type") {
            options.combination = type
        }
        if let sign: MergeOptions.MajoritySign = try fields.choice("majority_sign_method") {
            options.majoritySign = sign
        }
        options.density = try fields.finite("density")
        options.svdRank = try fields.integer(
            "svd_rank", in: 1...Int(Int32.max), "between 1 and \(Int32.max)")
        options.svdClamp = try fields.finite("svd_clamp")
        // Both give the same parts; drivers are those of GPUs.
        _ = try fields.bool("svd_full_matrices")
        _ = try fields.string("svd_driver")
        if let seed = try fields.integer("seed", in: 0...Int.max, "at least 0") {
            options.seed = seed
        }
        return options
    }
}

extension FieldReader {
    fileprivate func finite(_ key: String) throws(APIError) -> Double? {
        guard let value = value(key) else { return nil }
        guard let number = value.numberValue, Float(number).isFinite else {
            throw fail(key, "must be a number.")
        }
        return number
    }

    fileprivate func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String
    ) throws(APIError) -> Choice? where Choice.RawValue == String {
        guard let name = try string(key) else { return nil }
        guard let choice = Choice(rawValue: name) else {
            let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw fail(key, "must be one of \(names), got '\(name)'.")
        }
        return choice
    }
}

extension APIServices {
    /// Merges adapters to a new one, which is registered as an upload is.
    func merge(_ call: Call) async throws -> Response {
        let fields = try await call.request.jsonObject(byteLimit: limits.jsonByteCount)
        let wanted = try MergeRequest(fields)
        let changes = AdapterChanges(self, for: call.principal)
        try changes.checkAddition(call.parameter("name"))
        let leases = try self.leases(
            wanted.adapters.map(\.adapter), of: "adapters", call.principal)
        let inputs = zip(leases, wanted.adapters).map { lease, adapter in
            MergeInput(
                name: lease.record.name, directory: lease.directory, checksums: lease.checksums,
                weight: adapter.weight)
        }
        let merge: AdapterMerge
        do {
            let makeMerge = combinations.merge
            merge = try await onDispatch {
                Result { try makeMerge(inputs, wanted.options) }
            }.get()
        } catch {
            throw Self.refusal(of: error)
        }
        let upload = try changes.makeUpload(for: call.parameter("name"))
        do {
            try await Self.write(merge, to: upload)
        } catch {
            await upload.discard()
            throw Self.refusal(of: error)
        }
        withExtendedLifetime(leases) {}
        let outcome = try await changes.add(
            name: call.parameter("name"), from: upload,
            expecting: Precondition(call.request.headers))
        return answer(outcome.record, status: outcome.created ? .created : .ok)
    }

    /// What can be mended in the request is 400.
    private static func refusal(of error: any Error) -> any Error {
        guard let error = error as? AdapterError else { return error }
        switch error.kind {
        case .invalid, .unsupported: return APIError(.badRequest, error.message)
        case .unreadable, .damaged, .outOfMemory:
            return APIError(.internalServerError, error.message)
        }
    }

    private static func write(_ merge: AdapterMerge, to upload: AdapterUpload) async throws {
        try await upload.beginFile(AdapterFileNames.configuration)
        try await upload.writeFile(Array(try merge.configurationFile()))
        try await upload.endFile()
        try await upload.beginFile(AdapterFileNames.weights)
        try await upload.writeFile(Array(try merge.weightsHeader()))
        var merge = merge
        while true {
            try Task.checkCancellation()
            let (rest, bytes) = try await step(merge)
            guard let bytes else { break }
            try await upload.writeFile(bytes)
            merge = rest
        }
        try await upload.endFile()
    }

    /// Merges one module, on a thread that may take its time.
    private static func step(_ merge: AdapterMerge) async throws -> (AdapterMerge, [UInt8]?) {
        try await withCheckedThrowingContinuation { continuation in
            DispatchQueue.global(qos: .utility).async {
                var merge = merge
                let result = Result { try merge.next() }
                continuation.resume(with: result.map { (merge, $0) })
            }
        }
    }
}

private enum AdapterFileNames {
    static let configuration = "adapter_config.json"
    static let weights = "adapter_model.safetensors"
}
