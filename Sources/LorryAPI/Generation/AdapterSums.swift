import Crypto
import HTTPTypes
import LorryEngine
import LorryModel
import LorryRegistry
import Synchronization

/// An adapter version as a part of a sum, with its files held.
public struct ScaledAdapter: Sendable {
    public let lease: AdapterLease
    public let scale: Float

    public var summand: AdapterSummand {
        AdapterSummand(
            name: lease.record.name, directory: lease.directory, checksums: lease.checksums,
            scale: scale)
    }
}

/// How several adapters become one; made by the executable. All throw `AdapterError`, of kind
/// `unsupported` where an adapter is none that can be combined.
public struct AdapterCombinations: Sendable {
    /// What a sum's program will be, by the adapters' headers alone.
    let describeSum: @Sendable ([ScaledAdapter]) throws -> AdapterDescription
    let loadSum: @Sendable ([ScaledAdapter]) throws -> AdapterProgram
    let merge: @Sendable ([MergeInput], MergeOptions) throws -> AdapterMerge

    public init(
        describeSum: @escaping @Sendable ([ScaledAdapter]) throws -> AdapterDescription,
        loadSum: @escaping @Sendable ([ScaledAdapter]) throws -> AdapterProgram,
        merge: @escaping @Sendable ([MergeInput], MergeOptions) throws -> AdapterMerge
    ) {
        self.describeSum = describeSum
        self.loadSum = loadSum
        self.merge = merge
    }

    /// Combines nothing.
    init() {
        let refusal = AdapterError(.unsupported, "adapters are not combined here")
        describeSum = { _ in throw refusal }
        loadSum = { _ in throw refusal }
        merge = { _, _ in throw refusal }
    }
}

/// How large the programs of sums are, for those asked for last. Scales do not matter.
final class SumSizes: Sendable {
    private static let capacity = 256
    private let sizes = Mutex<[[String]: Int]>([:])

    func size(
        _ versions: [String], _ compute: () throws(APIError) -> Int
    ) throws(APIError) -> Int {
        if let known = sizes.withLock({ $0[versions] }) { return known }
        let size = try compute()
        sizes.withLock { sizes in
            if sizes.count >= Self.capacity { sizes.removeAll() }
            sizes[versions] = size
        }
        return size
    }
}

extension APIServices {
    /// The sum that `summands` name. One adapter with scale 1 is that adapter, nothing is the base
    /// model.
    ///
    /// - Throws: `APIError` 404 where there is an adapter that does not exist or that the key may
    ///   not use, 400 where one cannot be part of a sum.
    func sumModel(
        _ summands: [ModelSelection.Summand], _ principal: Principal, of list: String = "lora"
    ) throws(APIError) -> ServedModel {
        let adapters = try scaledAdapters(summands, principal, list)
        guard let first = adapters.first else { return baseModel }
        if adapters.count == 1, first.scale == 1 {
            return try plainModel(first.lease, shown: first.lease.record.name)
        }
        let reference = try reference(toSumOf: adapters, list)
        return ServedModel(
            name: reference.name, adapter: reference,
            text: adapters.count == 1 ? try codec(of: first.lease) : text)
    }

    /// Each version once, in the order of digests, without those whose scales cancel out: equal
    /// sums are equal lists.
    private func scaledAdapters(
        _ summands: [ModelSelection.Summand], _ principal: Principal, _ list: String
    ) throws(APIError) -> [ScaledAdapter] {
        var leases: [String: AdapterLease] = [:]
        var scales: [String: [Float]] = [:]
        let found = try self.leases(summands.map(\.adapter), of: list, principal)
        for (lease, summand) in zip(found, summands) {
            let digest = lease.record.version.digest
            // Of several names of a version always the same one.
            let known = leases[digest]
            if known.map({ lease.record.name < $0.record.name }) ?? true { leases[digest] = lease }
            scales[digest, default: []].append(summand.scale)
        }
        var adapters: [ScaledAdapter] = []
        for (digest, lease) in leases.sorted(by: { $0.key < $1.key }) {
            let scale = (scales[digest] ?? []).sorted().reduce(0, +)
            guard scale.isFinite else {
                throw .invalid(
                    list, "\(list): the scales of '\(lease.record.name)' are too large.")
            }
            if scale != 0 { adapters.append(ScaledAdapter(lease: lease, scale: scale)) }
        }
        return adapters
    }

