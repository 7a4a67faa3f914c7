import Foundation
import NIOHTTP1
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// What tests of disks share.
enum DiskTrouble {
    /// The adapters that were there are served, whatever the disk does.
    static func expectServed(_ client: Client, _ names: [String] = ["pirate"]) async throws {
        for name in names {
            let ask = Ask(name, .text("Once upon a time"), 4)
            #expect(try await client.post("/v1/completions", ask).status == 200, "\(name)")
        }
    }

    static func archive(_ name: String, alpha: Int) throws -> [UInt8] {
        try AdapterArchive.tar(PackageFiles.talesAdapters.appending(path: name), alpha: alpha)
    }

    static func refusal(
        _ reply: Reply
    ) throws -> (status: Int, type: String, message: String) {
        struct Body: Decodable {
            struct Failure: Decodable {
                let message: String
                let type: String
            }
            let error: Failure
        }
        let body: Body = try reply.decoded()
        return (reply.status, body.error.type, body.error.message)
    }

    /// - Throws: where it does not end with 0.
    static func command(_ words: [String]) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = words
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw TestFailure("'\(words.joined(separator: " "))' failed")
        }
    }
}

extension EndToEndTests {
    /// Disks of their own that are full or read-only, in a mount namespace.
    struct RealDiskTests {
        /// Mounting needs root, or the right to make a namespace.
        static let canMount =
            (try? DiskTrouble.command(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]))
            != nil

        /// Runs a server whose state directory is a disk of its own in its mount namespace. `body`
        /// gets the directory's path as seen from here.
        private func onDisk(
            _ mountOptions: String,
            _ body: (LorryServer, URL) async throws -> Void
        ) async throws {
            let state = try ScratchFolder()
            var options = LorryServer.Options()
            options.state = state
            options.further = ["--weight-cache", "off"]
            let script = #"mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@""#
            options.launcher = [
                "/usr/bin/unshare", "-m", "sh", "-c", script, "sh", mountOptions, state.path,
            ]
            try await LorryServer.run(options) { server in
                let root = "/proc/\(server.process.identifier)/root"
                try await body(server, URL(filePath: root + state.path))
            }
        }

        /// Fills the disk but for some bytes.
        private func fill(_ disk: URL, leaving byteCount: Int) throws -> URL {
            let filler = disk.appending(path: "filler")
            let descriptor = open(filler.path, O_WRONLY | O_CREAT, 0o600)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            let zeros = [UInt8](repeating: 0, count: 4096)
            var written = 0
            while write(descriptor, zeros, zeros.count) == zeros.count { written += zeros.count }
            try #require(errno == ENOSPC && written > byteCount)
            try #require(ftruncate(descriptor, off_t(written - byteCount)) == 0)
            return filler
        }

