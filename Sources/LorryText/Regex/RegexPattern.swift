import CPCRE2

/// A compiled regular expression of a tokenizer file, in Oniguruma's syntax as its authors meant it.
///
/// Safe because compiled code is not changed after `init`, which PCRE2 documents as usable from
/// several threads at once; what a match changes belongs to a `Matcher`.
final class RegexPattern: @unchecked Sendable {
    /// Memory that matching may take beyond the stack, in KiB.
    private static let heapLimit: UInt32 = 256 * 1024

    private let code: OpaquePointer
    let source: String

    /// - Throws: `TokenizerError` with the pattern when it cannot be translated or compiled.
    init(_ source: String) throws(TokenizerError) {
        self.source = source
        let pattern = try OnigurumaPattern.translate(source)
        let options = UInt32(PCRE2_UTF) | UInt32(PCRE2_UCP) | UInt32(PCRE2_MULTILINE)
        var code: Int32 = 0
        var offset = 0
        let utf8 = Array(pattern.utf8)
        guard let compiled = pcre2_compile_8(utf8, utf8.count, options, &code, &offset, nil) else {
            throw .unsupported(
                "tokenizer.json: the pattern \(source) does not compile (error \(code) at \(offset))"
            )
        }
        self.code = compiled
        // Where the just-in-time compiler is missing, matching is interpreted: slower, the same.
        pcre2_jit_compile_8(compiled, UInt32(PCRE2_JIT_COMPLETE))
    }

    deinit {
        pcre2_code_free_8(code)
    }

    /// Match state for one thread.
    final class Matcher {
        private let pattern: RegexPattern
        private let data: OpaquePointer?
        private let context: OpaquePointer?

        init(_ pattern: RegexPattern) {
            self.pattern = pattern
            data = pcre2_match_data_create_from_pattern_8(pattern.code, nil)
            context = pcre2_match_context_create_8(nil)
            if let context {
                pcre2_set_match_limit_8(context, .max)
                pcre2_set_depth_limit_8(context, .max)
                pcre2_set_heap_limit_8(context, RegexPattern.heapLimit)
            }
        }

        deinit {
            if let data { pcre2_match_data_free_8(data) }
            if let context { pcre2_match_context_free_8(context) }
        }

        /// Calls `body` with each match inside `bytes[start..<end]`, which must be valid UTF-8. What
        /// lies outside that range is invisible to look-around, as each piece is a text of its own.
        /// Matching that would need more memory than allowed ends the search.
        func forEachMatch(
            in bytes: [UInt8], _ start: Int, _ end: Int, _ body: (Int, Int) -> Void
        ) {
            guard let data, start < end else { return }
            let length = end - start
            // Safe because the range is checked against the array by `rebasing`, and PCRE2 reads
            // `length` bytes only.
            bytes.withUnsafeBufferPointer { buffer in
                let subject = UnsafeBufferPointer(rebasing: buffer[start..<end])
                guard let base = subject.baseAddress else { return }
                var from = 0
                var lastEnd = -1
                while from <= length {
                    guard match(base, length, from, data),
                        let vector = pcre2_get_ovector_pointer_8(data)
                    else { return }
                    let low = vector[0]
                    let high = vector[1]
                    if low >= high {
                        from = high + (high < length ? UTF8Bytes.length(lead: subject[high]) : 1)
                        // An empty match right behind the last one does not count.
                        if lastEnd == high { continue }
                    } else {
                        from = high
                    }
                    lastEnd = high
                    body(start + low, start + high)
                }
            }
        }

        private func match(
            _ base: UnsafePointer<UInt8>, _ length: Int, _ from: Int, _ data: OpaquePointer
        ) -> Bool {
            let options = UInt32(PCRE2_NO_UTF_CHECK)
            var result = pcre2_match_8(pattern.code, base, length, from, options, data, context)
            if result == PCRE2_ERROR_JIT_STACKLIMIT {
                // The interpreter keeps its state on the heap.
                result = pcre2_match_8(
                    pattern.code, base, length, from, options | UInt32(PCRE2_NO_JIT), data, context)
            }
            return result >= 0
        }
    }
}
