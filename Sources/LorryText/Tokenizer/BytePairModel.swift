/// A byte-pair-encoding model: splits a piece into scalars and merges neighbours by rank.
///
/// Follows the `BPE` model of Hugging Face's tokenizers (models/bpe) in every option but dropout.
struct BytePairModel: Sendable {
    struct Options: Sendable {
        var unknownToken: [UInt8]?
        var subwordPrefix: [UInt8] = []
        var wordSuffix: [UInt8] = []
        var fusesUnknown = false
        var fallsBackToBytes = false
        var ignoresMerges = false
    }

    let vocabulary: Vocabulary
    let merges: MergeTable
    let options: Options
    private let unknownID: Int32
    /// Ids of `<0x00>` … `<0xFF>`; -1 where the vocabulary has none.
    private let byteIDs: [Int32]
    /// Ids of one-scalar tokens below U+0800; -1 where the vocabulary has none.
    private let scalarIDs: [Int32]
    /// Set when no merge reaches across the left edge of this scalar's runs ("▁" in SentencePiece
    /// models), so that a long piece may be encoded word by word with the same result.
    private let wordStart: [UInt8]

    init(vocabulary: Vocabulary, merges: MergeTable, options: Options, mergedIDs: [Int32]) {
        self.vocabulary = vocabulary
        self.merges = merges
        self.options = options
        unknownID = options.unknownToken.flatMap { vocabulary.id(of: $0) } ?? -1
        byteIDs = (0..<256).map { byte in
            let digits = Array("0123456789ABCDEF".utf8)
            let name = Array("<0x".utf8) + [digits[byte >> 4], digits[byte & 15]] + Array(">".utf8)
            return vocabulary.id(of: name) ?? -1
        }
        scalarIDs = (UInt32(0)..<0x800).map { value in
            guard let scalar = Unicode.Scalar(value) else { return -1 }
            return vocabulary.id(of: UTF8Bytes.bytes(of: scalar)) ?? -1
        }
        wordStart = Self.wordStart(vocabulary: vocabulary, options: options, mergedIDs: mergedIDs)
    }

    private static func wordStart(
        vocabulary: Vocabulary, options: Options, mergedIDs: [Int32]
    ) -> [UInt8] {
        let mark = UTF8Bytes.bytes(of: "\u{2581}")
        guard vocabulary.id(of: mark) != nil, options.subwordPrefix.isEmpty,
            options.wordSuffix.isEmpty, !options.ignoresMerges
        else { return [] }
        for id in mergedIDs {
            guard let token = vocabulary.bytes(of: Int(id)) else { continue }
            var index = token.startIndex
            var sawOther = false
            while index < token.endIndex {
                let end = index + UTF8Bytes.length(lead: token[index])
                let isMark = end <= token.endIndex && token[index..<end].elementsEqual(mark)
                if isMark && sawOther { return [] }
                sawOther = sawOther || !isMark
                index = end
            }
        }
        return mark
    }

    /// Appends the ids of `bytes[start..<end]`, valid UTF-8 that is one piece of pre-tokenized text.
    /// - Complexity: O(n log n) in the piece's length.
    func encode(
        _ bytes: [UInt8], _ start: Int, _ end: Int, scratch: inout EncodingScratch,
        into output: inout [Int32]
    ) {
        guard !wordStart.isEmpty else {
            encodeWord(bytes, start, end, scratch: &scratch, into: &output)
            return
        }
        var word = start
        var index = start
        var previousIsMark = true
        while index < end {
            let isMark = isWordStart(bytes, index, end)
            if isMark && !previousIsMark {
                encodeWord(bytes, word, index, scratch: &scratch, into: &output)
                word = index
            }
            previousIsMark = isMark
            index += UTF8Bytes.length(lead: bytes[index])
        }
        encodeWord(bytes, word, end, scratch: &scratch, into: &output)
    }

    @inline(__always)
    private func isWordStart(_ bytes: [UInt8], _ index: Int, _ end: Int) -> Bool {
        guard bytes[index] == wordStart[0], index + wordStart.count <= end else { return false }
        for offset in 1..<wordStart.count where bytes[index + offset] != wordStart[offset] {
            return false
        }
        return true
    }

    private func encodeWord(
        _ bytes: [UInt8], _ start: Int, _ end: Int, scratch: inout EncodingScratch,
        into output: inout [Int32]
    ) {
        if start >= end { return }
        if options.ignoresMerges {
            let id = vocabulary.id(of: bytes, start, end)
            if id >= 0 {
                output.append(id)
                return
            }
        }
        if scratch.cache.append(bytes, start, end, to: &output) { return }
        let first = output.count
        split(bytes, start, end, into: &scratch.symbols)
        merges.merge(&scratch)
        output.append(contentsOf: scratch.symbols)
        scratch.cache.store(bytes, start, end, ids: output, from: first)
    }

