import LorryBench
import LorryTensor
import Testing

/// 10 bytes, 100 f32, 200 bf16 and 400 int8 operations per second.
let smallLimits = MachineLimits(
    level: .portable, threadCount: 1, readBytesPerSecond: 10,
    f32: .init(operationsPerSecond: 100, instruction: "f"),
    bf16: .init(operationsPerSecond: 200, instruction: "b"),
    int8: .init(operationsPerSecond: 400, instruction: "i"))

struct WorkTests {
    @Test func readingBindsWhereItTakesLonger() {
        let work = Work(byteCount: 50, operationCounts: [.int8: 400])
        #expect(work.computingSeconds(smallLimits) == 1)
        #expect(work.limitSeconds(smallLimits) == 5)
    }

    @Test func kindsOfArithmeticTakeTurns() {
        var work = Work(byteCount: 10, operationCounts: [.int8: 400])
        work.add(200, .bf16)
        work.add(100, .f32)
        work.add(100, .f32)
        #expect(work.operationCount == 800)
        #expect(work.limitSeconds(smallLimits) == 4)
    }

    @Test func everyFormatHasAnArithmetic() {
        #expect(WeightFormat.f32.arithmetic == .f32)
        #expect(WeightFormat.bf16.arithmetic == .bf16)
        for format in WeightFormat.allCases where format != .f32 && format != .bf16 {
            #expect(format.arithmetic == .int8)
        }
        #expect(OperandFormat.f32.arithmetic == .f32)
        #expect(OperandFormat.bf16.arithmetic == .bf16)
    }
}
