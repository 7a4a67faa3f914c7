import LorryTensor

// Blocks of sequences: what is there already is shared, the rest allocated as tokens are computed.
extension MemoryPool {
    /// Tokens that must be the same for a part of a block to be copied rather than computed.
    static let leastCopiedTokenCount = 4

    /// Blocks that the sequence needs to compute all that it has and sample its next token.
    package static func requiredBlockCount(_ sequence: TokenSequence) -> Int {
        blockCount(forTokens: sequence.tokens.count + 1)
    }

    package static func blockCount(forTokens count: Int) -> Int {
        (count + KVLayout.blockSize - 1) / KVLayout.blockSize
    }

    /// Takes up a sequence that has no blocks, if there is room for all that it has. Gives it the
    /// blocks that are there for its first tokens; the others follow as `grow` asks for them. At
    /// least its last token remains to be computed.
    ///
    /// - Parameters:
    ///   - scope: what its keys and values depend on; nil where they are not to be shared.
    ///   - spareBlockCount: blocks that must be left for others.
    /// - Returns: false where there is too little room, and nothing was changed.
    package func admit(
        _ sequence: TokenSequence, scope: PrefixScope?, sparing spareBlockCount: Int
    ) -> Bool {
        precondition(sequence.blocks.isEmpty, "the sequence has blocks already")
        let required = Self.requiredBlockCount(sequence) + spareBlockCount
        guard let index = prefixes, let scope else {
            guard availableCount(reach) >= required else { return false }
            // What it finds when it is admitted again was its own.
            sequence.cachedTokenCount = sequence.cachedTokenCount ?? 0
            return true
        }
        let root = index.open(scope)
        let match = Self.match(sequence, root, index)
        let idle = match.blocks.reduce(0) { $0 + (ledger.isHeld($1) ? 0 : 1) }
        guard availableCount(reach) - idle >= required - match.blocks.count else {
            index.close(root)
            return false
        }
        for block in match.blocks {
            hold(block)
            policy.noteUse(block)
            sequence.addBlock(block)
        }
        sequence.prefix = .init(
            root: root, place: match.place, blockCount: match.blocks.count)
        sequence.didCompute(match.blocks.count * KVLayout.blockSize)
        if let part = match.part { copy(part.block, part.tokenCount, to: sequence) }
        countLookup(sequence)
        return true
    }

    /// Gives the sequence blocks for its first `tokenCount` tokens. What was given stays with it
    /// where blocks run out.
    package func grow(_ sequence: TokenSequence, upTo tokenCount: Int) -> Bool {
        let count = Self.blockCount(forTokens: tokenCount)
        while sequence.blocks.count < count {
            guard let block = allocateKVBlock() else { return false }
            sequence.addBlock(block)
        }
        return true
    }

    /// Caches the sequence's blocks that have become full. Where another sequence was first, the
    /// sequence goes on with that one's block, whose bits are the same.
    package func publish(_ sequence: TokenSequence) {
        guard var prefix = sequence.prefix, let index = prefixes, !index.isForgotten(prefix.root)
        else { return }
        let size = KVLayout.blockSize
        while (prefix.blockCount + 1) * size
            <= min(sequence.computedCount, sequence.shareableCount)
        {
            let start = prefix.blockCount * size
            let tokens = sequence.tokens[start..<start + size]
            let own = sequence.blocks[prefix.blockCount]
            if let found = index.find(tokens, below: prefix.place) {
                hold(found)
                letGo(own)
                sequence.replaceBlock(at: prefix.blockCount, by: found)
                prefix.place = index.place(of: found)
            } else {
                cache(own, tokens, below: prefix.place)
                prefix.place = index.place(of: own)
            }
            prefix.blockCount += 1
        }
        sequence.prefix = prefix
    }

