import LorryBench
import Testing

struct PunicaWorkloadTests {
    private func adapters(
        _ popularity: Popularity, inFlight: Int, adapters: Int, count: Int
    ) throws -> [Int?] {
        let workload = try PunicaWorkload(
            adapterCount: adapters, popularity: popularity, inFlight: inFlight,
            lengths: TokenLengths(), seed: 9)
        return workload.requests(ofTenant: 0).prefix(count).map(\.adapter)
    }

    @Test func distinctGoesThroughAllAdapters() throws {
        let found = try adapters(.distinct, inFlight: 4, adapters: 10, count: 40)
        for round in stride(from: 0, to: 40, by: 4) {
            #expect(Set(found[round..<round + 4]).count == 4)
        }
        #expect(Set(found) == Set((0..<10).map(Optional.some)))
    }

    @Test func identicalAsksOne() throws {
        #expect(try Set(adapters(.identical, inFlight: 8, adapters: 5, count: 50)) == [0])
    }

    @Test func uniformAsksTheSquareRoot() throws {
        let found = try adapters(.uniform, inFlight: 16, adapters: 100, count: 160)
        #expect((0..<4).allSatisfy { adapter in found.count { $0 == adapter } == 40 })
    }

    @Test func skewedGrowsByHalf() throws {
        let found = try adapters(.skewed, inFlight: 32, adapters: 100, count: 32)
        let counts = (0..<8).map { adapter in found.count { $0 == adapter } }
        #expect(counts == [11, 7, 5, 3, 2, 2, 1, 1])
    }

    @Test func noAdaptersAskTheBase() throws {
        #expect(
            try adapters(.distinct, inFlight: 4, adapters: 0, count: 9).allSatisfy { $0 == nil })
    }

    @Test func tooFewAdaptersAreRefusedWithTheNumbers() throws {
        let error = try #require(throws: BenchError.self) {
            try adapters(.distinct, inFlight: 8, adapters: 7, count: 1)
        }
        #expect(error.description.contains("needs 8 adapters, and 7"))
    }

    @Test func tenantsShareThePlaces() throws {
        func places(_ count: Int, _ loads: [Double]) throws -> [Int] {
            try PunicaWorkload(
                adapterCount: 0, popularity: .identical, inFlight: count, lengths: TokenLengths(),
                tenantLoads: loads
            ).places
        }
        #expect(try places(22, [10, 1]) == [20, 2])
        #expect(try places(8, [100, 1]).last == 1)
        #expect(try places(10, [1, 1, 1]) == [4, 3, 3])
        #expect(throws: BenchError.self) { try places(1, [1, 1]) }
    }

    @Test func theSeedDecidesAll() throws {
        func trace(_ seed: UInt64) throws -> [TraceRequest] {
            let workload = try PunicaWorkload(
                adapterCount: 50, popularity: .skewed, inFlight: 16, lengths: TokenLengths(),
                seed: seed)
            return Array(workload.requests(ofTenant: 0).prefix(100))
        }
        #expect(try trace(1) == trace(1))
        #expect(try trace(1) != trace(2))
    }
}
