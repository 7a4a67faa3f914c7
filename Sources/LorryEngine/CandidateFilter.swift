import Foundation
import LorryTensor

/// The filters min-p, top-k, top-p and typical-p, and the draw from what they leave.
///
/// What is left is either a list, or the row's logits from a floor up: without filters, or with wide
/// ones, nothing is copied out of the row. A draw walks a list in its order, a row in the order of
/// ids. The memory of lists is kept from one draw to the next.
package struct CandidateFilter {
    private struct Candidate {
        var id: Int32
        var logit: Float
        var weight: Float
        /// How far its surprise is from the expected one; for typical-p only.
        var deviation = 0.0
    }

    private let parameters: SamplingParameters
    private var listed: [Candidate] = []
    private var isListed = false
    private var greatest = GreatestLogits()
    private var blockSums: [Double] = []
    private var buffer: [Float] = []

    package init(_ parameters: SamplingParameters) { self.parameters = parameters }

    /// - Parameters:
    ///   - logits: before temperature. Where equals straddle the end of a nucleus, those that are
    ///     out are set to -infinity through `edits`.
    ///   - uniform: in `[0, 1)`.
    /// - Returns: a token that the filters leave; 0 where all logits are NaN.
    package mutating func draw(
        from logits: UnsafeMutableBufferPointer<Float>, edits: inout LogitEdits, uniform: Double,
        level: KernelLevel = Kernels.level
    ) -> Int32 {
        guard let start = logits.baseAddress else { return 0 }
        let row = UnsafeBufferPointer(logits)
        let most = logits[argmax(UnsafePointer(start), count: logits.count, level: level)]
        guard most.isFinite else { return Self.drawOne(of: most, in: row, uniform) }
        var weights = weights(greatest: most, level)
        apply(to: logits, &weights, &edits, level)
        return isListed ? drawFromList(uniform) : drawFromRow(row, weights, uniform)
    }

    /// The tokens that the filters leave, for tests.
    package mutating func tokens(
        keptOf logits: UnsafeMutableBufferPointer<Float>, level: KernelLevel = Kernels.level
    ) -> [Int32] {
        guard let most = logits.max(), most.isFinite else { return [] }
        var edits = LogitEdits()
        var weights = weights(greatest: most, level)
        apply(to: logits, &weights, &edits, level)
        if !isListed { list(UnsafeBufferPointer(logits), from: weights.floor, weights) }
        edits.undo(in: logits)
        return listed.map(\.id)
    }

    // MARK: - Filters

    /// Weights of what min-p leaves. Below the floor exp is as good as 0 in any case.
    private func weights(greatest most: Float, _ level: KernelLevel) -> SoftmaxWeights {
        let temperature = Double(parameters.temperature)
        var depth = 80.0
        if parameters.minP > 0 { depth = min(depth, -log(Double(parameters.minP))) }
        let floor = Float(Double(most) - temperature * max(depth, 0))
        // However high the temperature: -infinity is never chosen.
        return SoftmaxWeights(
            temperature: parameters.temperature, greatest: most,
            floor: max(floor, -.greatestFiniteMagnitude), level: level)
    }

    private mutating func apply(
        to logits: UnsafeMutableBufferPointer<Float>, _ weights: inout SoftmaxWeights,
        _ edits: inout LogitEdits, _ level: KernelLevel
    ) {
        let row = UnsafeBufferPointer(logits)
        isListed = false
        if parameters.topK > 0, parameters.topK < row.count {
            greatest.find(parameters.topK, in: row, level: level)
            listGreatest(weights)
        }
        if parameters.topP < 1 {
            if isListed {
                let wanted = Double(parameters.topP) * listedWeight
                _ = keepNucleus(reaching: wanted)
            } else {
                cutNucleus(logits, &weights, &edits, level)
            }
        }
        if parameters.typicalP < 1 {
            if !isListed { list(row, from: weights.floor, weights) }
            keepTypical()
        }
    }

    private var listedWeight: Double { listed.reduce(0) { $0 + Double($1.weight) } }

    /// Cuts the list, most probable first, behind the smallest part that reaches a weight.
    ///
    /// - Returns: false, with nothing cut, where the whole list does not.
    private mutating func keepNucleus(reaching wanted: Double) -> Bool {
        var sum = 0.0
        for (index, candidate) in listed.enumerated() {
            sum += Double(candidate.weight)
            guard sum >= wanted else { continue }
            listed.removeSubrange((index + 1)...)
            return true
        }
        return false
    }

    /// Tokens near the maximum that are looked at first: they usually hold the nucleus.
    private static let narrowCount = 64
    /// Logits that a wide nucleus' end is searched among, at most, once bisection has come so far.
    private static let windowCount = 512

    /// The smallest set of most probable tokens whose probabilities reach top-p.
    private mutating func cutNucleus(
        _ logits: UnsafeMutableBufferPointer<Float>, _ weights: inout SoftmaxWeights,
        _ edits: inout LogitEdits, _ level: KernelLevel
    ) {
        let row = UnsafeBufferPointer(logits)
        let wanted = Double(parameters.topP) * weights.sum(of: row)
        greatest.find(Self.narrowCount, in: row, level: level)
        listGreatest(weights)
        if keepNucleus(reaching: wanted) { return }
        // The list holds all that weighs anything: only rounding is missing.
        guard listed.count == Self.narrowCount, let last = listed.last else { return }
        isListed = false
        let end = nucleusEnd(row, weights, reaching: wanted, below: last.logit.nextUp, level)
        guard greatest.entries.indices.contains(end) else { return }
        let least = greatest.entries[end]
        weights.floor = least.logit
        for equal in greatest.entries[(end + 1)...] where equal.logit == least.logit {
            edits.set(equal.id, -.infinity, in: logits)
        }
    }

    /// Finds the least probable member of a nucleus.
    ///
    /// Bisects between logits: all from `low` up weigh enough, those from `high` up too little.
    ///
    /// - Returns: its index in `greatest`, which then holds it and all that equal it.
    private mutating func nucleusEnd(
        _ row: UnsafeBufferPointer<Float>, _ weights: SoftmaxWeights, reaching wanted: Double,
        below bound: Float, _ level: KernelLevel
    ) -> Int {
        func isEnough(from bound: Float) -> Bool {
            var part = weights
            part.floor = bound
            return part.sum(of: row) >= wanted
        }
        func count(from bound: Float) -> Int {
            LorryTensor.count(above: bound.nextDown, in: row, level: level)
        }
        var low = weights.floor
        var high = bound
        // It is seldom far from the greatest: widening steps downwards come first.
        var step = parameters.temperature
        while high - step > low {
            guard isEnough(from: high - step) else {
                high -= step
                step *= 2
                continue
            }
            low = high - step
        }
        var lowCount = count(from: low)
        var highCount = count(from: high)
        while lowCount - highCount > Self.windowCount {
            let middle = low + (high - low) / 2
            guard low < middle, middle < high else { break }
            if isEnough(from: middle) {
                (low, lowCount) = (middle, count(from: middle))
            } else {
                (high, highCount) = (middle, count(from: middle))
            }
        }
        return nucleusEnd(row, weights, reaching: wanted, within: low..<high)
    }

    /// The same, known to lie within a range of logits.
    private mutating func nucleusEnd(
        _ row: UnsafeBufferPointer<Float>, _ weights: SoftmaxWeights, reaching wanted: Double,
        within range: Range<Float>
    ) -> Int {
        var above = weights
        above.floor = range.upperBound
        var sum = above.sum(of: row)
        greatest.find(range, in: row)
        listGreatest(weights)
        isListed = false
        for (index, candidate) in listed.enumerated() {
            sum += Double(candidate.weight)
            if sum >= wanted { return index }
        }
        // Rounding: the sums of blocks had a little more.
        return greatest.entries.count - 1
    }

    /// Tokens whose surprise is nearest to the expected one (arXiv 2202.00666).
    private mutating func keepTypical() {
        let total = listedWeight
        func surprise(_ candidate: Candidate) -> Double {
            candidate.weight > 0 ? -log(Double(candidate.weight) / total) : .infinity
        }
        let entropy = listed.reduce(0.0) { sum, candidate in
            candidate.weight > 0
                ? sum + Double(candidate.weight) / total * surprise(candidate) : sum
        }
        for index in listed.indices {
            listed[index].deviation = abs(surprise(listed[index]) - entropy)
        }
        func precedes(_ a: Candidate, _ b: Candidate) -> Bool {
            a.deviation == b.deviation ? a.id < b.id : a.deviation < b.deviation
        }
        // The heap gives as many as are wanted, one after another, to the array's end.
        listed.makeHeap(by: precedes)
        var end = listed.count
        var sum = 0.0
        repeat {
            sum += Double(listed[0].weight) / total
            end -= 1
            listed.swapAt(0, end)
            listed.siftDown(from: 0, end: end, by: precedes)
        } while end > 0 && sum < Double(parameters.typicalP)
        listed.removeSubrange(..<end)
        listed.reverse()
    }

    // MARK: - Lists

    /// Lists what `greatest` holds from the floor up, in its order.
    private mutating func listGreatest(_ weights: SoftmaxWeights) {
        listed.removeAll(keepingCapacity: true)
        for entry in greatest.entries where entry.logit >= weights.floor {
            listed.append(Candidate(id: entry.id, logit: entry.logit, weight: 0))
        }
        weighList(weights)
    }

    /// Lists a row's logits from the floor up, in the order of ids.
    private mutating func list(
        _ row: UnsafeBufferPointer<Float>, from floor: Float, _ weights: SoftmaxWeights
    ) {
        listed.removeAll(keepingCapacity: true)
        for index in row.indices where row[index] >= floor {
            listed.append(Candidate(id: Int32(index), logit: row[index], weight: 0))
        }
        weighList(weights)
    }

    private mutating func weighList(_ weights: SoftmaxWeights) {
        isListed = true
        reserveBuffer(listed.count)
        buffer.withUnsafeMutableBufferPointer { buffer in
            for (index, candidate) in listed.enumerated() { buffer[index] = candidate.logit }
            weights.write(of: UnsafeBufferPointer(rebasing: buffer[..<listed.count]), to: buffer)
            for index in listed.indices { listed[index].weight = buffer[index] }
        }
    }

    private mutating func reserveBuffer(_ count: Int) {
        if buffer.count < count { buffer = [Float](repeating: 0, count: count) }
    }

    // MARK: - Draws

    private func drawFromList(_ uniform: Double) -> Int32 {
        var remaining = uniform * listedWeight
        for candidate in listed {
            remaining -= Double(candidate.weight)
            if remaining < 0 { return candidate.id }
        }
        // Rounding may leave a sliver past the last one.
        return listed.last { $0.weight > 0 }?.id ?? 0
    }

    /// Finds the block of the row by sums, then the token within the block.
    private mutating func drawFromRow(
        _ row: UnsafeBufferPointer<Float>, _ weights: SoftmaxWeights, _ uniform: Double
    ) -> Int32 {
        let size = SoftmaxWeights.blockSize
        let blockCount = (row.count + size - 1) / size
        if blockSums.count < blockCount {
            blockSums = [Double](repeating: 0, count: blockCount)
        }
        reserveBuffer(size)
        let total = blockSums.withUnsafeMutableBufferPointer {
            weights.sum(of: row, blockSums: $0)
        }
        var remaining = uniform * total
        var block = 0
        var lastBlock = 0
        while block < blockCount {
            if blockSums[block] > 0 { lastBlock = block }
            if remaining < blockSums[block] { break }
            remaining -= blockSums[block]
            block += 1
        }
        let first = min(block, lastBlock) * size
        let part = UnsafeBufferPointer(rebasing: row[first..<min(first + size, row.count)])
        return buffer.withUnsafeMutableBufferPointer { buffer in
            weights.write(of: part, to: buffer)
            var last = 0
            for index in part.indices where buffer[index] > 0 {
                last = index
                remaining -= Double(buffer[index])
                if remaining < 0 { break }
            }
            // Rounding may leave a sliver past the last one.
            return Int32(first + last)
        }
    }

    /// Some logits were driven out of range, or all: those that equal the greatest are equally
    /// probable.
    private static func drawOne(
        of most: Float, in row: UnsafeBufferPointer<Float>, _ uniform: Double
    ) -> Int32 {
        let count = row.reduce(0) { $0 + ($1 == most ? 1 : 0) }
        var place = Int(uniform * Double(count))
        for index in row.indices where row[index] == most {
            if place == 0 { return Int32(index) }
            place -= 1
        }
        return 0
    }
}
