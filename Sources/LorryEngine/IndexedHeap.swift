/// Where an adapter is, as far as those who wait for it are concerned.
package enum AdapterState: CaseIterable, Sendable {
    /// Resident, or the base model alone.
    case ready
    case loading
    case absent
}

/// A member of heaps, at most one for each state. It remembers its places in them, so that it can be
/// moved or taken out without a search.
protocol HeapNode: AnyObject {
    var places: HeapPlaces { get set }
    /// Whether it is to be nearer to the root than another node of the heap for `state`.
    func precedes(_ other: Self, in state: AdapterState) -> Bool
}

/// Indices of a node in the heaps of each state; nil where it is in none.
struct HeapPlaces {
    private var ready: Int?
    private var loading: Int?
    private var absent: Int?

    subscript(state: AdapterState) -> Int? {
        get {
            switch state {
            case .ready: ready
            case .loading: loading
            case .absent: absent
            }
        }
        set {
            switch state {
            case .ready: ready = newValue
            case .loading: loading = newValue
            case .absent: absent = newValue
            }
        }
    }
}

/// A binary heap of nodes that know their places.
struct IndexedHeap<Node: HeapNode> {
    private let state: AdapterState
    private(set) var nodes: [Node] = []

    init(_ state: AdapterState) { self.state = state }

    var first: Node? { nodes.first }

    /// Brings a node into the heap, to its right place, or out of it.
    ///
    /// - Complexity: O(log n).
    mutating func set(_ node: Node, isMember: Bool) {
        switch (node.places[state], isMember) {
        case (nil, false): break
        case (nil, true):
            node.places[state] = nodes.count
            nodes.append(node)
            siftUp(nodes.count - 1)
        case (let index?, true):
            siftUp(index)
            siftDown(node.places[state] ?? index)
        case (let index?, false):
            swap(index, nodes.count - 1)
            nodes.removeLast()
            node.places[state] = nil
            guard index < nodes.count else { return }
            let moved = nodes[index]
            siftUp(index)
            siftDown(moved.places[state] ?? index)
        }
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard nodes[index].precedes(nodes[parent], in: state) else { return }
            swap(index, parent)
            index = parent
        }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var child = 2 * index + 1
            guard child < nodes.count else { return }
            if child + 1 < nodes.count, nodes[child + 1].precedes(nodes[child], in: state) {
                child += 1
            }
            guard nodes[child].precedes(nodes[index], in: state) else { return }
            swap(index, child)
            index = child
        }
    }

    private mutating func swap(_ a: Int, _ b: Int) {
        nodes.swapAt(a, b)
        nodes[a].places[state] = a
        nodes[b].places[state] = b
    }

    func checkInvariants() {
        for (index, node) in nodes.enumerated() {
            precondition(node.places[state] == index)
            guard index > 0 else { continue }
            precondition(!node.precedes(nodes[(index - 1) / 2], in: state))
        }
    }
}

/// A heap for each state.
struct StateHeaps<Node: HeapNode> {
    private var ready = IndexedHeap<Node>(.ready)
    private var loading = IndexedHeap<Node>(.loading)
    private var absent = IndexedHeap<Node>(.absent)

    subscript(state: AdapterState) -> IndexedHeap<Node> {
        switch state {
        case .ready: ready
        case .loading: loading
        case .absent: absent
        }
    }

    func first(_ state: AdapterState) -> Node? {
        switch state {
        case .ready: ready.first
        case .loading: loading.first
        case .absent: absent.first
        }
    }

    var isEmpty: Bool { ready.first == nil && loading.first == nil && absent.first == nil }

    mutating func set(_ node: Node, in state: AdapterState, isMember: Bool) {
        switch state {
        case .ready: ready.set(node, isMember: isMember)
        case .loading: loading.set(node, isMember: isMember)
        case .absent: absent.set(node, isMember: isMember)
        }
    }
}
