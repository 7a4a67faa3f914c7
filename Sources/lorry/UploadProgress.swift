import Foundation

/// Shows how far an upload is, on standard error, where that is a terminal: first the bytes that
/// went out, then that the server checks them.
struct UploadProgress {
    private let name: String
    private let byteCount: Int
    private let started = ContinuousClock.now
    private var sent = 0
    private var shown = -1
    private let isShown = isatty(STDERR_FILENO) == 1

    init(name: String, byteCount: Int) {
        self.name = name
        self.byteCount = byteCount
    }

    mutating func advance(_ count: Int) {
        sent += count
        let percent = byteCount == 0 ? 100 : sent * 100 / byteCount
        guard isShown, percent != shown else { return }
        shown = percent
        let filled = percent * 30 / 100
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 30 - filled)
        show("\(bar) \(percent) % of \(ByteCountText.text(byteCount)), \(rate)/s")
        if sent >= byteCount { show("sent, the server is checking it") }
    }

    func end() {
        if isShown { FileHandle.standardError.write(Data("\r\u{1B}[2K".utf8)) }
    }

    private var rate: String {
        let seconds = max((ContinuousClock.now - started) / .seconds(1), 0.001)
        return ByteCountText.text(Int(Double(sent) / seconds))
    }

    private func show(_ text: String) {
        FileHandle.standardError.write(Data("\r\u{1B}[2K\(name) \(text)".utf8))
    }
}

enum ByteCountText {
    static func text(_ byteCount: Int) -> String {
        var value = Double(byteCount)
        for unit in ["B", "KiB", "MiB"] {
            if value < 1024 {
                return String(format: unit == "B" ? "%.0f %@" : "%.1f %@", value, unit)
            }
            value /= 1024
        }
        return String(format: "%.1f GiB", value)
    }
}
