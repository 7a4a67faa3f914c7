import Foundation
import LorryTensor
import Testing

@Suite struct RowSelectionTests {
    static let counts = Array(1...70) + [127, 128, 129, 1023, 1024, 1025, 5000]

    @Test(arguments: Machine.levels)
    func weightsMatch(level: KernelLevel) {
        var generator = SeededGenerator(seed: 71)
        for count in Self.counts {
            var x = generator.floats(count, in: -9...9)
            if count > 4 { x[2] = .nan }
            let greatest = x.filter { !$0.isNaN }.max() ?? 0
            for (temperature, floor) in [(Float(1), -Float.infinity), (0.5, greatest - 4)] {
                let weights = SoftmaxWeights(
                    temperature: temperature, greatest: greatest, floor: floor, level: level)
                let expected = x.map {
                    $0 >= floor ? exp(Double(($0 - greatest)) / Double(temperature)) : 0
                }
                var out = [Float](repeating: .nan, count: count)
                var sums = [Double](repeating: 0, count: 5)
                let total = x.withUnsafeBufferPointer { x in
                    out.withUnsafeMutableBufferPointer { weights.write(of: x, to: $0) }
                    return sums.withUnsafeMutableBufferPointer {
                        weights.sum(of: x, blockSums: $0)
                    }
                }
                // x / temperature is rounded before it becomes an exponent.
                let isClose = zip(out, expected).allSatisfy {
                    abs(Double($0) - $1) <= 1e-5 * $1
                }
                #expect(isClose, "\(count) logits")
                #expect(abs(total - expected.reduce(0, +)) <= 1e-5 * total)
                #expect(sums.reduce(0, +) == total)
            }
        }
    }

    @Test(arguments: Machine.levels)
    func findsAndCountsWhatIsAbove(level: KernelLevel) {
        var generator = SeededGenerator(seed: 72)
        for count in Self.counts {
            var x = (0..<count).map { _ in Float(Int.random(in: 0...99, using: &generator)) }
            if count > 3 { x[count / 2] = .nan }
            x.withUnsafeBufferPointer { row in
                for bound: Float in [-.infinity, 50, 97, 98, 99, .infinity] {
                    let expected = row.indices.filter { row[$0] > bound }
                    var found: [Int] = []
                    var next = 0
                    while let index = firstIndex(above: bound, in: row, from: next, level: level) {
                        found.append(index)
                        next = index + 1
                    }
                    #expect(found == expected, "\(count) elements above \(bound)")
                    #expect(
                        LorryTensor.count(above: bound, in: row, level: level) == expected.count)
                }
            }
        }
    }

    @Test func fusedLevelsGiveTheSameBits() {
        var generator = SeededGenerator(seed: 73)
        let x = generator.floats(5001, in: -20...20)
        let results = Machine.fusedLevels.map { level in
            let weights = SoftmaxWeights(
                temperature: 0.7, greatest: 20, floor: -10, level: level)
            var out = [Float](repeating: 0, count: x.count)
            let total = x.withUnsafeBufferPointer { x in
                out.withUnsafeMutableBufferPointer { weights.write(of: x, to: $0) }
                return weights.sum(of: x)
            }
            return bits(out) + [UInt32(truncatingIfNeeded: total.bitPattern)]
        }
        #expect(Set(results).count <= 1)
    }
}
