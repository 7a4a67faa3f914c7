import Foundation

/// How text is rewritten before it is split, after Hugging Face's tokenizers (normalizers/).
indirect enum Normalizer: Sendable {
    case sequence([Normalizer])
    case prepend([UInt8])
    case replaceText([UInt8], with: [UInt8])
    case replacePattern(RegexPattern, with: [UInt8])
    case canonicalComposed
    case canonicalDecomposed
    case compatibilityComposed
    case compatibilityDecomposed
    case lowercase
    case strip(left: Bool, right: Bool)
    case stripAccents
    case byteLevel
    case nmt
    case bert(BertRules)

    struct BertRules: Sendable {
        var cleansText: Bool
        var spacesChinese: Bool
        var stripsAccents: Bool
        var lowercases: Bool
    }

    func apply(_ text: inout [UInt8]) {
        switch self {
        case .sequence(let steps):
            for step in steps { step.apply(&text) }
        case .prepend(let prefix):
            if !text.isEmpty { text.insert(contentsOf: prefix, at: 0) }
        case .replaceText(let pattern, let content):
            text = text.replacing(text: pattern, with: content)
        case .replacePattern(let pattern, let content):
            text = text.replacing(pattern: pattern, with: content)
        case .canonicalComposed:
            Self.recompose(&text, unchangedBelow: 0x300) {
                Self.composingHangul($0.precomposedStringWithCanonicalMapping)
            }
        case .canonicalDecomposed:
            Self.recompose(&text, unchangedBelow: 0xC0) { $0.decomposedStringWithCanonicalMapping }
        case .compatibilityComposed:
            Self.recompose(&text, unchangedBelow: 0xA0) {
                Self.composingHangul($0.precomposedStringWithCompatibilityMapping)
            }
        case .compatibilityDecomposed:
            Self.recompose(&text, unchangedBelow: 0xA0) {
                $0.decomposedStringWithCompatibilityMapping
            }
        case .lowercase:
            Self.lowercase(&text)
        case .strip(let left, let right):
            text = text.strippingWhitespace(left: left, right: right)
        case .stripAccents:
            Self.mapScalars(&text) { ScalarClass.isMark($0) ? nil : $0 }
        case .byteLevel:
            var output: [UInt8] = []
            output.reserveCapacity(text.count * 2)
            ByteAlphabet.encode(text, 0, text.count, into: &output)
            text = output
        case .nmt:
            Self.mapScalars(&text, Self.nmtMapping)
        case .bert(let rules):
            Self.applyBert(rules, &text)
        }
    }

    /// Normalizes unless every scalar is below a bound under which the form changes nothing.
    private static func recompose(
        _ text: inout [UInt8], unchangedBelow bound: UInt32, _ form: (String) -> String
    ) {
        var index = 0
        var needsForm = false
        var output: [UInt8] = []
        var start = 0
        while index < text.count {
            if text[index] < 0x80 {
                index += 1
                continue
            }
            let (scalar, length) = UTF8Bytes.scalar(text, at: index)
            if scalar.value >= bound { needsForm = true }
            if isJamoNeighbour(scalar) {
                output += form(String(decoding: text[start..<index], as: UTF8.self)).utf8
                output += text[index..<(index + length)]
                start = index + length
            }
            index += length
        }
        if !needsForm { return }
        output += form(String(decoding: text[start...], as: UTF8.self)).utf8
        text = output
    }

    /// The scalars just behind the ranges of composable Hangul jamo. Swift's composition takes them
    /// for members of those ranges; they are starters that compose with nothing, so a text may be
    /// normalized on both sides of them separately.
    private static func isJamoNeighbour(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value == 0x1113 || scalar.value == 0x1176 || scalar.value == 0x11A7
            || scalar.value == 0x11C3
    }

    /// Composes a Hangul syllable without a final consonant and the final consonant behind it, which
    /// Swift's composition leaves apart when the syllable was composed in the input.
    private static func composingHangul(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { isFinalJamo($0.value) }) else { return text }
        var output = String.UnicodeScalarView()
        var last: UInt32 = 0
        for scalar in text.unicodeScalars {
            let syllable = last &- 0xAC00
            if isFinalJamo(scalar.value), syllable < 11172, syllable % 28 == 0,
                let composed = Unicode.Scalar(last + scalar.value - 0x11A7)
            {
                output.removeLast()
                output.append(composed)
                last = composed.value
            } else {
                output.append(scalar)
                last = scalar.value
            }
        }
        return String(output)
    }

    private static func isFinalJamo(_ value: UInt32) -> Bool {
        value > 0x11A7 && value <= 0x11C2
    }

    /// Replaces each scalar by another one, or removes it.
    private static func mapScalars(
        _ text: inout [UInt8], _ transform: (Unicode.Scalar) -> Unicode.Scalar?
    ) {
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        var index = 0
        while index < text.count {
            let (scalar, length) = UTF8Bytes.scalar(text, at: index)
            if let mapped = transform(scalar) { UTF8Bytes.append(mapped, to: &output) }
            index += length
        }
        text = output
    }

    /// Scalar by scalar, without the rule for a final sigma, as the reference does.
    private static func lowercase(_ text: inout [UInt8]) {
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        var index = 0
        while index < text.count {
            let byte = text[index]
            if byte < 0x80 {
                output.append(byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte)
                index += 1
            } else {
                let (scalar, length) = UTF8Bytes.scalar(text, at: index)
                output.append(contentsOf: scalar.properties.lowercaseMapping.utf8)
                index += length
            }
        }
        text = output
    }

    private static func nmtMapping(_ scalar: Unicode.Scalar) -> Unicode.Scalar? {
        switch scalar.value {
        case 0x01...0x08, 0x0B, 0x0E...0x1F, 0x7F, 0x8F, 0x9F: nil
        case 0x09, 0x0A, 0x0C, 0x0D, 0x1680, 0x200B...0x200F, 0x2028, 0x2029, 0x2581, 0xFEFF,
            0xFFFD:
            " "
        default: scalar
        }
    }

    private static func applyBert(_ rules: BertRules, _ text: inout [UInt8]) {
        if rules.cleansText {
            mapScalars(&text) { scalar in
                if [9, 10, 13].contains(scalar.value) { return " " }
                if scalar.value == 0 || scalar.value == 0xFFFD || isOther(scalar) { return nil }
                return ScalarClass.isWhitespace(scalar) ? " " : scalar
            }
        }
        if rules.spacesChinese {
            var output: [UInt8] = []
            var index = 0
            while index < text.count {
                let (scalar, length) = UTF8Bytes.scalar(text, at: index)
                let isChinese = isChinese(scalar)
                if isChinese { output.append(0x20) }
                output.append(contentsOf: text[index..<(index + length)])
                if isChinese { output.append(0x20) }
                index += length
            }
            text = output
        }
        if rules.stripsAccents {
            Normalizer.canonicalDecomposed.apply(&text)
            mapScalars(&text) { $0.properties.generalCategory == .nonspacingMark ? nil : $0 }
        }
        if rules.lowercases { lowercase(&text) }
    }

    private static func isOther(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse: true
        default: false
        }
    }

    private static func isChinese(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F,
            0x2B740...0x2B81F, 0x2B920...0x2CEAF, 0xF900...0xFAFF, 0x2F800...0x2FA1F:
            true
        default: false
        }
    }
}

