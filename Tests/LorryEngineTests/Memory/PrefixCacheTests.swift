import LorryEngine
import LorryTensor
import Testing

/// A pool and sequences, driven without a model. Each block has, for every token, a number that
/// stands for its keys and values: it depends on the scope and on all tokens so far, so that whoever
/// shares a block wrongly finds wrong numbers.
final class CacheBench {
    let pool: MemoryPool
    private var nextID: UInt64 = 1

    init(blockCount: Int) throws {
        let byteCount = KVLayout.blockSize * MemoryLayout<UInt64>.size
        pool = try MemoryPool(
            budgetByteCount: blockCount * byteCount, blockByteCount: byteCount,
            cachesPrefixes: true)
    }

    func sequence(_ tokens: [Int32]) -> TokenSequence {
        let sequence = TokenSequence(
            id: SequenceID(value: nextID),
            request: GenerationRequest(id: "test", promptTokens: tokens, maximumTokenCount: 1000),
            channel: EventChannel(capacity: 8) { _ in },
            limits: .init(tokenCount: 10_000, endTokens: []), submitted: .now)
        nextID += 1
        return sequence
    }

    static func scope(_ adapter: String? = nil, tenant: String = "t", salt: String = "")
        -> PrefixScope
    {
        PrefixScope(adapter: adapter.map { .init($0) }, tenant: tenant, salt: salt)
    }

    /// Admits a sequence and checks what it was given.
    func admit(_ sequence: TokenSequence, _ scope: PrefixScope, sparing: Int = 0) throws -> Bool {
        guard pool.admit(sequence, scope: scope, sparing: sparing) else {
            #expect(sequence.blocks.isEmpty && sequence.computedCount == 0)
            return false
        }
        #expect(sequence.computedCount < sequence.tokens.count)
        try check(sequence, scope)
        return true
    }

    /// Computes some tokens more, as far as there is room.
    func compute(_ sequence: TokenSequence, _ scope: PrefixScope, count: Int) throws -> Bool {
        let end = min(sequence.computedCount + count, sequence.tokens.count)
        guard pool.grow(sequence, upTo: end) else { return false }
        for position in sequence.computedCount..<end {
            let block = sequence.blocks[position / KVLayout.blockSize]
            // Others read what is cached.
            #expect(pool.holderCount(block) == 1, "a block that is shared is written")
            try slots(block)[position % KVLayout.blockSize] = Self.content(
                sequence.tokens[...position], scope)
        }
        sequence.didCompute(end - sequence.computedCount)
        pool.publish(sequence)
        return true
    }

    func run(_ sequence: TokenSequence, _ scope: PrefixScope) throws {
        #expect(try admit(sequence, scope))
        #expect(try compute(sequence, scope, count: .max / 2))
        pool.release(sequence)
    }

    /// The numbers of all computed tokens must be those that the sequence itself would write.
    func check(_ sequence: TokenSequence, _ scope: PrefixScope) throws {
        for position in 0..<sequence.computedCount {
            let block = sequence.blocks[position / KVLayout.blockSize]
            let found = try slots(block)[position % KVLayout.blockSize]
            let isRight = found == Self.content(sequence.tokens[...position], scope)
            #expect(isRight, "position \(position) of \(sequence.tokens.count)")
        }
    }

    private func slots(_ block: BlockID) throws -> UnsafeMutablePointer<UInt64> {
        try #require(pool.arena).assumingMemoryBound(to: UInt64.self)
            + Int(block.index) * KVLayout.blockSize
    }

    private static func content(_ tokens: ArraySlice<Int32>, _ scope: PrefixScope) -> UInt64 {
        var hasher = Hasher()
        hasher.combine(scope)
        hasher.combine(tokens)
        return UInt64(bitPattern: Int64(hasher.finalize())) | 1
    }
}

@Suite struct PrefixCacheTests {
    private let scope = CacheBench.scope()

    private func tokens(_ count: Int, from start: Int32 = 100) -> [Int32] {
        (0..<Int32(count)).map { start + $0 }
    }

