import Foundation
import LorryBench
import LorryTensor
import Testing

struct KernelBenchTests {
    /// Every kernel once, on shapes so small that it takes no time.
    private var plan: KernelBench.Plan {
        var plan = KernelBench.Plan(coldByteCount: 1 << 14, effort: .zero)
        plan.shapes.rowCounts = [1, 3]
        plan.shapes.headRowCounts = [1]
        plan.shapes.linears = [.init(32, 48)]
        plan.shapes.head = .init(32, 600)
        plan.shapes.adapted = .init(32, 32)
        plan.shapes.ranks = [4]
        plan.shapes.segments = [.init(3, rows: 2)]
        plan.shapes.attention.headCount = 4
        plan.shapes.attention.kvHeadCount = 2
        plan.shapes.attention.headDim = 8
        plan.shapes.attention.decode = [(sequences: 2, positions: 20)]
        plan.shapes.attention.prefill = [(rows: 5, before: 18)]
        plan.shapes.rowOperators = [(rows: 2, width: 32)]
        plan.shapes.activations = [(rows: 2, width: 32)]
        return plan
    }

    @Test func measuresEveryKernelAndFormat() throws {
        let bench = KernelBench(
            plan: plan, limits: smallLimits, pool: WorkerPool(threadCount: 2))
        try bench.run()
        let names = Set(bench.results.map(\.name))
        var expected: Set = ["rms-norm", "silu-multiply"]
        for format in WeightFormat.allCases { expected.insert("matmul-\(format.rawValue)") }
        for format in OperandFormat.allCases {
            for name in ["shrink", "expand", "attention-decode", "attention-prefill"] {
                expected.insert("\(name)-\(format.rawValue)")
            }
        }
        #expect(names == expected)
        for result in bench.results {
            #expect(result.seconds > 0 && result.runs >= 3)
            #expect(result.bytes > 0 && result.operations > 0)
            #expect(result.shareOfLimit == result.limitSeconds / result.seconds)
        }
    }

    @Test func countsBytesAndOperations() throws {
        var wanted = plan
        wanted.names = ["bf16"]
        let bench = KernelBench(
            plan: wanted, limits: smallLimits, pool: WorkerPool(threadCount: 1))
        try bench.run()
        func result(_ name: String, rows: Int) throws -> KernelResult {
            try #require(bench.results.first { $0.name == name && $0.rows == rows })
        }
        let matmul = try result("matmul-bf16", rows: 3)
        #expect(matmul.bytes == 32 * 48 * 2 && matmul.operations == 2 * 3 * 32 * 48)
        // 3072 bytes at 10 a second are longer than 9216 operations at 200.
        #expect(matmul.limitSeconds == 307.2 && matmul.boundBy == .reading)
        let shrink = try result("shrink-bf16", rows: 6)
        #expect(shrink.bytes == 3 * 4 * 32 * 2 && shrink.operations == 2 * 6 * 4 * 32)
        let decode = try result("attention-decode-bf16", rows: 2)
        #expect(decode.bytes == 2 * 20 * 2 * 2 * 8 * 2)
        #expect(decode.operations == 4 * 4 * 8 * 2 * 20)
        let prefill = try result("attention-prefill-bf16", rows: 5)
        #expect(prefill.operations == 4 * 4 * 8 * (19 + 20 + 21 + 22 + 23))
        #expect(bench.results.allSatisfy { $0.format == "bf16" })
    }

    @Test func reportHasTheKeysThatOthersRead() throws {
        var wanted = plan
        wanted.names = ["rms"]
        let pool = WorkerPool(threadCount: 1)
        let bench = KernelBench(plan: wanted, limits: smallLimits, pool: pool)
        try bench.run()
        let report = KernelReport(limits: smallLimits, pool: pool, kernels: bench.results)
        let object = try #require(
            JSONSerialization.jsonObject(with: JSONEncoder().encode(report)) as? [String: Any])
        let limits = try #require(object["limits"] as? [String: Any])
        for kind in ["int8", "bf16", "f32"] {
            #expect(limits["\(kind)_operations_per_second"] is Double)
        }
        let kernels = try #require(object["kernels"] as? [[String: Any]])
        #expect(kernels.count == 1)
        let keys: Set = [
            "name", "level", "shape", "seconds", "bytes", "operations", "share_of_limit",
        ]
        #expect(keys.isSubset(of: Set(kernels[0].keys)))
    }
}
