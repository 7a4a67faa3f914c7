import CKernels
import Foundation

/// An instruction set that kernels are compiled for, lowest first.
public enum KernelLevel: String, Sendable, CaseIterable, Comparable {
    /// What the build's baseline CPU has; the reference of all others.
    case portable
    /// AVX2 with fused multiply-add.
    case avx2
    /// AVX-512 F, BW, DQ and VL.
    case avx512
    /// AVX-512 with VNNI: dot products of bytes.
    case avx512VNNI = "avx512-vnni"
    /// AVX-512 with VNNI and BF16: dot products of bytes and of bf16 pairs.
    case avx512BF16 = "avx512-bf16"
    /// arm64 with dot products of bytes and the int8 matrix extension.
    case neonI8MM = "neon-i8mm"

    var native: ck_level {
        switch self {
        case .portable: .CK_LEVEL_PORTABLE
        case .avx2: .CK_LEVEL_AVX2
        case .avx512: .CK_LEVEL_AVX512
        case .avx512VNNI: .CK_LEVEL_AVX512_VNNI
        case .avx512BF16: .CK_LEVEL_AVX512_BF16
        case .neonI8MM: .CK_LEVEL_NEON_I8MM
        }
    }

    /// The level's kernels, or nil where this build, CPU or operating system cannot run them.
    var table: UnsafePointer<ck_table>? { ck_level_table(native) }

    /// Whether this machine can run the level.
    public var isSupported: Bool { table != nil }

    /// The levels that this machine can run, lowest first.
    public static var supported: [KernelLevel] { allCases.filter(\.isSupported) }

    public static func < (left: KernelLevel, right: KernelLevel) -> Bool {
        left.native.rawValue < right.native.rawValue
    }
}

/// Why `LORRY_KERNELS` cannot be followed.
public enum KernelLevelError: Error, Equatable, CustomStringConvertible {
    case unknown(String)
    case unsupported(KernelLevel)

    public var description: String {
        switch self {
        case .unknown(let name):
            let names = KernelLevel.allCases.map(\.rawValue).joined(separator: ", ")
            return "LORRY_KERNELS=\(name) is no kernel level; levels are \(names)"
        case .unsupported(let level):
            let best = KernelLevel.supported.last ?? .portable
            return "LORRY_KERNELS=\(level.rawValue) cannot run on this machine; "
                + "its best level is \(best.rawValue)"
        }
    }
}

/// A feature of the processor that kernels use or may use.
public struct ProcessorFeature: Sendable, Hashable {
    /// As in the vendors' manuals and /proc/cpuinfo: `avx512vnni`.
    public let name: String
    public let isPresent: Bool

    /// All that are known of this architecture; the operating system must let programs use them to
    /// count as present.
    public static let all: [ProcessorFeature] = {
        var known: [ProcessorFeature] = []
        var isPresent = false
        while let name = ck_cpu_feature(known.count, &isPresent) {
            known.append(ProcessorFeature(name: String(cString: name), isPresent: isPresent))
        }
        return known
    }()
}

/// The choice of kernels for this process.
public enum Kernels {
    /// The environment variable that lowers the level.
    public static let variable = "LORRY_KERNELS"

    /// The choice made once at start from the CPU and `LORRY_KERNELS`, or why the variable cannot
    /// be followed.
    public static let selection: Result<KernelLevel, KernelLevelError> =
        choose(request: ProcessInfo.processInfo.environment[variable])

    /// The level in use; the machine's best where `selection` failed.
    public static let level: KernelLevel =
        (try? selection.get()) ?? KernelLevel.supported.last ?? .portable

    /// The level for a value of `LORRY_KERNELS`; nil or empty asks for the machine's best.
    package static func choose(request: String?) -> Result<KernelLevel, KernelLevelError> {
        guard let request, !request.isEmpty else {
            return .success(KernelLevel.supported.last ?? .portable)
        }
        guard let level = KernelLevel(rawValue: request) else {
            return .failure(.unknown(request))
        }
        return level.isSupported ? .success(level) : .failure(.unsupported(level))
    }
}
