import LorryTensor

/// Which blocks have the keys and values of which tokens: a forest with a tree per scope.
///
///     root of (adapter, tenant, salt)
///       └ block 7: tokens 0..<16
///           ├ block 3: tokens 16..<32
///           └ block 9: tokens 16..<27     a block that is not full has none below it
///
/// A block is found by its parent and its tokens, which are compared one by one: two prefixes are
/// the same only if all their tokens are. The hash is seeded anew in each process.
///
/// - Complexity: O(1) per block, expected.
final class PrefixIndex {
    /// A block, or from `blockCount` on a tree's root.
    struct Place: Hashable {
        fileprivate let index: Int32
    }

    private struct Node {
        /// Nil where the block is in no tree.
        var parent: Place?
        var root = 0
        var tokenCount: Int32 = 0
        var firstChild: Int32?
        // Among the children of one parent.
        var next: Int32?
        var previous: Int32?
        var bucket: Int32 = 0
        var nextInBucket: Int32?
    }

    private static let blockSize = KVLayout.blockSize
    /// Children of one parent that a search for a common start looks at, the newest first.
    private static let searchedChildCount = 8

    private let blockCount: Int
    private var nodes: [Node]
    /// `blockSize` for each block.
    private var tokens: [Int32]
    private var buckets: [Int32?]
    private var roots = PrefixRoots()

    init(blockCount: Int) {
        self.blockCount = blockCount
        nodes = [Node](repeating: Node(), count: blockCount)
        tokens = [Int32](repeating: 0, count: blockCount * Self.blockSize)
        var bucketCount = 1
        while bucketCount < blockCount { bucketCount *= 2 }
        buckets = [Int32?](repeating: nil, count: bucketCount)
    }

    // MARK: - Trees

    /// The root of a scope's tree, kept until it is closed as often as it was opened.
    func open(_ scope: PrefixScope) -> Place {
        Place(index: Int32(blockCount + roots.open(scope)))
    }

    func close(_ root: Place) { roots.close(rootNumber(root)) }

    /// Makes an adapter version's trees unreachable for whoever comes now.
    ///
    /// - Returns: their blocks, children before their parents; all are still in the index.
    func forget(_ adapter: AdapterVersionID) -> [BlockID] {
        var blocks: [BlockID] = []
        var open = roots.forget(adapter)
        while let block = open.popLast() {
            blocks.append(BlockID(index: block))
            let node = nodes[Int(block)]
            if let next = node.next { open.append(next) }
            if let child = node.firstChild { open.append(child) }
        }
        return blocks.reversed()
    }

    func isForgotten(_ place: Place) -> Bool {
        let root =
            place.index < blockCount ? nodes[Int(place.index)].root : rootNumber(place)
        return roots[root]?.isForgotten ?? true
    }

    private func rootNumber(_ root: Place) -> Int { Int(root.index) - blockCount }

    // MARK: - Blocks

    func contains(_ block: BlockID) -> Bool { nodes[block.number].parent != nil }
    func isLeaf(_ block: BlockID) -> Bool { nodes[block.number].firstChild == nil }
    func tokenCount(_ block: BlockID) -> Int { Int(nodes[block.number].tokenCount) }
    func place(of block: BlockID) -> Place { Place(index: block.index) }

    /// The block above, nil below a root.
    func parent(of block: BlockID) -> BlockID? {
        guard let parent = nodes[block.number].parent, parent.index < blockCount else { return nil }
        return BlockID(index: parent.index)
    }

    /// The block below `place` that has exactly these tokens.
    func find(_ wanted: ArraySlice<Int32>, below place: Place) -> BlockID? {
        var candidate = buckets[bucket(wanted, place)]
        while let block = candidate {
            let node = nodes[Int(block)]
            if node.parent == place, Int(node.tokenCount) == wanted.count,
                commonCount(block, wanted) == wanted.count
            {
                return BlockID(index: block)
            }
            candidate = node.nextInBucket
        }
        return nil
    }

    /// Of the newest blocks below `place` the one that has most of the first of these tokens.
    func findStart(
        of wanted: ArraySlice<Int32>, below place: Place
    ) -> (block: BlockID, tokenCount: Int)? {
        var best: (block: BlockID, tokenCount: Int)?
        var child = firstChild(of: place)
        var searched = 0
        while let block = child, searched < Self.searchedChildCount {
            let count = commonCount(block, wanted)
            if count > best?.tokenCount ?? 0 { best = (BlockID(index: block), count) }
            child = nodes[Int(block)].next
            searched += 1
        }
        return best
    }

    /// Blocks among the newest below `place` that are not full and whose tokens are the first of
    /// these.
    func covered(by wanted: ArraySlice<Int32>, below place: Place) -> BlockID? {
        var child = firstChild(of: place)
        var searched = 0
        while let block = child, searched < Self.searchedChildCount {
            let node = nodes[Int(block)]
            if Int(node.tokenCount) < wanted.count,
                commonCount(block, wanted) == Int(node.tokenCount)
            {
                return BlockID(index: block)
            }
            child = node.next
            searched += 1
        }
        return nil
    }

