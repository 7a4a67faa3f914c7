/// A text from outside made safe to show in messages and logs: what does not print is escaped, and
/// what is long is cut.
package func shown(_ text: String, maximumCount: Int = 120) -> String {
    var result = ""
    var count = 0
    for scalar in text.unicodeScalars {
        guard count < maximumCount else { return result + "…" }
        count += 1
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
            .paragraphSeparator:
            result += scalar.escaped(asASCII: true)
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
