import Foundation

/// Processor time that this program has used, in seconds.
enum ProcessorTime {
    /// POSIX sets the clock's unit to a microsecond whatever its precision.
    static func now() -> Double { Double(clock()) / 1_000_000 }
}