extension [UInt8] {
    /// Replaces every occurrence of a text, from the left.
    func replacing(text pattern: [UInt8], with content: [UInt8]) -> [UInt8] {
        guard let first = pattern.first else { return self }
        var output: [UInt8] = []
        output.reserveCapacity(count + count / 4)
        var index = 0
        while index < count {
            if self[index] == first, hasPrefix(pattern, at: index) {
                output.append(contentsOf: content)
                index += pattern.count
            } else {
                output.append(self[index])
                index += 1
            }
        }
        return output
    }

    func replacing(pattern: RegexPattern, with content: [UInt8]) -> [UInt8] {
        var output: [UInt8] = []
        var last = 0
        RegexPattern.Matcher(pattern).forEachMatch(in: self, 0, count) { low, high in
            output.append(contentsOf: self[last..<low])
            output.append(contentsOf: content)
            last = high
        }
        output.append(contentsOf: self[last...])
        return output
    }

    @inline(__always)
    func hasPrefix(_ prefix: [UInt8], at index: Int) -> Bool {
        guard index + prefix.count <= count else { return false }
        for offset in 0..<prefix.count where self[index + offset] != prefix[offset] {
            return false
        }
        return true
    }

    func strippingWhitespace(left: Bool, right: Bool) -> [UInt8] {
        var start = 0
        var end = count
        while left, start < end {
            let (scalar, length) = UTF8Bytes.scalar(self, at: start)
            if !ScalarClass.isWhitespace(scalar) { break }
            start += length
        }
        while right, end > start {
            let (scalar, length) = UTF8Bytes.scalar(self, before: end)
            if !ScalarClass.isWhitespace(scalar) { break }
            end -= length
        }
        return Array(self[start..<end])
    }
}
