import Foundation
import Testing

extension EndToEndTests {
    struct WeightCacheTests {
        private static let ask = Ask("tales-5m", .text("Once upon a time"), 16)

        private func wait(for text: String, in server: LorryServer) async throws {
            while !server.process.standardError.contains(text) {
                guard server.process.isRunning else { throw TestFailure("the server ended") }
                try await Task.sleep(for: .milliseconds(5))
            }
        }

        @Test(arguments: ["bf16", "int8", "int4"])
        func aSecondStartAnswersFromPackedWeights(_ format: String) async throws {
            var options = LorryServer.Options()
            options.state = try ScratchFolder()
            // The later of two values counts.
            options.further = ["--weights", format]
            var answers: [[Int]] = []
            try await LorryServer.run(options) { server in
                answers.append(
                    try await server.client.complete(Self.ask).choice().tokenIds ?? [])
                try await wait(for: "packed weights written to the cache", in: server)
            }
            try await LorryServer.run(options) { server in
                #expect(server.process.standardError.contains("packed weights read from the cache"))
                answers.append(
                    try await server.client.complete(Self.ask).choice().tokenIds ?? [])
            }
            #expect(answers[0].count == 16 && answers[0] == answers[1])
        }

        @Test func itCanBeTurnedOff() async throws {
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            options.further = ["--weight-cache", "off"]
            try await LorryServer.run(options) { server in
                _ = try await server.client.complete(Self.ask)
            }
            #expect(!FileManager.default.fileExists(atPath: state.path + "/weights"))
        }

        /// A file stands where the folder would be made.
        @Test func aFolderThatCannotBeWrittenStopsNothing() async throws {
            let state = try ScratchFolder()
            try Data().write(to: state.url.appending(path: "weights"))
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { server in
                try await wait(for: "packed weights not written to the cache", in: server)
                #expect(server.process.standardError.contains(state.path + "/weights"))
                _ = try await server.client.complete(Self.ask).choice()
            }
        }
    }
}
