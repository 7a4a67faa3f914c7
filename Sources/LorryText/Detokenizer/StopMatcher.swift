/// Finds stop strings in text that arrives in parts (Aho-Corasick over bytes).
struct StopMatcher: Sendable {
    /// A stop string that ended `length` bytes after it began.
    struct Match: Sendable, Equatable {
        /// Index in the list of stop strings.
        var stop: Int
        var length: Int
    }

    private struct Node: Sendable {
        var next: [UInt8: Int32] = [:]
        var failure: Int32 = 0
        var depth = 0
        /// The longest stop string that ends here, -1 for none.
        var stop = -1
        var stopLength = 0
    }

    private var nodes: [Node] = [Node()]
    private var state: Int32 = 0

    init(_ stops: [String]) {
        for (index, stop) in stops.enumerated() where !stop.isEmpty {
            var node = 0
            for byte in stop.utf8 {
                if let next = nodes[node].next[byte] {
                    node = Int(next)
                } else {
                    nodes[node].next[byte] = Int32(nodes.count)
                    nodes.append(Node(depth: nodes[node].depth + 1))
                    node = nodes.count - 1
                }
            }
            if nodes[node].stop < 0 {
                nodes[node].stop = index
                nodes[node].stopLength = nodes[node].depth
            }
        }
        linkFailures()
    }

    private mutating func linkFailures() {
        var queue = nodes[0].next.values.sorted()
        var position = 0
        while position < queue.count {
            let node = Int(queue[position])
            position += 1
            for (byte, child) in nodes[node].next {
                var failure = nodes[node].failure
                while failure != 0, nodes[Int(failure)].next[byte] == nil {
                    failure = nodes[Int(failure)].failure
                }
                nodes[Int(child)].failure = nodes[Int(failure)].next[byte] ?? 0
                queue.append(child)
            }
            let failure = nodes[Int(nodes[node].failure)]
            if nodes[node].stop < 0 {
                nodes[node].stop = failure.stop
                nodes[node].stopLength = failure.stopLength
            }
        }
    }

    var isEmpty: Bool { nodes.count == 1 }

    /// How many bytes at the end of the text so far may be the beginning of a stop string.
    var heldByteCount: Int { nodes[Int(state)].depth }

    mutating func reset() {
        state = 0
    }

    /// Takes the next byte; a match ends with it.
    mutating func advance(_ byte: UInt8) -> Match? {
        while state != 0, nodes[Int(state)].next[byte] == nil {
            state = nodes[Int(state)].failure
        }
        state = nodes[Int(state)].next[byte] ?? 0
        let node = nodes[Int(state)]
        return node.stop < 0 ? nil : Match(stop: node.stop, length: node.stopLength)
    }
}
