import LorryTensor

/// One budget of memory for KV blocks and resident adapters, and the one policy that says what
/// leaves it.
///
/// A block is free, charged to an adapter, or has keys and values, which sequences hold and which
/// stay, cached, when nobody holds them. An adapter is charged in whole blocks: those are taken out
/// of use and the memory behind them is given back to the system, so that the process never uses
/// more than the budget, adapters of mixed sizes cause no fragmentation, and an adapter stays
/// contiguous.
///
/// What nobody uses stays until its room is wanted. Idle adapters and cached blocks leave in the
/// order of `EvictionPolicy`; of a prefix its last block first.
///
/// Owned by the engine thread.
package final class MemoryPool {
    package let blockByteCount: Int
    package let blockCount: Int
    var ledger: BlockLedger
    /// Nil where only the accounting is wanted.
    let memory: BlockArena?
    /// Nil where nothing is cached.
    let prefixes: PrefixIndex?
    var policy: EvictionPolicy
    /// Which adapters may be evicted at present to make room for keys and values.
    package var reach = EvictionReach.awaited
    /// Evicts the adapter of a slot, which is idle: its blocks must be free when this returns.
    var evictAdapter: (Int) -> Void = { _ in }
    package internal(set) var prefixStatistics = PrefixStatistics()

    /// - Parameters:
    ///   - cachesPrefixes: whether blocks stay for sequences that begin with the same tokens.
    ///   - eviction: what leaves first.
    ///   - hasMemory: false for accounting alone; nothing can be computed then.
    /// - Throws: `PoolError` where the budget holds no block, or the system does not give the
    ///   address space.
    package init(
        budgetByteCount: Int, blockByteCount: Int, cachesPrefixes: Bool = false,
        eviction: EvictionOrder = .gdsf, hasMemory: Bool = true
    ) throws(PoolError) {
        precondition(blockByteCount > 0)
        self.blockByteCount = blockByteCount
        blockCount = min(budgetByteCount / blockByteCount, Int(Int32.max) / 2)
        guard blockCount > 0 else {
            throw PoolError(
                "a memory budget of \(budgetByteCount) bytes holds no KV block of \(blockByteCount)"
            )
        }
        memory =
            hasMemory
            ? try BlockArena(blockCount: blockCount, blockByteCount: blockByteCount) : nil
        ledger = BlockLedger(blockCount: blockCount)
        prefixes = cachesPrefixes ? PrefixIndex(blockCount: blockCount) : nil
        policy = EvictionPolicy(
            blockCount: blockCount, blockByteCount: blockByteCount, order: eviction)
    }

    /// Block `i` starts at byte `i · blockByteCount`; nil for accounting alone.
    package var arena: UnsafeMutableRawPointer? { memory?.start }

    package var cachesPrefixes: Bool { prefixes != nil }
    package var freeCount: Int { ledger.freeCount }
    /// Blocks that sequences hold, each counted once.
    package var kvBlockCount: Int { ledger.heldCount }
    /// Blocks that are only kept for sequences to come.
    package var cachedBlockCount: Int { ledger.idleCount }
    package var adapterBlockCount: Int { ledger.chargedCount }

    /// Sequences that hold the block.
    package func holderCount(_ block: BlockID) -> Int { ledger.holderCount(block) }

    /// Blocks that are free or can be made so by evictions within `reach`.
    package func availableCount(_ reach: EvictionReach) -> Int {
        ledger.freeCount + ledger.idleCount + policy.adapterBlockCount(reach)
    }

    /// Blocks that an operand of this size is charged.
    package func blocks(forByteCount byteCount: Int) -> Int {
        (byteCount + blockByteCount - 1) / blockByteCount
    }

    // MARK: - Keys and values

    /// A block that is held once. Evicts what is least worth keeping where none is free.
    ///
    /// - Returns: nil where all are in use.
    package func allocateKVBlock() -> BlockID? {
        while ledger.freeCount == 0 { guard evictOne(reach) else { return nil } }
        guard let block = ledger.takeForKeysAndValues() else { return nil }
        memory?.willWrite(block)
        return block
    }

    package func hold(_ block: BlockID) {
        if !ledger.isHeld(block) { policy.withdraw(block) }
        ledger.hold(block)
    }

    /// Lets go of a block; where nobody else holds it, it is cached or free from now on.
    package func letGo(_ block: BlockID) {
        guard ledger.letGo(block), ledger.isCached(block), let prefixes else { return }
        guard !prefixes.isForgotten(prefixes.place(of: block)) else {
            dropForgotten(block)
            return
        }
        policy.note(block, tokenCount: prefixes.tokenCount(block))
        if prefixes.isLeaf(block) { policy.offer(block) }
    }

    /// Notes how long tokens took, which is what their blocks are worth.
    package func noteComputation(tokenCount: Int, _ duration: Duration) {
        policy.costs.noteComputation(tokenCount: tokenCount, duration)
    }

    // MARK: - Adapters

    /// Charges an adapter in whole blocks, which must be free, and gives their memory back.
    ///
    /// - Returns: nil where too few are free.
    package func reserveForAdapter(byteCount: Int) -> [BlockID]? {
        guard let blocks = ledger.charge(blocks(forByteCount: byteCount)) else { return nil }
        memory?.charge(blocks)
        return blocks
    }

    package func releaseFromAdapter(_ blocks: [BlockID]) {
        ledger.discharge(blocks)
        memory?.discharge(blocks)
    }

    /// Drops what is cached of an adapter version: at once what nobody holds, the rest when it is
    /// let go of. Sequences to come find nothing of it.
    package func forgetPrefixes(of adapter: AdapterVersionID) {
        guard let blocks = prefixes?.forget(adapter) else { return }
        for block in blocks where !ledger.isHeld(block) { drop(block) }
    }

    // MARK: - Eviction

    /// Evicts what is least worth keeping.
    ///
    /// - Parameter bound: nothing that is worth more, as `EvictionPolicy` says.
    /// - Returns: false where there is nothing.
    package func evictOne(_ reach: EvictionReach, below bound: Double = .infinity) -> Bool {
        switch policy.next(reach, below: bound) {
        case .block(let block):
            policy.willEvict(block)
            let parent = prefixes?.parent(of: block)
            drop(block)
            if let parent, !ledger.isHeld(parent), prefixes?.isLeaf(parent) == true {
                policy.offer(parent)
            }
            return true
        case .adapter(let slot):
            evictAdapter(slot)
            return true
        case nil: return false
        }
    }

    /// Frees a cached block that nobody holds and that has none below it.
    func drop(_ block: BlockID) {
        policy.withdraw(block)
        prefixes?.remove(block)
        ledger.clearCached(block)
    }

    /// Frees a block of a forgotten prefix, and those above it that it was the last to need.
    private func dropForgotten(_ block: BlockID) {
        var next: BlockID? = block
        while let block = next, !ledger.isHeld(block), prefixes?.isLeaf(block) == true {
            next = prefixes?.parent(of: block)
            drop(block)
        }
    }

    // MARK: - Checks

    /// Looks for a contradiction in what the pool notes: for tests, and after drains.
    ///
    /// - Complexity: O(blocks).
    /// - Returns: what is wrong, if anything.
    package func findFault() -> String? {
        if let fault = ledger.findFault() ?? policy.findFault() { return fault }
        guard let prefixes else { return ledger.idleCount == 0 ? nil : "blocks without an index" }
        if let fault = prefixes.findFault(isCached: { ledger.isCached($0) }) { return fault }
        for number in 0..<blockCount {
            let block = BlockID(number)
            let isIdle = ledger.isCached(block) && !ledger.isHeld(block)
            guard policy.isOffered(block) == (isIdle && prefixes.isLeaf(block)) else {
                return "block \(number) is to be evicted, or is not"
            }
            guard let parent = prefixes.parent(of: block) else { continue }
            guard ledger.isHeld(parent) || !ledger.isHeld(block) else {
                return "block \(number) is held, and \(parent.number) above it is not"
            }
        }
        return nil
    }

    /// Traps where the pool's notes contradict each other.
    package func checkInvariants() {
        if let fault = findFault() { preconditionFailure(fault) }
    }
}

/// What the prefix cache has done.
package struct PrefixStatistics: Equatable, Sendable {
    /// Tokens of prompts that were looked up.
    package var queriedTokenCount = 0
    /// Of those, tokens whose keys and values were there.
    package var foundTokenCount = 0
}