        @Test(.enabled(if: canMount, "needs the right to mount"))
        func aFullDiskRefusesUploadsAndRecovers() async throws {
            try await onDisk("size=16m") { server, seen in
                let client = server.client
                let upload = try DiskTrouble.archive("shakespeare", alpha: 24)
                // Less than the upload needs; then nothing at all.
                for left in [upload.count / 2, 0] {
                    let filler = try fill(seen, leaving: left)
                    let refused = try DiskTrouble.refusal(try await client.put("guest", upload))
                    #expect(refused.status == 507, "\(refused)")
                    #expect(refused.message.contains("No space left"), "\(refused)")
                    let staging = seen.appending(path: "staging").path
                    #expect(try FileManager.default.contentsOfDirectory(atPath: staging).isEmpty)
                    try await DiskTrouble.expectServed(client)
                    // Small changes fail too where nothing is left, or they are done.
                    let pin = try await client.send(.POST, "/admin/adapters/pirate/pin")
                    #expect(pin.status == 507 || pin.status == 200, "\(pin.text)")
                    let backup = try await client.send(.POST, "/admin/backup")
                    #expect(backup.status == 507 || backup.status == 200, "\(backup.status)")
                    try FileManager.default.removeItem(at: filler)
                    #expect(try await client.put("guest", upload).status == 201)
                    try await DiskTrouble.expectServed(client, ["guest"])
                    #expect(try await client.delete("guest").status == 200)
                }
                #expect(
                    try await client.send(.POST, "/admin/check").text.contains(#""problems":[]"#))
            }
        }

        /// The log of the database grows until the disk is full: a commit fails, none is lost.
        @Test(.enabled(if: canMount, "needs the right to mount"))
        func commitsFillADisk() async throws {
            try await onDisk("size=8m") { server, seen in
                let client = server.client
                let filler = try fill(seen, leaving: 64 << 10)
                var isPinned = false
                var refusedCount = 0
                for _ in 0..<60 {
                    let action = isPinned ? "unpin" : "pin"
                    let reply = try await client.send(.POST, "/admin/adapters/pirate/\(action)")
                    if reply.status == 200 { isPinned.toggle() } else { refusedCount += 1 }
                    #expect(reply.status == 200 || reply.status == 507, "\(reply.text)")
                    let record = try await client.get("/admin/adapters/pirate")
                    #expect(record.text.contains("\"pinned\":\(isPinned)"))
                }
                #expect(refusedCount > 0)
                try FileManager.default.removeItem(at: filler)
                let action = isPinned ? "unpin" : "pin"
                let reply = try await client.send(.POST, "/admin/adapters/pirate/\(action)")
                #expect(reply.status == 200, "\(reply.text)")
            }
        }

        @Test(.enabled(if: canMount, "needs the right to mount"))
        func aDiskWithoutInodesRefusesUploads() async throws {
            try await onDisk("size=32m,nr_inodes=60") { server, seen in
                let client = server.client
                var fillers: [URL] = []
                while true {
                    let filler = seen.appending(path: "filler-\(fillers.count)")
                    let handle = open(filler.path, O_WRONLY | O_CREAT, 0o600)
                    guard handle >= 0 else { break }
                    close(handle)
                    fillers.append(filler)
                }
                let upload = try DiskTrouble.archive("robots", alpha: 24)
                #expect(try await client.put("guest", upload).status == 507)
                try await DiskTrouble.expectServed(client)
                for filler in fillers { try FileManager.default.removeItem(at: filler) }
                #expect(try await client.put("guest", upload).status == 201)
            }
        }

        @Test(.enabled(if: canMount, "needs the right to mount"))
        func aReadOnlyDiskEndsTheStart() async throws {
            let state = try ScratchFolder()
            let script = #"mount -t tmpfs -o ro tmpfs "$1" && shift && exec "$@""#
            let process = try LorryProcess(
                [
                    "serve", "--model", PackageFiles.tales.path, "--port", "0", "--state-dir",
                    state.path,
                ],
                launcher: ["/usr/bin/unshare", "-m", "sh", "-c", script, "sh", state.path])
            #expect(await process.wait() == .exit(1))
            #expect(process.standardError.contains("\(state.path)/lock: Read-only file system"))
        }

        /// Becoming somebody else needs root, and a program that everybody may run.
        static let canBecomeNobody =
            (try? DiskTrouble.command(nobody + [LorryProcess.program().path, "--version"])) != nil
        private static let nobody = ["setpriv", "--reuid=65534", "--clear-groups"]

        @Test(.enabled(if: canBecomeNobody, "needs root, and a program for everybody"))
        func missingPermissionsEndTheStart() async throws {
            let state = try ScratchFolder()
            try Data().write(to: state.url.appending(path: "registry.sqlite"))
            chmod(state.path, 0o755)
            let process = try LorryProcess(
                ["adapters", "list", "--state-dir", state.path],
                launcher: ["/usr/bin/env"] + Self.nobody)
            #expect(await process.wait() == .exit(1))
            #expect(process.standardError.contains("\(state.path)/lock: Permission denied"))
        }
    }
}
