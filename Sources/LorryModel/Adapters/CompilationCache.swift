import LorryTensor
import Synchronization

/// What compilations for one base model share, so that most loads only copy numbers: plans by the
/// configuration and header that they were made from, and memory of programs that are gone.
///
/// Adapters of one training recipe have equal configurations and headers, so a few plans serve
/// thousands.
public final class CompilationCache: Sendable {
    /// The bytes themselves, which are compared: a checksum could be forged to get another tenant's
    /// adapter compiled by a plan of one's own.
    struct Key: Hashable {
        let configuration: [UInt8]
        let header: [UInt8]
        let fileByteCount: Int
        let format: OperandFormat

        /// An array would hash byte by byte, which took a twentieth of a small adapter's load.
        func hash(into hasher: inout Hasher) {
            for bytes in [configuration, header] {
                hasher.combine(bytes.count)
                bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
            }
            hasher.combine(fileByteCount)
            hasher.combine(format)
        }
    }

    private struct Entry {
        let plan: AdapterPlan
        var lastUse: UInt64
    }

    private struct Entries {
        var byKey: [Key: Entry] = [:]
        var useCount: UInt64 = 0
    }

    /// A plan and its key take some tens of KiB.
    static let capacity = 64

    private let entries = Mutex(Entries())
    let spares: SparePages

    /// - Parameter spareByteCount: how much memory of evicted adapters is kept for the next ones.
    public init(spareByteCount: Int = 32 << 20) {
        spares = SparePages(limit: spareByteCount)
    }

    func plan(_ key: Key) -> AdapterPlan? {
        entries.withLock { entries in
            entries.useCount += 1
            entries.byKey[key]?.lastUse = entries.useCount
            return entries.byKey[key]?.plan
        }
    }

    func keep(_ plan: AdapterPlan, _ key: Key) {
        entries.withLock { entries in
            entries.useCount += 1
            entries.byKey[key] = Entry(plan: plan, lastUse: entries.useCount)
            guard entries.byKey.count > Self.capacity else { return }
            let oldest = entries.byKey.min { $0.value.lastUse < $1.value.lastUse }
            if let oldest { entries.byKey[oldest.key] = nil }
        }
    }

    package var planCount: Int { entries.withLock { $0.byKey.count } }
    package var spareByteCount: Int { spares.byteCount }
}
