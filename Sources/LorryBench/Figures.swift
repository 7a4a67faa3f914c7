import Foundation

/// Numbers as the tables show them.
public enum Figures {
    /// Three digits: 0.0123, 1.23, 12.3, 1234.
    public static func significant(_ value: Double) -> String {
        guard value.isFinite else { return "-" }
        let magnitude = abs(value)
        let decimals: Int
        switch magnitude {
        case 99.95...: decimals = 0
        case 9.995...: decimals = 1
        case 0.9995...: decimals = 2
        case 0: decimals = 0
        default: decimals = 2 - Int(log10(magnitude).rounded(.down))
        }
        return String(format: "%.\(min(decimals, 9))f", value)
    }

    /// A share as per cent: 87.7 %.
    public static func percent(_ share: Double) -> String {
        share.isFinite ? String(format: "%.1f %%", share * 100) : "-"
    }

    /// Seconds in the unit that suits them: 12.3 µs, 1.23 ms, 4.56 s.
    public static func duration(_ seconds: Double) -> String {
        switch abs(seconds) {
        case ..<1e-3: "\(significant(seconds * 1e6)) µs"
        case ..<1: "\(significant(seconds * 1e3)) ms"
        default: "\(significant(seconds)) s"
        }
    }
}
