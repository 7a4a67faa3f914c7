import LorryTensor
import Testing

@Suite struct WeightFormatTests {
    @Test func everyHalfWidensExactly() {
        let halves = (0...UInt16.max).map { $0 }
        var wide = [Float](repeating: 0, count: halves.count)
        widen(halves, .f16, count: halves.count, to: &wide)
        for (half, value) in zip(halves, wide) {
            let expected = Float(Float16(bitPattern: half))
            if expected.isNaN {
                #expect(value.isNaN, "half \(half)")
            } else {
                #expect(value.bitPattern == expected.bitPattern, "half \(half)")
            }
        }
    }

    @Test func everyBF16SurvivesARoundTrip() {
        let all = (0...UInt16.max).map { $0 }
        var wide = [Float](repeating: 0, count: all.count)
        widen(all, .bf16, count: all.count, to: &wide)
        var back = [UInt16](repeating: 0, count: all.count)
        narrow(wide, .f32, count: all.count, to: &back)
        for index in all.indices {
            #expect(wide[index].bitPattern == UInt32(all[index]) << 16)
            #expect(back[index] == all[index] || wide[index].isNaN)
        }
    }

    @Test(
        arguments: [
            (0x3f80_7fff, 0x3f80), (0x3f80_8000, 0x3f80), (0x3f80_8001, 0x3f81),
            (0x3f81_8000, 0x3f82), (0x7f7f_ffff, 0x7f80), (0xff80_0000, 0xff80),
            (0x0000_8001, 0x0001), (0x8000_0001, 0x8000),
        ] as [(UInt32, UInt16)])
    func roundsToNearestEven(word: UInt32, expected: UInt16) {
        var result: UInt16 = 0
        narrow([Float(bitPattern: word)], .f32, count: 1, to: &result)
        #expect(result == expected)
    }

    @Test func notANumberStaysOne() {
        var result: UInt16 = 0
        narrow([Float(bitPattern: 0x7f80_0001)], .f32, count: 1, to: &result)
        #expect(Float(bitPattern: UInt32(result) << 16).isNaN)
    }
}
