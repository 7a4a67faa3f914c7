import LorryTensor
import Testing

struct MachineLimitsTests {
    @Test func measuresEveryLimit() {
        let pool = WorkerPool(threadCount: 2)
        let limits = MachineLimits.measure(
            pool: pool, bufferByteCount: 8 << 20, effort: .milliseconds(5))
        #expect(limits.threadCount == 2)
        #expect(limits.level == KernelLevel.supported.last)
        #expect(limits.readBytesPerSecond > 0 && limits.readBytesPerSecond.isFinite)
        for arithmetic in Arithmetic.allCases {
            let peak = limits.peak(arithmetic)
            // A loop that the compiler took away would seem to run at any speed.
            #expect(peak.operationsPerSecond > 1e8 && peak.operationsPerSecond < 1e15)
            #expect(!peak.instruction.isEmpty)
        }
    }

    @Test func knowsThisProcessor() {
        #expect(!ProcessorFeature.all.isEmpty)
        let present = Set(ProcessorFeature.all.filter(\.isPresent).map(\.name))
        if KernelLevel.avx2.isSupported { #expect(present.isSuperset(of: ["avx2", "fma"])) }
        if KernelLevel.avx512BF16.isSupported {
            #expect(present.isSuperset(of: ["avx512f", "avx512vnni", "avx512bf16"]))
        }
    }
}