    /// - Parameter content: at most a block's tokens; nothing can be below a block that has fewer.
    func insert(_ block: BlockID, _ content: ArraySlice<Int32>, below place: Place) {
        let number = block.number
        precondition(nodes[number].parent == nil, "a block enters the index twice")
        precondition(content.count <= Self.blockSize && !content.isEmpty)
        var node = Node()
        node.parent = place
        node.tokenCount = Int32(content.count)
        node.next = firstChild(of: place)
        if place.index < blockCount {
            precondition(nodes[Int(place.index)].tokenCount == Self.blockSize)
            node.root = nodes[Int(place.index)].root
        } else {
            node.root = rootNumber(place)
        }
        for (offset, token) in content.enumerated() {
            tokens[number * Self.blockSize + offset] = token
        }
        let bucket = bucket(content, place)
        node.bucket = Int32(bucket)
        node.nextInBucket = buckets[bucket]
        buckets[bucket] = block.index
        if let next = node.next { nodes[Int(next)].previous = block.index }
        setFirstChild(of: place, block.index)
        nodes[number] = node
    }

    /// - Parameter block: a leaf.
    func remove(_ block: BlockID) {
        let node = nodes[block.number]
        guard let parent = node.parent else { preconditionFailure("a block without a place") }
        precondition(node.firstChild == nil, "only leaves leave the index")
        if let next = node.next { nodes[Int(next)].previous = node.previous }
        if let previous = node.previous {
            nodes[Int(previous)].next = node.next
        } else {
            setFirstChild(of: parent, node.next)
        }
        removeFromBucket(block, node)
        nodes[block.number] = Node()
        roots.removeIfEmpty(node.root)
    }

    private func removeFromBucket(_ block: BlockID, _ node: Node) {
        let bucket = Int(node.bucket)
        guard var before = buckets[bucket] else { return }
        if before == block.index {
            buckets[bucket] = node.nextInBucket
            return
        }
        while let next = nodes[Int(before)].nextInBucket {
            if next == block.index {
                nodes[Int(before)].nextInBucket = node.nextInBucket
                return
            }
            before = next
        }
    }

    private func firstChild(of place: Place) -> Int32? {
        place.index < blockCount
            ? nodes[Int(place.index)].firstChild
            : roots[rootNumber(place)]?.firstChild
    }

    private func setFirstChild(of place: Place, _ child: Int32?) {
        if place.index < blockCount {
            nodes[Int(place.index)].firstChild = child
        } else {
            roots.setFirstChild(rootNumber(place), child)
        }
    }

    private func bucket(_ content: ArraySlice<Int32>, _ place: Place) -> Int {
        var hasher = Hasher()
        hasher.combine(place.index)
        for token in content { hasher.combine(token) }
        return hasher.finalize() & (buckets.count - 1)
    }

    /// How many of the first tokens are the block's.
    private func commonCount(_ block: Int32, _ wanted: ArraySlice<Int32>) -> Int {
        let start = Int(block) * Self.blockSize
        let limit = min(Int(nodes[Int(block)].tokenCount), wanted.count)
        var count = 0
        while count < limit, tokens[start + count] == wanted[wanted.startIndex + count] {
            count += 1
        }
        return count
    }
}

extension PrefixIndex {
    var rootCount: Int { roots.count }

    /// - Parameter isCached: what the accounting says of a block.
    /// - Returns: what is wrong, if anything.
    func findFault(isCached: (BlockID) -> Bool) -> String? {
        var childCounts: [Place: Int] = [:]
        for number in 0..<blockCount {
            let block = BlockID(number)
            guard contains(block) == isCached(block) else {
                return "block \(number) is cached or in the index, not both"
            }
            let node = nodes[number]
            guard let parent = node.parent else { continue }
            childCounts[parent, default: 0] += 1
            let start = number * Self.blockSize
            let content = tokens[start..<start + Int(node.tokenCount)]
            guard find(content, below: parent) == block else {
                return "block \(number) is not what its tokens lead to"
            }
            if let above = self.parent(of: block) {
                let isRight =
                    contains(above) && tokenCount(above) == Self.blockSize
                    && nodes[above.number].root == node.root
                guard isRight else { return "block \(number) is below \(above.number)" }
            } else if roots[node.root] == nil {
                return "block \(number) has no root"
            }
        }
        for (place, count) in childCounts {
            var found = 0
            var child = firstChild(of: place)
            while let block = child, found <= count {
                found += 1
                child = nodes[Int(block)].next
            }
            guard found == count else { return "\(found) children linked of \(count)" }
        }
        for (number, root) in roots.all {
            let place = Place(index: Int32(blockCount + number))
            guard (root.firstChild != nil) == (childCounts[place] != nil), root.userCount >= 0,
                root.userCount > 0 || root.firstChild != nil
            else { return "root \(number) has \(root.userCount) users and is empty" }
        }
        return nil
    }
}
