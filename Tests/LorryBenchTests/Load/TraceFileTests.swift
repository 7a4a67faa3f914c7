import Foundation
import LorryBench
import Testing

struct TraceFileTests {
    @Test func readsWhatItWrote() throws {
        let workload = try SLoRAWorkload(
            adapterCount: 9, cv: 2, rate: 10, seconds: 20, lengths: TokenLengths(),
            tenantLoads: [3, 1])
        let trace = workload.trace()
        #expect(try TraceFile.requests(TraceFile.data(trace)) == trace)
    }

    @Test func adapterAndTenantMayBeMissing() throws {
        let text = """
            {"arrival_seconds": 0, "prompt_tokens": 3, "output_tokens": 4}

            {"arrival_seconds": 1.5, "adapter": 2, "tenant": 1, "prompt_tokens": 5, "output_tokens": 6}
            """
        let trace = try TraceFile.requests(Data(text.utf8))
        #expect(
            trace == [
                TraceRequest(
                    arrivalSeconds: 0, adapter: nil, promptTokenCount: 3, outputTokenCount: 4),
                TraceRequest(
                    arrivalSeconds: 1.5, adapter: 2, tenant: 1, promptTokenCount: 5,
                    outputTokenCount: 6),
            ])
    }

    @Test(arguments: [
        (#"{"arrival_seconds":0,"output_tokens":4}"#, "prompt_tokens"),
        (#"{"arrival_seconds":"0","prompt_tokens":1,"output_tokens":4}"#, "arrival_seconds"),
        (#"{"arrival_seconds":-1,"prompt_tokens":1,"output_tokens":4}"#, "arrival_seconds"),
        (#"{"arrival_seconds":0,"prompt_tokens":0,"output_tokens":4}"#, "prompt_tokens"),
        (#"{"arrival_seconds":0,"adapter":-1,"prompt_tokens":1,"output_tokens":4}"#, "adapter"),
        (#"{"arrival_seconds":0,"tenant":1000,"prompt_tokens":1,"output_tokens":4}"#, "tenant"),
        (#"{"arrival_seconds":0,"prompt_tokens":1e30,"output_tokens":4}"#, "JSON"),
        ("nonsense", "JSON"),
    ])
    func faultsNameTheirLine(line: String, word: String) throws {
        let good = #"{"arrival_seconds":0,"prompt_tokens":1,"output_tokens":1}"#
        let error = try #require(throws: BenchError.self) {
            try TraceFile.requests(Data("\(good)\n\(line)\n".utf8))
        }
        #expect(error.description.contains("line 2"))
        #expect(error.description.contains(word), "\(error)")
    }

    @Test func orderOfArrivalIsAskedFor() throws {
        let text = [2, 1].map {
            #"{"arrival_seconds":\#($0),"prompt_tokens":1,"output_tokens":1}"#
        }.joined(separator: "\n")
        #expect(throws: BenchError.self) { try TraceFile.requests(Data(text.utf8)) }
        #expect(throws: BenchError.self) { try TraceFile.requests(Data()) }
    }
}
