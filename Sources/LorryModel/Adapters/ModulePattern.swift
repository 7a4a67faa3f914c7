import CPCRE2

/// A Python regular expression of an adapter's configuration, matched against module paths.
///
/// Such patterns come from outside: PCRE2's match limit bounds the time that one may take.
package struct ModulePattern {
    /// A pattern that cannot be compiled, or whose match took too many steps.
    package struct Failure: Error {
        let reason: String
    }

    private let code: CompiledPattern
    private static let matchLimit: UInt32 = 100_000

    /// - Parameter anchoring: `.start` matches as Python's `re.match`, `.both` as `re.fullmatch`.
    package init(_ source: String, anchoring: Anchoring) throws(Failure) {
        var options = PCRE2_UTF | PCRE2_ANCHORED
        if anchoring == .both { options |= PCRE2_ENDANCHORED }
        var errorCode: Int32 = 0
        var errorOffset = 0
        let compiled = Array(source.utf8).withUnsafeBufferPointer { bytes in
            pcre2_compile_8(
                bytes.baseAddress, bytes.count, options, &errorCode, &errorOffset, nil)
        }
        guard let compiled else {
            throw Failure(reason: "is no valid pattern: \(Self.message(errorCode))")
        }
        code = CompiledPattern(compiled)
    }

    package enum Anchoring { case start, both }

    package func matches(_ text: String) throws(Failure) -> Bool { try captures(text) != nil }

    /// The text of each group, nil for one that took no part; nil where the text does not match.
    package func captures(_ text: String) throws(Failure) -> [String?]? {
        let utf8 = Array(text.utf8)
        guard let data = pcre2_match_data_create_from_pattern_8(code.pointer, nil) else {
            throw Failure(reason: "ran out of memory")
        }
        defer { pcre2_match_data_free_8(data) }
        guard let context = pcre2_match_context_create_8(nil) else {
            throw Failure(reason: "ran out of memory")
        }
        defer { pcre2_match_context_free_8(context) }
        pcre2_set_match_limit_8(context, Self.matchLimit)
        let count = utf8.withUnsafeBufferPointer { bytes in
            pcre2_match_8(code.pointer, bytes.baseAddress, bytes.count, 0, 0, data, context)
        }
        if count == PCRE2_ERROR_NOMATCH { return nil }
        guard count > 0, let offsets = pcre2_get_ovector_pointer_8(data) else {
            throw Failure(reason: "took too many steps: \(Self.message(count))")
        }
        // Safe because PCRE2 has filled `count` pairs of offsets into the bytes of the text.
        return (0..<Int(count)).map { group in
            let (start, end) = (offsets[2 * group], offsets[2 * group + 1])
            // A group that took no part has PCRE2_UNSET, which is -1 as an Int, for both.
            guard 0 <= start, start <= end, end <= utf8.count else { return nil }
            return String(decoding: utf8[start..<end], as: UTF8.self)
        }
    }

    private static func message(_ code: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 200)
        let length = buffer.withUnsafeMutableBufferPointer { bytes in
            pcre2_get_error_message_8(code, bytes.baseAddress, bytes.count)
        }
        return String(decoding: buffer.prefix(max(0, Int(length))), as: UTF8.self)
    }
}

/// Owns PCRE2's compiled code, which is immutable and freed with this object.
private final class CompiledPattern: @unchecked Sendable {
    package let pointer: OpaquePointer
    package init(_ pointer: OpaquePointer) { self.pointer = pointer }
    deinit { pcre2_code_free_8(pointer) }
}
