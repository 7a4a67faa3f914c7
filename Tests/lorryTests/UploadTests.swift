import Foundation
import Testing

extension EndToEndTests {
    struct UploadTests {
        private static let models = [
            "tales-5m", "pirate", "shout", "telegram", "robots", "shakespeare",
        ]
        private static let pirate = PackageFiles.talesAdapters.appending(path: "pirate")

        private func stream(_ index: Int) -> Ask {
            var ask = Ask(
                Self.models[index % Self.models.count],
                .text("Once upon a time there was number \(index)"), 300)
            // Every other one is sampled: a seed makes it as repeatable as a greedy one.
            if !index.isMultiple(of: 2) {
                ask.temperature = 1
                ask.seed = index
            }
            return ask
        }

        private func streams(_ client: Client) async throws -> [StreamedAnswer] {
            try await withThrowingTaskGroup(of: (Int, StreamedAnswer).self) { group in
                for index in 0..<32 {
                    group.addTask { (index, try await client.streamed(stream(index))) }
                }
                let answers = try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
                return (0..<32).compactMap { answers[$0] }
            }
        }

        /// Uploads adapters, answers through each, and deletes them again.
        private func changeAdapters(_ client: Client) async throws {
            for index in 0..<20 {
                let archive = try AdapterArchive.tar(Self.pirate, alpha: 20 + index)
                let created = try await client.put("guest-\(index)", archive)
                #expect(created.status == 201, "\(created.text)")
                let answer = try await client.complete(
                    Ask("guest-\(index)", .text("Hello"), 4))
                #expect(try answer.choice().tokenIds?.count == 4)
                if index >= 3 {
                    let gone = try await client.delete("guest-\(index - 3)")
                    #expect(gone.status == 200, "\(gone.text)")
                }
            }
            for index in 17..<20 {
                let gone = try await client.delete("guest-\(index)")
                #expect(gone.status == 200)
            }
        }

        @Test func uploadsAndDeletionsChangeNoStream() async throws {
            try await LorryServer.run { server in
                let client = server.client
                let quiet = try await streams(client)
                async let changes: Void = changeAdapters(client)
                let busy = try await streams(client)
                try await changes
                #expect(busy.count == 32)
                for (index, pair) in zip(quiet, busy).enumerated() {
                    #expect(pair.0.tokenIDs.count == 300, "stream \(index)")
                    #expect(pair.0.tokenIDs == pair.1.tokenIDs, "stream \(index)")
                    #expect(pair.0.text == pair.1.text, "stream \(index)")
                    #expect(pair.1.finishReason == "length", "stream \(index)")
                }
                report("quiet", quiet)
                report("with uploads", busy)
                let models: ModelList = try await client.get("/v1/models").decoded()
                #expect(models.data.map(\.id).sorted() == Self.models.sorted())
                #expect(try await client.metricsAtRest().isAtRest)
            }
        }

        /// Times depend on the machine, so they are shown and not asserted.
        private func report(_ name: String, _ answers: [StreamedAnswer]) {
            let gaps = answers.flatMap(\.gaps).sorted()
            guard let longest = gaps.last else { return }
            let median = gaps[gaps.count / 2]
            let percentile = gaps[gaps.count * 99 / 100]
            let positions = answers.compactMap { answer in
                answer.gaps.firstIndex { $0 * 5 > longest * 4 }
            }
            print(
                "\(name): median gap \(median), 99 % \(percentile), longest \(longest), "
                    + "gaps near the longest after tokens \(positions.sorted())")
        }

        @Test func aRequestKeepsADeletedAdapterToItsEnd() async throws {
            try await LorryServer.run { server in
                let client = server.client
                let archive = try AdapterArchive.tar(Self.pirate, alpha: 5)
                let name = "short-lived"
                #expect(try await client.put(name, archive).status == 201)
                let ask = Ask(name, .text("Once upon a time"), 400)
                let whole = try await client.streamed(ask)
                let base = try await client.streamed(
                    Ask("tales-5m", .text("Once upon a time"), 400))
                #expect(whole.tokenIDs != base.tokenIDs)

                let recorder = StreamedAnswer.Recorder()
                try await client.stream(ask) { event in
                    let isFirst = recorder.tokenCount == 0
                    try recorder.record(event)
                    guard isFirst else { return true }
                    #expect(
                        try await client.delete(name).status == 200)
                    #expect(try await client.post("/v1/completions", ask).status == 404)
                    // Another adapter under the same name must not reach the running request.
                    let other = try AdapterArchive.tar(Self.pirate, alpha: 50)
                    #expect(try await client.put(name, other).status == 201)
                    return true
                }
                #expect(try recorder.finished().tokenIDs == whole.tokenIDs)
                #expect(try await client.streamed(ask).tokenIDs != whole.tokenIDs)
            }
        }
    }
}
