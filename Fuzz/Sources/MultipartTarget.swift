import LorryAPI

/// A content type, a line break, and a body, which must read the same whole and byte by byte.
struct MultipartTarget: FuzzTarget {
    func run(_ input: [UInt8]) throws {
        let parts = input.split(separator: 0x0A, maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { return }
        let type = String(decoding: parts[0], as: UTF8.self)
        let whole = read(type, [parts[1]])
        let single = read(type, parts[1].map { [$0][...] })
        precondition(whole == single, "cutting the body changes what it says")
    }

    /// The parts' names, and their contents; nil for a body that is refused.
    private func read(_ type: String, _ pieces: [ArraySlice<UInt8>]) -> [[UInt8]]? {
        guard var parser = try? MultipartParser(contentType: type) else { return nil }
        var found: [[UInt8]] = []
        for piece in pieces {
            guard let events = try? parser.push(piece) else { return nil }
            for event in events {
                switch event {
                case .part(let name, let fileName):
                    found += [Array(name.utf8), Array((fileName ?? "").utf8), []]
                case .content(let bytes): found[found.count - 1] += bytes
                case .partEnd: break
                }
            }
        }
        do { try parser.finish() } catch { return nil }
        return found
    }
}
