import Foundation
import Synchronization

/// A bar on standard error for work that takes long; shows nothing where that is no terminal.
final class ProgressBar: Sendable {
    private struct State {
        var shownPercent = -1
        var shownNote = ""
        var isFinished = false
    }

    private let label: String
    let isTerminal: Bool
    private let state = Mutex(State())
    private static let width = 30

    init(label: String) {
        self.label = label
        isTerminal = isatty(STDERR_FILENO) == 1
    }

    /// May be called from any thread.
    ///
    /// - Parameters:
    ///   - share: of the work, from 0 to 1.
    ///   - note: stands behind the bar.
    func update(_ share: Double, note: String = "") {
        guard isTerminal else { return }
        let percent = Int((min(max(share, 0), 1) * 100).rounded(.down))
        let mayShow = state.withLock { state in
            guard percent != state.shownPercent || note != state.shownNote, !state.isFinished
            else { return false }
            state.shownPercent = percent
            state.shownNote = note
            return true
        }
        guard mayShow else { return }
        let filled = Self.width * percent / 100
        let bar =
            String(repeating: "█", count: filled)
            + String(repeating: "░", count: Self.width - filled)
        write("\r\(label) \(bar) \(percent) % \(note)\u{1B}[K")
    }

    /// Clears the bar's line.
    func finish() {
        guard isTerminal else { return }
        state.withLock { $0.isFinished = true }
        write("\r\u{1B}[K")
    }

    private func write(_ text: String) {
        FileHandle.standardError.write(Data(text.utf8))
    }
}
