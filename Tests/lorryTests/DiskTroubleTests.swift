import Foundation
import NIOHTTP1
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension EndToEndTests {
    /// Disks that are full, fail, or go away under a running server.
    struct DiskTroubleTests {
        struct Trouble: Sendable, CustomTestStringConvertible {
            let testDescription: String
            let operations: DiskLog.Operations
            let code: Int32
            var part = ""
            let status: Int
            let word: String
        }

        static let troubles = [
            Trouble(
                testDescription: "full while a body arrives", operations: .write, code: ENOSPC,
                part: "/staging/", status: 507, word: "No space left"),
            Trouble(
                testDescription: "quota while a body arrives", operations: .write, code: EDQUOT,
                part: "/staging/", status: 507, word: "quota"),
            Trouble(
                testDescription: "error while a body arrives", operations: .write, code: EIO,
                part: "/staging/", status: 500, word: "Input/output error"),
            Trouble(
                testDescription: "full at a file's sync", operations: .sync, code: ENOSPC,
                part: "safetensors", status: 507, word: "No space left"),
            Trouble(
                testDescription: "error at a folder's sync", operations: .sync, code: EIO,
                part: "/store", status: 500, word: "cannot sync"),
            Trouble(
                testDescription: "no room for a folder", operations: .makeFolder, code: ENOSPC,
                status: 507, word: "cannot create folder"),
            Trouble(
                testDescription: "no inode for a file", operations: .open, code: ENOSPC,
                part: "/staging/", status: 507, word: "cannot create"),
            Trouble(
                testDescription: "no descriptor for a file", operations: .open, code: EMFILE,
                part: "/staging/", status: 503, word: "Too many open files"),
            Trouble(
                testDescription: "rename fails", operations: .rename, code: EIO, status: 500,
                word: "cannot rename"),
            Trouble(
                testDescription: "full in the commit", operations: .write, code: ENOSPC,
                part: "sqlite", status: 507, word: "registry database"),
            Trouble(
                testDescription: "error in the commit", operations: .write, code: EIO,
                part: "sqlite", status: 500, word: "registry database"),
            Trouble(
                testDescription: "error at the commit's sync", operations: .sync, code: EIO,
                part: "sqlite", status: 500, word: "registry database"),
            Trouble(
                testDescription: "read-only", operations: [.open, .write, .makeFolder, .rename],
                code: EROFS, status: 500, word: "Read-only file system"),
        ]

        @Test func everyFailingCallIsToldAndLeavesNothing() async throws {
            let state = try ScratchFolder()
            let log = try DiskLog(root: state.url)
            var options = LorryServer.Options()
            options.state = state
            options.environment = log.environment
            let kept = try DiskTrouble.archive("shakespeare", alpha: 24)
            try await LorryServer.run(options) { server in
                let client = server.client
                #expect(try await client.put("kept", kept).status == 201)
                for (number, trouble) in Self.troubles.enumerated() {
                    let name = trouble.testDescription
                    let upload = try DiskTrouble.archive("robots", alpha: 30 + number)
                    let before = try tree(state)
                    try log.fail(trouble.operations, with: trouble.code, in: trouble.part)
                    let refused = try DiskTrouble.refusal(try await client.put("guest", upload))
                    #expect(refused.status == trouble.status, "\(name): \(refused)")
                    #expect(refused.message.contains(trouble.word), "\(name): \(refused)")
                    #expect(
                        (refused.type == "InsufficientStorageError") == (trouble.status == 507))
                    #expect(try log.failedCount > 0, "\(name)")
                    #expect(try await client.get("/admin/adapters/guest").status == 404)
                    try await DiskTrouble.expectServed(client, ["pirate", "kept"])
                    try log.failNothing()
                    // It works again, and what was left for a crash's sake is gone with it.
                    #expect(try await client.put("guest", upload).status == 201, "\(name)")
                    try await DiskTrouble.expectServed(client, ["guest"])
                    #expect(try await client.delete("guest").status == 200)
                    #expect(try await settled(state) == before, "\(name)")
                }
                #expect(server.process.standardError.contains("Request failed"))
            }
            try await expectSound(state)
        }

        /// A commit whose sync failed was refused, but a crash brings its rows back: whole.
        @Test func aCommitThatComesBackIsWhole() async throws {
            let state = try ScratchFolder()
            let log = try DiskLog(root: state.url)
            var options = LorryServer.Options()
            options.state = state
            options.environment = log.environment
            let server = try await LorryServer.start(options, state: state)
            try log.fail(.sync, with: EIO, in: "sqlite")
            let upload = try DiskTrouble.archive("robots", alpha: 30)
            #expect(try await server.client.put("guest", upload).status == 500)
            await server.kill()
            try log.failNothing()
            try await expectSound(state)
            try await LorryServer.run(options) { server in
                try await DiskTrouble.expectServed(server.client, ["pirate"])
                let found = try await server.client.get("/admin/adapters/guest")
                #expect(found.status == 404 || found.status == 200)
                if found.status == 200 {
                    try await DiskTrouble.expectServed(server.client, ["guest"])
                }
            }
        }

        /// The database's file takes no checkpoint, so that its log grows; changes go on and stay.
        @Test func checkpointsThatFailLoseNothing() async throws {
            let state = try ScratchFolder()
            let log = try DiskLog(root: state.url)
            var options = LorryServer.Options()
            options.state = state
            options.environment = log.environment
            let server = try await LorryServer.start(options, state: state)
            for (part, operations) in [("write", DiskLog.Operations.write), ("sync", .sync)] {
                try log.fail(operations, with: ENOSPC, in: "registry.sqlite$")
                var count = 0
                while try log.failedCount == 0, count < 2000 {
                    for action in ["pin", "unpin"] {
                        let path = "/admin/adapters/pirate/\(action)"
                        let reply = try await server.client.send(.POST, path)
                        #expect(reply.status == 200, "\(reply.text)")
                    }
                    count += 2
                }
                #expect(try log.failedCount > 0, "no checkpoint was tried: \(part)")
            }
            #expect(try await server.client.send(.POST, "/admin/adapters/shout/pin").status == 200)
            await server.kill()
            try log.failNothing()
            try await expectSound(state)
            try await LorryServer.run(options) { server in
                let record = try await server.client.get("/admin/adapters/shout")
                #expect(record.text.contains(#""pinned":true"#))
                let other = try await server.client.get("/admin/adapters/pirate")
                #expect(other.text.contains(#""pinned":false"#))
            }
        }

        private func expectSound(_ state: ScratchFolder) async throws {
            let check = try await LorryProcess.result(["state", "check", "--state-dir", state.path])
            #expect(check.ending == .exit(0), "\(check.output)")
        }

        /// Paths of the store and of staging.
        private func tree(_ state: ScratchFolder) throws -> [String] {
            let paths =
                FileManager.default.enumerator(atPath: state.path)?
                .compactMap { $0 as? String } ?? []
            // The first two digits of a version stay as a folder.
            return paths.filter { $0.hasPrefix("staging") || $0.split(separator: "/").count > 2 }
                .filter { $0.hasPrefix("st") }.sorted()
        }

        /// Files of what was removed go once no request holds them.
        private func settled(_ state: ScratchFolder) async throws -> [String] {
            var last = try tree(state)
            for _ in 0..<100 {
                try await Task.sleep(for: .milliseconds(10))
                let now = try tree(state)
                if now == last && !now.contains(where: { $0.hasPrefix("staging/") }) { return now }
                last = now
            }
            return last
        }

        @Test func aDirectoryThatIsGoneRefusesChanges() async throws {
            let state = try ScratchFolder()
            let place = state.url.appending(path: "place")
            try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
            var options = LorryServer.Options()
            options.further = ["--state-dir", place.path]
            try await LorryServer.run(options) { server in
                let client = server.client
                try await DiskTrouble.expectServed(client)
                try FileManager.default.removeItem(at: place)
                let upload = try DiskTrouble.archive("robots", alpha: 24)
                let refused = try DiskTrouble.refusal(try await client.put("guest", upload))
                #expect(refused.status == 500 && refused.message.contains(place.path))
                let pin = try DiskTrouble.refusal(
                    try await client.send(.POST, "/admin/adapters/shout/pin"))
                #expect(pin.status == 500 && pin.message.contains("removed or replaced"))
                // What is in memory needs no file.
                try await DiskTrouble.expectServed(client)
            }
        }

        // MARK: Limits of the process

        private func limit(_ process: LorryProcess, _ name: String, _ value: Int) throws {
            try DiskTrouble.command([
                "prlimit", "--pid", "\(process.identifier)", "--\(name)=\(value):",
            ])
        }

        /// The process's open descriptors, once what the start opened is closed again.
        private func settledDescriptors(_ process: LorryProcess) async throws -> Set<Int> {
            func open() throws -> Set<Int> {
                let folder = "/proc/\(process.identifier)/fd"
                return Set(
                    try FileManager.default.contentsOfDirectory(atPath: folder)
                        .compactMap { Int($0) })
            }
            var last = try open()
            var unchangedCount = 0
            while unchangedCount < 10 {
                try await Task.sleep(for: .milliseconds(20))
                let now = try open()
                unchangedCount = now == last ? unchangedCount + 1 : 0
                last = now
            }
            return last
        }

        @Test func descriptorsThatAreUsedUpRefuseUploads() async throws {
            var options = LorryServer.Options()
            options.further = ["--weight-cache", "off"]
            try await LorryServer.run(options) { server in
                let upload = try DiskTrouble.archive("robots", alpha: 24)
                let used = try await settledDescriptors(server.process)
                let free = (0...used.count).first { !used.contains($0) } ?? used.count
                // One more for the client's connection, none for its files.
                try limit(server.process, "nofile", free + 1)
                let reply = try await server.client.put("guest", upload)
                let refused = try DiskTrouble.refusal(reply)
                #expect(refused.status == 503 && reply.header("retry-after") != nil, "\(refused)")
                #expect(refused.message.contains("Too many open files"), "\(refused)")
                try limit(server.process, "nofile", 1024)
                #expect(try await server.client.put("guest", upload).status == 201)
                try await DiskTrouble.expectServed(server.client, ["pirate", "guest"])
            }
        }

        @Test func aLimitOnTheSizeOfFilesRefusesUploads() async throws {
            try await LorryServer.run { server in
                let upload = try DiskTrouble.archive("shakespeare", alpha: 24)
                try limit(server.process, "fsize", 300_000)
                let refused = try DiskTrouble.refusal(try await server.client.put("guest", upload))
                #expect(refused.status == 507 && refused.message.contains("File too large"))
                try await DiskTrouble.expectServed(server.client)
            }
        }
    }
}