    /// The ids of the piece's scalars, with the rules for unknown ones.
    private func split(_ bytes: [UInt8], _ start: Int, _ end: Int, into symbols: inout [Int32]) {
        symbols.removeAll(keepingCapacity: true)
        let isPlain = options.subwordPrefix.isEmpty && options.wordSuffix.isEmpty
        var pendingUnknown = false
        var index = start
        while index < end {
            let length = min(UTF8Bytes.length(lead: bytes[index]), end - index)
            var id: Int32
            var affixed: [UInt8] = []
            if isPlain {
                id = scalarID(bytes, index, length)
            } else {
                if index > start { affixed = options.subwordPrefix }
                affixed.append(contentsOf: bytes[index..<(index + length)])
                if index + length >= end { affixed.append(contentsOf: options.wordSuffix) }
                id = vocabulary.id(of: affixed, 0, affixed.count)
            }
            if id >= 0 {
                if pendingUnknown { symbols.append(unknownID) }
                pendingUnknown = false
                symbols.append(id)
            } else if isPlain, appendBytes(bytes, index, index + length, to: &symbols) {
                // An unknown scalar before stays pending here, as in the reference.
            } else if !isPlain, appendBytes(affixed, 0, affixed.count, to: &symbols) {
            } else if unknownID >= 0 {
                if pendingUnknown && !options.fusesUnknown { symbols.append(unknownID) }
                pendingUnknown = true
            }
            index += length
        }
        if pendingUnknown { symbols.append(unknownID) }
    }

    @inline(__always)
    private func scalarID(_ bytes: [UInt8], _ index: Int, _ length: Int) -> Int32 {
        switch length {
        case 1: scalarIDs[Int(bytes[index]) & 0x7F]
        case 2: scalarIDs[Int(bytes[index] & 0x1F) << 6 | Int(bytes[index + 1] & 0x3F)]
        default: vocabulary.id(of: bytes, index, index + length)
        }
    }

    private func appendBytes(
        _ bytes: [UInt8], _ start: Int, _ end: Int, to symbols: inout [Int32]
    ) -> Bool {
        guard options.fallsBackToBytes else { return false }
        for index in start..<end where byteIDs[Int(bytes[index])] < 0 { return false }
        for index in start..<end { symbols.append(byteIDs[Int(bytes[index])]) }
        return true
    }
}

extension MergeTable {
    /// From here on a heap is faster than looking for the smallest rank among all pairs.
    private static let heapThreshold = 40

    /// Merges `scratch.symbols` in place: always the pair of lowest rank, the leftmost first.
    func merge(_ scratch: inout EncodingScratch) {
        let count = scratch.symbols.count
        if count < 2 { return }
        if count < Self.heapThreshold {
            mergeShort(&scratch.symbols, &scratch.pairs)
        } else {
            mergeLong(&scratch)
        }
    }

    private func mergeShort(_ symbols: inout [Int32], _ pairs: inout [UInt64]) {
        pairs.removeAll(keepingCapacity: true)
        for index in 0..<(symbols.count - 1) {
            pairs.append(lookup(symbols[index], symbols[index + 1]))
        }
        while true {
            var best = Self.none
            var position = 0
            // Merged ids follow from ranks, so comparing whole entries compares ranks.
            for index in 0..<pairs.count where pairs[index] < best {
                best = pairs[index]
                position = index
            }
            if best == Self.none { return }
            symbols[position] = Int32(truncatingIfNeeded: best)
            symbols.remove(at: position + 1)
            pairs.remove(at: position)
            if position > 0 {
                pairs[position - 1] = lookup(symbols[position - 1], symbols[position])
            }
            if position < pairs.count {
                pairs[position] = lookup(symbols[position], symbols[position + 1])
            }
        }
    }

    private func mergeLong(_ scratch: inout EncodingScratch) {
        let count = scratch.symbols.count
        scratch.prepareLinks(count)
        for index in 0..<(count - 1) {
            let pair = lookup(scratch.symbols[index], scratch.symbols[index + 1])
            scratch.pairs[index] = pair
            if pair != Self.none { scratch.push((pair >> 32) << 32 | UInt64(index)) }
        }
        while let top = scratch.pop() {
            let position = Int(top & 0xFFFF_FFFF)
            let pair = scratch.pairs[position]
            // An entry is stale when its pair has changed or gone since it was pushed.
            if pair == Self.none || pair >> 32 != top >> 32 { continue }
            let right = Int(scratch.next[position])
            let after = Int(scratch.next[right])
            scratch.symbols[position] = Int32(truncatingIfNeeded: pair)
            scratch.symbols[right] = EncodingScratch.removed
            scratch.pairs[right] = Self.none
            scratch.next[position] = Int32(after)
            if after < count { scratch.previous[after] = Int32(position) }
            let before = Int(scratch.previous[position])
            if before >= 0 { refresh(before, position, &scratch) }
            if after < count {
                refresh(position, after, &scratch)
            } else {
                scratch.pairs[position] = Self.none
            }
        }
        scratch.symbols.removeAll { $0 == EncodingScratch.removed }
    }

    @inline(__always)
    private func refresh(_ left: Int, _ right: Int, _ scratch: inout EncodingScratch) {
        let pair = lookup(scratch.symbols[left], scratch.symbols[right])
        scratch.pairs[left] = pair
        if pair != Self.none { scratch.push((pair >> 32) << 32 | UInt64(left)) }
    }
}
