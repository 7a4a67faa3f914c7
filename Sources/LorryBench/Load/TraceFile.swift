import Foundation

/// A workload as a file of JSON lines, one request each:
/// `{"arrival_seconds":0.25,"adapter":3,"tenant":0,"prompt_tokens":17,"output_tokens":40}`.
/// Without `adapter` it is for the base model; `tenant` is 0 where it is missing.
public enum TraceFile {
    public static func data(_ requests: [TraceRequest]) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        var data = Data()
        for request in requests {
            data += try encoder.encode(request)
            data.append(0x0A)
        }
        return data
    }

    /// - Throws: `BenchError` naming the line that is no request or comes before its predecessor.
    public static func requests(_ data: Data) throws(BenchError) -> [TraceRequest] {
        let decoder = JSONDecoder()
        var requests: [TraceRequest] = []
        var number = 0
        for line in data.split(separator: 0x0A, omittingEmptySubsequences: false) {
            number += 1
            if line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }) { continue }
            let request: TraceRequest
            do {
                request = try decoder.decode(TraceRequest.self, from: Data(line))
            } catch {
                throw BenchError("line \(number) of the trace is no request: \(reason(error))")
            }
            if let fault = fault(of: request, after: requests.last) {
                throw BenchError("line \(number) of the trace: \(fault)")
            }
            requests.append(request)
        }
        guard !requests.isEmpty else { throw BenchError("the trace has no requests") }
        return requests
    }

    private static func fault(of request: TraceRequest, after last: TraceRequest?) -> String? {
        let lengths = 1...(1 << 24)
        if !(request.arrivalSeconds >= 0 && request.arrivalSeconds < 1e7) {
            return "arrival_seconds is not between 0 and 10000000"
        }
        if let last, request.arrivalSeconds < last.arrivalSeconds {
            return "arrival_seconds is below that of the request before"
        }
        if let adapter = request.adapter, adapter < 0 || adapter > 100_000_000 {
            return "adapter is not between 0 and 100000000"
        }
        if request.tenant < 0 || request.tenant >= 1000 {
            return "tenant is not between 0 and 999"
        }
        guard lengths.contains(request.promptTokenCount),
            lengths.contains(request.outputTokenCount)
        else { return "prompt_tokens and output_tokens must be between 1 and \(1 << 24)" }
        return nil
    }

    private static func reason(_ error: any Error) -> String {
        switch error {
        case DecodingError.keyNotFound(let key, _): "'\(key.stringValue)' is missing"
        case DecodingError.typeMismatch(_, let context),
            DecodingError.valueNotFound(_, let context):
            "'\(context.codingPath.map(\.stringValue).joined(separator: "."))' has the wrong type"
        default: "it is not JSON, or a number does not fit"
        }
    }
}
