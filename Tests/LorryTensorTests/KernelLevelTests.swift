import LorryTensor
import Testing

@Suite struct KernelLevelTests {
    @Test func portableAlwaysRuns() {
        #expect(KernelLevel.portable.isSupported)
        #expect(KernelLevel.supported.first == .portable)
        #expect(KernelLevel.portable < .avx2 && KernelLevel.avx2 < .avx512)
        #expect(KernelLevel.avx512VNNI < .avx512BF16)
    }

    @Test func choosesTheBestUnlessTold() {
        #expect(Kernels.choose(request: nil) == .success(KernelLevel.supported.max() ?? .portable))
        #expect(Kernels.choose(request: "") == Kernels.choose(request: nil))
        #expect(Kernels.choose(request: "portable") == .success(.portable))
    }

    @Test func namesWhatItCannotFollow() {
        #expect(Kernels.choose(request: "sse9") == .failure(.unknown("sse9")))
        for level in KernelLevel.allCases {
            let expected: Result<KernelLevel, KernelLevelError> =
                level.isSupported ? .success(level) : .failure(.unsupported(level))
            #expect(Kernels.choose(request: level.rawValue) == expected)
        }
        #expect(KernelLevelError.unknown("sse9").description.contains("sse9"))
    }
}
