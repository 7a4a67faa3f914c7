/// What keys and values depend on beside the tokens, and who may share them.
package struct PrefixScope: Hashable, Sendable {
    /// The adapter version that computes them; nil where they are the base model's.
    package var adapter: AdapterVersionID?
    package var tenant: String
    /// Further separates what a tenant's requests share.
    package var salt: String

    package init(adapter: AdapterVersionID?, tenant: String, salt: String) {
        self.adapter = adapter
        self.tenant = tenant
        self.salt = salt
    }
}

/// The roots of the trees of a `PrefixIndex`, by number: one for each scope, kept while sequences
/// use it or blocks are below it.
struct PrefixRoots {
    struct Root {
        let scope: PrefixScope
        fileprivate(set) var firstChild: Int32?
        /// Sequences that use the tree.
        fileprivate(set) var userCount = 1
        /// Its adapter version is gone: nothing is to be found there any more.
        fileprivate(set) var isForgotten = false
    }

    private var roots = Slots<Root>()
    // Of those that are not forgotten.
    private var numbersByScope: [PrefixScope: Int] = [:]
    private var numbersByAdapter: [AdapterVersionID: Set<Int>] = [:]

    var count: Int { roots.count }

    subscript(number: Int) -> Root? { roots[number] }

    var all: [(number: Int, value: Root)] { roots.all }

    /// The root of a scope, kept until it is closed as often as it was opened.
    mutating func open(_ scope: PrefixScope) -> Int {
        if let known = numbersByScope[scope] {
            roots[known]?.userCount += 1
            return known
        }
        let number = roots.insert(Root(scope: scope))
        numbersByScope[scope] = number
        if let adapter = scope.adapter { numbersByAdapter[adapter, default: []].insert(number) }
        return number
    }

    mutating func close(_ number: Int) {
        roots[number]?.userCount -= 1
        removeIfEmpty(number)
    }

    mutating func setFirstChild(_ number: Int, _ child: Int32?) {
        roots[number]?.firstChild = child
    }

    /// To be asked when the last block below a root has gone.
    mutating func removeIfEmpty(_ number: Int) {
        guard let root = roots[number], root.userCount == 0, root.firstChild == nil else { return }
        unlist(number, root)
        roots[number] = nil
    }

    /// Makes an adapter version's roots unreachable for whoever comes now.
    ///
    /// - Returns: the first child of each that has one.
    mutating func forget(_ adapter: AdapterVersionID) -> [Int32] {
        var children: [Int32] = []
        for number in numbersByAdapter[adapter] ?? [] {
            guard let root = roots[number] else { continue }
            unlist(number, root)
            roots[number]?.isForgotten = true
            if let child = root.firstChild { children.append(child) }
            removeIfEmpty(number)
        }
        return children
    }

    private mutating func unlist(_ number: Int, _ root: Root) {
        guard !root.isForgotten else { return }
        numbersByScope[root.scope] = nil
        guard let adapter = root.scope.adapter else { return }
        numbersByAdapter[adapter]?.remove(number)
        if numbersByAdapter[adapter]?.isEmpty == true { numbersByAdapter[adapter] = nil }
    }
}
