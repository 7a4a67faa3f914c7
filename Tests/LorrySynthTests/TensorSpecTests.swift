import LorrySynth
import Testing

@Suite struct TensorSpecTests {
    @Test(arguments: SynthElementType.allCases)
    func chunksJoinToTheWholeTensor(type: SynthElementType) {
        for fill in [TensorSpec.Fill.constant(1.5), .normal(deviation: 2), .uniform(bound: 3)] {
            let tensor = TensorSpec(name: "t", shape: [10, 10], type: type, fill: fill)
            let whole = tensor.bytes(of: 0..<100, seed: 9)
            let parts = [0..<1, 1..<37, 37..<37, 37..<100].flatMap { tensor.bytes(of: $0, seed: 9) }
            #expect(whole == parts)
            #expect(whole.count == (type == .bf16 ? 200 : 400))
        }
    }

    @Test func tensorsOfOtherNamesHaveOtherValues() {
        let tensors = ["a", "b"].map {
            TensorSpec(name: $0, shape: [64], type: .f32, fill: .normal(deviation: 1))
        }
        #expect(tensors[0].bytes(of: 0..<64, seed: 1) != tensors[1].bytes(of: 0..<64, seed: 1))
    }

    @Test func distributionsHaveTheirMoments() {
        let count = 200_000
        func values(_ fill: TensorSpec.Fill) -> [Double] {
            let bytes = TensorSpec(name: "m", shape: [count], type: .f32, fill: fill)
                .bytes(of: 0..<count, seed: 5)
            return (0..<count).map { index in
                let bits = (0..<4).reduce(0 as UInt32) {
                    $0 | UInt32(bytes[4 * index + $1]) << (8 * $1)
                }
                return Double(Float(bitPattern: bits))
            }
        }
        func moment(_ values: [Double], _ order: Int) -> Double {
            values.reduce(0) { sum, value in
                sum + (0..<order).reduce(1) { power, _ in power * value }
            } / Double(count)
        }
        let normal = values(.normal(deviation: 2))
        #expect(abs(moment(normal, 1)) < 0.02)
        #expect(abs(moment(normal, 2) - 4) < 0.05)
        #expect(abs(moment(normal, 3)) < 0.3)
        // Four summands: kurtosis 3 - 1.2 / 4.
        #expect(abs(moment(normal, 4) / 16 - 2.7) < 0.08)
        let uniform = values(.uniform(bound: 3))
        #expect(uniform.allSatisfy { abs($0) <= 3 })
        #expect(abs(moment(uniform, 1)) < 0.02)
        #expect(abs(moment(uniform, 2) - 3) < 0.05)
    }
}