    @Test func sharesWholeBlocksAndCopiesParts() throws {
        let bench = try CacheBench(blockCount: 40)
        let first = bench.sequence(tokens(60))
        try bench.run(first, scope)
        #expect(first.cachedTokenCount == 0)
        #expect(bench.pool.kvBlockCount == 0)
        #expect(bench.pool.cachedBlockCount == 4, "three full ones and one of twelve tokens")

        // The same again: all but the last token is there, the last block as a copy.
        let same = bench.sequence(tokens(60))
        #expect(try bench.admit(same, scope))
        #expect(same.computedCount == 59)
        #expect(bench.pool.kvBlockCount == 4)
        #expect(bench.pool.cachedBlockCount == 1)

        // Goes another way within the second block.
        let other = bench.sequence(tokens(25) + tokens(30, from: 900))
        #expect(try bench.admit(other, scope))
        #expect(other.computedCount == 25)
        // Three tokens of the second block are not worth a copy.
        let short = bench.sequence(tokens(19) + tokens(30, from: 900))
        #expect(try bench.admit(short, scope))
        #expect(short.computedCount == 16)
        for sequence in [same, other, short] {
            #expect(try bench.compute(sequence, scope, count: 100))
            bench.pool.release(sequence)
            bench.pool.checkInvariants()
        }
        #expect(bench.pool.kvBlockCount == 0)
        #expect(bench.pool.prefixStatistics.queriedTokenCount == 224)
        #expect(bench.pool.prefixStatistics.foundTokenCount == 100)
    }

    /// Only the newest parts are looked through for a start, but the same part is found however old
    /// it is: it would be in the cache twice.
    @Test func theSamePartIsKeptOnceAlsoAmongMany() throws {
        let bench = try CacheBench(blockCount: 40)
        let scope = CacheBench.scope()
        for number in Array(0..<12) + [0] {
            let sequence = bench.sequence((0..<9).map { Int32(100 * number + $0) } + [7])
            #expect(try bench.admit(sequence, scope))
            #expect(try bench.compute(sequence, scope, count: 9))
            bench.pool.release(sequence)
            bench.pool.checkInvariants()
        }
    }

    @Test func theLastTokenIsAlwaysComputed() throws {
        let bench = try CacheBench(blockCount: 40)
        try bench.run(bench.sequence(tokens(64)), scope)
        let same = bench.sequence(tokens(32))
        #expect(try bench.admit(same, scope))
        #expect(same.computedCount == 31, "one shared block, and a copy of the second's start")
        bench.pool.release(same)
        bench.pool.checkInvariants()
    }

    /// A conversation: each turn begins with all that was said.
    @Test func answersAreFoundInTheNextTurn() throws {
        let bench = try CacheBench(blockCount: 40)
        let turn = bench.sequence(tokens(20))
        #expect(try bench.admit(turn, scope))
        #expect(try bench.compute(turn, scope, count: 20))
        for token in tokens(40, from: 500) {
            turn.append(token)
            #expect(try bench.compute(turn, scope, count: 1))
        }
        bench.pool.release(turn)
        let next = bench.sequence(tokens(20) + tokens(40, from: 500) + tokens(9, from: 700))
        #expect(try bench.admit(next, scope))
        #expect(next.computedCount == 60)
        bench.pool.release(next)
    }

    @Test func scopesShareNothing() throws {
        let bench = try CacheBench(blockCount: 40)
        try bench.run(bench.sequence(tokens(40)), scope)
        for other in [
            CacheBench.scope("adapter"), CacheBench.scope(tenant: "u"), CacheBench.scope(salt: "s"),
        ] {
            let sequence = bench.sequence(tokens(40))
            #expect(try bench.admit(sequence, other))
            #expect(sequence.computedCount == 0)
            bench.pool.release(sequence)
        }
        bench.pool.checkInvariants()
    }

