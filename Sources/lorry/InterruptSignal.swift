import Dispatch
import Foundation
import Synchronization

/// Ctrl-C: the first one is handed on, a second one ends the program.
final class InterruptSignal {
    private final class Counter: Sendable {
        let value = Atomic(0)
    }

    private let source: any DispatchSourceSignal

    init(_ body: @escaping @Sendable () -> Void) {
        signal(SIGINT, SIG_IGN)
        source = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
        let counter = Counter()
        source.setEventHandler {
            if counter.value.wrappingAdd(1, ordering: .relaxed).oldValue > 0 {
                Foundation.exit(130)
            }
            body()
        }
        source.resume()
    }

    func cancel() {
        source.cancel()
        signal(SIGINT, SIG_DFL)
    }
}

/// Lines on standard error, one in so many seconds.
final class ProgressLines: Sendable {
    private let interval: Double
    private let last = Mutex(0.0)

    init(every seconds: Double) { interval = seconds }

    func show(_ text: String, at seconds: Double) {
        let isDue = last.withLock { last in
            guard seconds >= last + interval else { return false }
            last = seconds
            return true
        }
        if isDue { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
    }
}
