/// Classes of scalars as the reference's own (not regular-expression) rules define them.
enum ScalarClass: Sendable {
    case whitespace
    /// ASCII punctuation, or Unicode's category P.
    case punctuation
    /// Unicode's categories Nd, Nl and No.
    case numeric
    case exactly(Unicode.Scalar)

    @inline(__always)
    func contains(_ scalar: Unicode.Scalar) -> Bool {
        switch self {
        case .whitespace: Self.isWhitespace(scalar)
        case .punctuation: Self.isPunctuation(scalar)
        case .numeric: Self.isNumeric(scalar)
        case .exactly(let other): scalar == other
        }
    }

    @inline(__always)
    static func isWhitespace(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value < 0x80 {
            return scalar.value == 0x20 || (scalar.value >= 9 && scalar.value <= 13)
        }
        return scalar.properties.isWhitespace
    }

    static func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E: return true
        case 0..<0x80: return false
        default: break
        }
        switch scalar.properties.generalCategory {
        case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation,
            .initialPunctuation, .finalPunctuation, .otherPunctuation:
            return true
        default: return false
        }
    }

    @inline(__always)
    static func isNumeric(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value < 0x80 { return scalar.value >= 0x30 && scalar.value <= 0x39 }
        switch scalar.properties.generalCategory {
        case .decimalNumber, .letterNumber, .otherNumber: return true
        default: return false
        }
    }

    /// `\w` of Unicode's regular-expression annex (UTS 18, annex C).
    static func isWord(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F: return true
        case 0..<0x80: return false
        case 0x200C, 0x200D: return true
        default: break
        }
        if scalar.properties.isAlphabetic { return true }
        switch scalar.properties.generalCategory {
        case .decimalNumber, .connectorPunctuation: return true
        default: return isMark(scalar)
        }
    }

    static func isMark(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark: true
        default: false
        }
    }
}
