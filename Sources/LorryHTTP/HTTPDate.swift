import Foundation
import NIOConcurrencyHelpers

/// The `date` header field (RFC 9110 §5.6.7), made once per second.
package enum HTTPDate {
    private static let cached = NIOLockedValueBox((second: Int64.min, text: ""))

    package static var now: String {
        let second = Int64(Date().timeIntervalSince1970.rounded(.down))
        return cached.withLockedValue { cached in
            if cached.second != second { cached = (second, text(second: second)) }
            return cached.text
        }
    }

    /// The IMF-fixdate of a number of seconds since 1970.
    package static func text(second: Int64) -> String {
        let days = Int(second / 86400)
        let time = Int(second % 86400)
        let (year, month, day) = civil(days)
        let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        let months = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]
        return weekdays[days % 7] + ", " + two(day) + " " + months[month - 1] + " \(year) "
            + two(time / 3600) + ":" + two(time / 60 % 60) + ":" + two(time % 60) + " GMT"
    }

    private static func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }

    /// Gregorian year, month and day of a day number since 1970 (March-based years, so that the
    /// leap day is a year's last).
    private static func civil(_ days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra =
            (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return (year, month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }
}