    /// The versions that a request's list of adapters names, with their files held.
    ///
    /// - Parameters:
    ///   - list: the list's field.
    ///   - records: what positions count in; nil for the adapters as they are now.
    /// - Throws: `APIError` 404 where one does not exist or the key may not use it, 409 where a
    ///   position is not what the client expects there.
    func leases(
        _ adapters: [ModelSelection.AdapterName], of list: String, _ principal: Principal,
        among records: [AdapterRecord]? = nil
    ) throws(APIError) -> [AdapterLease] {
        var visible = records
        var leases: [AdapterLease] = []
        for (index, adapter) in adapters.enumerated() {
            switch adapter {
            case .named(let name): leases.append(try lease(name, shown: name, principal))
            case .position(let position, let expected):
                let records = visible ?? visibleAdapters(for: principal)
                visible = records
                guard records.indices.contains(position) else {
                    throw .modelNotFound("\(list)[\(index)].id = \(position)")
                }
                let name = records[position].name
                guard expected ?? name == name else {
                    throw APIError(
                        .conflict,
                        "\(list)[\(index)]: the adapters have changed: id \(position) is "
                            + "'\(name)' now, not '\(expected ?? "")'. Give the name alone.",
                        parameter: "\(list)[\(index)].id")
                }
                leases.append(try lease(name, shown: name, principal))
            }
        }
        return leases
    }

    private func reference(
        toSumOf adapters: [ScaledAdapter], _ list: String
    ) throws(APIError) -> AdapterReference {
        let combinations = combinations
        let byteCount = try sumSizes.size(adapters.map(\.lease.record.version.digest)) {
            () throws(APIError) in
            do {
                return try combinations.describeSum(adapters).byteCount
            } catch {
                guard let error = error as? AdapterError, error.kind == .unsupported else {
                    throw APIError(
                        .internalServerError, "The adapters could not be read: \(error)")
                }
                throw APIError.invalid(list, "\(list): \(error.message)")
            }
        }
        let registry = registry
        return AdapterReference(
            id: Self.identity(of: adapters),
            name: adapters.map(\.lease.record.name).joined(separator: "+"), byteCount: byteCount,
            hold: adapters.map(\.lease),
            readAhead: {
                for adapter in adapters {
                    AdapterCompiler.readAhead(directory: adapter.lease.directory)
                }
            },
            load: {
                do {
                    return try combinations.loadSum(adapters)
                } catch let error as AdapterError where error.kind == .damaged {
                    for lease in adapters.map(\.lease) where lease.contentProblem() != nil {
                        registry.reportDamage(lease.record.version, actor: "adapter load")
                    }
                    throw error
                }
            })
    }

    /// SHA-256 over the line `lorry-sum 1` and one line `<version> <bits of the scale>` for each
    /// adapter.
    private static func identity(of adapters: [ScaledAdapter]) -> LorryEngine.AdapterVersionID {
        var text = "lorry-sum 1\n"
        for adapter in adapters {
            text += "\(adapter.lease.record.version.digest) \(adapter.scale.bitPattern)\n"
        }
        return LorryEngine.AdapterVersionID(hashing: text)
    }
}

extension LorryEngine.AdapterVersionID {
    /// Names what is made of versions by the SHA-256 of a text that says how.
    init(hashing text: String) {
        let digest = SHA256.hash(data: Array(text.utf8))
        self.init(digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())
    }
}
