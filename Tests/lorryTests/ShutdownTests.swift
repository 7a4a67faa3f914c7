import Foundation
import Testing

extension EndToEndTests {
    struct ShutdownTests {
        @Test func runningStreamsEndBeforeTheServerDoes() async throws {
            let state = try ScratchFolder()
            let server = try await LorryServer.start(.init(), state: state)
            #expect(try await server.client.get("/health/ready").status == 200)
            let ask = Ask("pirate", .text("Once upon a time"), 400)
            let whole = try await server.client.streamed(ask)
            let recorder = StreamedAnswer.Recorder()
            try await server.client.stream(ask) { event in
                if recorder.tokenCount == 0 { server.process.send(SIGTERM) }
                try recorder.record(event)
                return true
            }
            let answer = try recorder.finished()
            #expect(answer.tokenIDs == whole.tokenIDs)
            #expect(answer.finishReason == "length")
            #expect(await server.process.wait() == .exit(0))
        }

        @Test func isNotReadyWhileItDrains() async throws {
            let state = try ScratchFolder()
            let server = try await LorryServer.start(.init(), state: state)
            let recorder = StreamedAnswer.Recorder()
            let ask = Ask("pirate", .text("Once upon a time"), 450)
            try await server.client.stream(ask) { event in
                let isFirst = recorder.tokenCount == 0
                try recorder.record(event)
                guard isFirst else { return true }
                server.process.send(SIGTERM)
                // The signal takes effect at some later moment; no new connection comes after it.
                while let reply = try? await server.client.get("/health/ready") {
                    if reply.status == 200 { continue }
                    #expect(reply.status == 503)
                    break
                }
                return true
            }
            #expect(try recorder.finished().tokenIDs.count == 450)
            #expect(await server.process.wait() == .exit(0))
        }

        @Test func aSecondServerTakesOverTheStateFolder() async throws {
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            try await LorryServer.run(options) { server in
                let archive = try AdapterArchive.tar(
                    PackageFiles.talesAdapters.appending(path: "shout"), alpha: 4)
                #expect(try await server.client.put("kept", archive).status == 201)
            }
            options.adapters = nil
            try await LorryServer.run(options) { server in
                let answer = try await server.client.complete(Ask("kept", .text("Hello"), 3))
                #expect(try answer.choice().tokenIds?.count == 3)
            }
        }
    }
}
