/// Which special tokens are put around the ids of one text.
struct PostProcessor: Sendable, Equatable {
    enum Part: Sendable, Equatable {
        case text
        case tokens([Int32])
    }

    /// Applied one after the other, each to the result of the last.
    var templates: [[Part]] = []

    func apply(_ ids: [Int32]) -> [Int32] {
        var ids = ids
        for template in templates {
            var output: [Int32] = []
            output.reserveCapacity(ids.count + 4)
            for part in template {
                switch part {
                case .text: output.append(contentsOf: ids)
                case .tokens(let tokens): output.append(contentsOf: tokens)
                }
            }
            ids = output
        }
        return ids
    }
}
