import Foundation

/// What the machine offers, as the kernel tells it.
enum Machine {
    /// Physical cores that this process may run on: threads beyond them slow the kernels down.
    static var physicalCoreCount: Int {
        let allowed = ProcessInfo.processInfo.activeProcessorCount
        var cores: Set<String> = []
        for processor in 0..<max(ProcessInfo.processInfo.processorCount, 1) {
            let path = "/sys/devices/system/cpu/cpu\(processor)/topology/thread_siblings_list"
            guard let siblings = read(path) else { continue }
            cores.insert(siblings)
        }
        return max(1, min(allowed, cores.isEmpty ? allowed : cores.count))
    }

    /// Memory that can still be used without swapping, within the control group's limit.
    static var availableByteCount: Int {
        var available = field("MemAvailable") ?? 1 << 30
        if let limit = read("/sys/fs/cgroup/memory.max").flatMap({ Int($0) }),
            let used = read("/sys/fs/cgroup/memory.current").flatMap({ Int($0) })
        {
            available = min(available, max(0, limit - used))
        }
        return available
    }

    static var totalByteCount: Int { field("MemTotal") ?? 0 }

    /// Several times what the largest cache holds: memory of this size is read from no cache.
    static var uncachedByteCount: Int {
        let sizes = (0..<8).compactMap { index -> Int? in
            let text = read("/sys/devices/system/cpu/cpu0/cache/index\(index)/size") ?? ""
            return text.hasSuffix("K") ? Int(text.dropLast()).map { $0 << 10 } : nil
        }
        return min(max(4 * (sizes.max() ?? 0), 128 << 20), 1 << 30)
    }

    /// How many files this process may have open; nil where the system does not say.
    static var openFileLimit: Int? { openFiles.map { Int(clamping: $0.rlim_cur) } }

    private static let openFileResource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)

    private static var openFiles: rlimit? {
        var limit = rlimit()
        return getrlimit(openFileResource, &limit) == 0 ? limit : nil
    }

    /// Raises the limit as far as the process may. - Returns: what it is then.
    static func raiseOpenFileLimit() -> Int {
        guard var limit = openFiles else { return 1024 }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(openFileResource, &limit)
        return openFileLimit ?? 1024
    }

    /// Brand and model of the processor.
    static var processorName: String {
        let lines = read("/proc/cpuinfo")?.split(separator: "\n") ?? []
        let name = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
        return name.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
    }

    private static func field(_ name: String) -> Int? {
        let line = read("/proc/meminfo")?.split(separator: "\n").first { $0.hasPrefix("\(name):") }
        let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        return kibibytes.map { $0 * 1024 }
    }

    private static func read(_ path: String) -> String? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