    /// Two that compute the same side by side end up with the same blocks.
    @Test func whoComesSecondGoesOnWithTheFirstOnesBlocks() throws {
        let bench = try CacheBench(blockCount: 40)
        let pair = [bench.sequence(tokens(50)), bench.sequence(tokens(50))]
        for sequence in pair { #expect(try bench.admit(sequence, scope)) }
        for sequence in pair { #expect(try bench.compute(sequence, scope, count: 40)) }
        #expect(pair[0].blocks.prefix(2) == pair[1].blocks.prefix(2))
        #expect(bench.pool.kvBlockCount == 4)
        for sequence in pair {
            #expect(try bench.compute(sequence, scope, count: 40))
            try bench.check(sequence, scope)
            bench.pool.release(sequence)
            bench.pool.checkInvariants()
        }
        #expect(bench.pool.kvBlockCount == 0)
    }

    /// A long prompt that several wait for at once is computed by the first of them.
    @Test func whoIsBehindCatchesUp() throws {
        let bench = try CacheBench(blockCount: 40)
        let first = bench.sequence(tokens(100))
        let second = bench.sequence(tokens(100))
        for sequence in [first, second] { #expect(try bench.admit(sequence, scope)) }
        #expect(try bench.compute(second, scope, count: 20))
        #expect(try bench.compute(first, scope, count: 90))
        bench.pool.catchUp(second)
        #expect(second.computedCount == 80)
        #expect(second.blocks == Array(first.blocks.prefix(5)))
        try bench.check(second, scope)
        #expect(try bench.compute(second, scope, count: 20))
        bench.pool.catchUp(second)
        #expect(second.computedCount == 100, "nothing is left to catch up with")
        for sequence in [first, second] { bench.pool.release(sequence) }
        #expect(bench.pool.kvBlockCount == 0)
        bench.pool.checkInvariants()
    }

    @Test func aForgottenVersionsBlocksGoAtOnce() throws {
        let bench = try CacheBench(blockCount: 40)
        let adapted = CacheBench.scope("v1")
        try bench.run(bench.sequence(tokens(40)), adapted)
        try bench.run(bench.sequence(tokens(40)), scope)
        #expect(bench.pool.cachedBlockCount == 6)
        let running = bench.sequence(tokens(33))
        #expect(try bench.admit(running, adapted))
        bench.pool.forgetPrefixes(of: .init("v1"))
        bench.pool.checkInvariants()
        #expect(bench.pool.cachedBlockCount == 3, "the base's")
        #expect(bench.pool.kvBlockCount == 2, "those that run")
        let late = bench.sequence(tokens(33))
        #expect(try bench.admit(late, adapted))
        #expect(late.computedCount == 0, "nothing is found any more")
        #expect(try bench.compute(running, adapted, count: 40))
        bench.pool.release(running)
        #expect(bench.pool.cachedBlockCount == 3)
        bench.pool.release(late)
        bench.pool.forgetPrefixes(of: .init("v1"))
        #expect(bench.pool.freeCount == 37)
        bench.pool.checkInvariants()
    }

    @Test func theEndOfAPrefixLeavesFirst() throws {
        let bench = try CacheBench(blockCount: 8)
        try bench.run(bench.sequence(tokens(96)), scope)
        #expect(bench.pool.cachedBlockCount == 6)
        let other = bench.sequence(tokens(64, from: 900))
        #expect(try bench.admit(other, scope))
        #expect(try bench.compute(other, scope, count: 64))
        bench.pool.checkInvariants()
        let again = bench.sequence(tokens(96))
        #expect(!(try bench.admit(again, scope)), "it needs three blocks more than there are")
        bench.pool.release(other)
        #expect(try bench.admit(again, scope))
        #expect(again.computedCount == 64)
        bench.pool.release(again)
        bench.pool.checkInvariants()
    }

    /// Prompts that never come again must not drive out one that always does.
    @Test func whatIsFoundAgainOutlivesWhatIsNot() throws {
        let bench = try CacheBench(blockCount: 20)
        let system = tokens(64)
        for _ in 0..<2 { try bench.run(bench.sequence(system + [7]), scope) }
        for round in 0..<60 {
            let sequence = bench.sequence(system + tokens(64, from: Int32(1000 * (round + 1))))
            #expect(try bench.admit(sequence, scope))
            #expect(sequence.computedCount == 64)
            #expect(try bench.compute(sequence, scope, count: 200))
            bench.pool.release(sequence)
            // Three others in between, each as long as half of the pool.
            for index in 0..<3 {
                try bench.run(
                    bench.sequence(tokens(150, from: Int32(100_000 + 1000 * (3 * round + index)))),
                    scope)
            }
        }
    }

    /// With room for everything, whatever was computed in whole blocks is found.
    @Test(arguments: [21, 22] as [UInt64])
    func findsTheLongestPrefix(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let bench = try CacheBench(blockCount: 20_000)
        var computed: [(scope: PrefixScope, tokens: [Int32])] = []
        for _ in 0..<400 {
            let scope = CacheBench.scope([nil, "a"].randomElement(using: &random) ?? nil)
            var tokens: [Int32] = []
            if let known = computed.randomElement(using: &random) {
                tokens = Array(
                    known.tokens.prefix(.random(in: 0...known.tokens.count, using: &random)))
            }
            for _ in 0..<Int.random(in: 1...60, using: &random) {
                tokens.append(.random(in: 0..<50, using: &random))
            }
            let sequence = bench.sequence(tokens)
            #expect(try bench.admit(sequence, scope))
            var common = 0
            for known in computed where known.scope == scope {
                let same = zip(known.tokens, tokens).prefix { $0.0 == $0.1 }.count
                common = max(common, same)
            }
            let limit = min(common, tokens.count - 1)
            let wholeBlocks = limit / KVLayout.blockSize * KVLayout.blockSize
            #expect(sequence.computedCount >= wholeBlocks, "seed \(seed)")
            #expect(sequence.computedCount <= limit, "seed \(seed)")
            #expect(try bench.compute(sequence, scope, count: 1000))
            computed.append((scope, tokens))
            bench.pool.release(sequence)
        }
        bench.pool.checkInvariants()
    }
}