    /// Gives a sequence whose prompt is under way the blocks that others have computed meanwhile.
    package func catchUp(_ sequence: TokenSequence) {
        guard var prefix = sequence.prefix, let index = prefixes, !index.isForgotten(prefix.root)
        else { return }
        let size = KVLayout.blockSize
        while (prefix.blockCount + 1) * size < sequence.tokens.count,
            (prefix.blockCount + 1) * size <= sequence.shareableCount,
            prefix.blockCount * size <= sequence.computedCount
        {
            let start = prefix.blockCount * size
            let tokens = sequence.tokens[start..<start + size]
            guard let found = index.find(tokens, below: prefix.place) else { break }
            hold(found)
            policy.noteUse(found)
            if prefix.blockCount < sequence.blocks.count {
                letGo(sequence.blocks[prefix.blockCount])
                sequence.replaceBlock(at: prefix.blockCount, by: found)
            } else {
                sequence.addBlock(found)
            }
            sequence.didCompute(max(start + size - sequence.computedCount, 0))
            prefix.place = index.place(of: found)
            prefix.blockCount += 1
        }
        sequence.prefix = prefix
    }

    /// Lets go of all blocks of a sequence. What was computed stays cached.
    package func release(_ sequence: TokenSequence) {
        publish(sequence)
        if let prefix = sequence.prefix {
            cacheLastPart(sequence, prefix)
            prefixes?.close(prefix.root)
        }
        // The last block first, so that it is also the first to be evicted.
        for block in sequence.blocks.reversed() { letGo(block) }
        sequence.forgetBlocks()
    }

    // MARK: -

    /// What is there of a sequence's tokens.
    private struct Match {
        var blocks: [BlockID] = []
        var place: PrefixIndex.Place
        /// A block of which only the first tokens are the sequence's next ones.
        var part: (block: BlockID, tokenCount: Int)?
    }

    private static func match(
        _ sequence: TokenSequence, _ root: PrefixIndex.Place, _ index: PrefixIndex
    ) -> Match {
        var match = Match(place: root)
        let size = KVLayout.blockSize
        // The last token's logits are wanted, so it is computed in any case.
        let limit = min(sequence.tokens.count - 1, sequence.shareableCount)
        var start = 0
        while start + size <= limit,
            let block = index.find(sequence.tokens[start..<start + size], below: match.place)
        {
            match.blocks.append(block)
            match.place = index.place(of: block)
            start += size
        }
        let rest = sequence.tokens[start..<min(start + size, limit)]
        if rest.count >= leastCopiedTokenCount,
            let part = index.findStart(of: rest, below: match.place),
            part.tokenCount >= leastCopiedTokenCount
        {
            match.part = part
        }
        return match
    }

    /// Gives the sequence a block of its own with the first tokens of another, where one is to be
    /// had.
    private func copy(_ source: BlockID, _ tokenCount: Int, to sequence: TokenSequence) {
        hold(source)
        policy.noteUse(source)
        if let block = allocateKVBlock() {
            memory?.copy(source, to: block)
            sequence.addBlock(block)
            sequence.didCompute(tokenCount)
        }
        letGo(source)
    }

    private func countLookup(_ sequence: TokenSequence) {
        guard sequence.cachedTokenCount == nil else { return }
        sequence.cachedTokenCount = sequence.computedCount
        prefixStatistics.queriedTokenCount += sequence.promptCount
        prefixStatistics.foundTokenCount += sequence.computedCount
    }

    private func cache(
        _ block: BlockID, _ tokens: ArraySlice<Int32>, below place: PrefixIndex.Place
    ) {
        // A block with a part of these tokens is of no use any more.
        while let part = prefixes?.covered(by: tokens, below: place), !ledger.isHeld(part) {
            drop(part)
        }
        // Its parent has a block below it from now on, and is held by the same sequence.
        prefixes?.insert(block, tokens, below: place)
        ledger.setCached(block)
        policy.begin(block)
    }

    /// Caches the tokens of the block that did not become full.
    private func cacheLastPart(_ sequence: TokenSequence, _ prefix: TokenSequence.Prefix) {
        let start = prefix.blockCount * KVLayout.blockSize
        let end = min(sequence.computedCount, sequence.shareableCount)
        guard end - start >= Self.leastCopiedTokenCount,
            prefix.blockCount < sequence.blocks.count, let index = prefixes,
            !index.isForgotten(prefix.root)
        else { return }
        let tokens = sequence.tokens[start..<end]
        // The same part may be older than those that are looked through below.
        if index.find(tokens, below: prefix.place) != nil { return }
        if let known = index.findStart(of: tokens, below: prefix.place),
            known.tokenCount == tokens.count
        {
            return
        }
        cache(sequence.blocks[prefix.blockCount], tokens, below: prefix.place)
    }
}
