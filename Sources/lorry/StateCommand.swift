import ArgumentParser
import Foundation
import LorryRegistry
import NIOHTTP1

struct StateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "state",
        abstract: "Back up, restore or check a state directory.",
        discussion: """
            Without --state-dir `backup` and `check` work on the running server at --url, with an \
            admin key of the tenant 'default'. With it they open the directory themselves, which no \
            server may be using at the time.
            """,
        subcommands: [Backup.self, Restore.self, Check.self])

    struct Backup: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Save every adapter, its history and the audit log.",
            discussion: """
                What is saved is the state of one moment, whatever is uploaded or removed \
                meanwhile; it is checked while it is written and gets its name when it is whole. \
                Ends with 1 where versions are damaged, which are left out and named.
                """)
        @OptionGroup var place: AdapterPlace
        @Option(
            help: """
                Where to: a file that ends in .tar, or a new directory, which is a state directory \
                then.
                """)
        var to: String

        func run() async throws {
            let sink: any BackupSink =
                to.hasSuffix(".tar")
                ? try BackupFile(path: to)
                : try StateRestore(stateDirectory: URL(fileURLWithPath: to, isDirectory: true))
            let contents: BackupContents
            do {
                contents = try await fill(sink)
            } catch {
                sink.discard()
                throw error
            }
            print("Saved \(contents.summary) to \(to)")
            try contents.failIfDamaged()
        }

        private func fill(_ sink: any BackupSink) async throws -> BackupContents {
            guard let directory = try place.ownedDirectory else { return try await download(sink) }
            let registry = try AdapterRegistry(stateDirectory: directory) { _ in
                throw ClientError("nothing is added by a backup")
            }
            do {
                let backup = try await registry.makeBackup(actor: "lorry state")
                let bar = ProgressBar(label: "saving")
                var done = 0
                while let bytes = try await backup.next() {
                    try sink.push(bytes)
                    done += bytes.count
                    bar.update(Double(done) / Double(max(backup.estimatedByteCount, 1)))
                }
                bar.finish()
            } catch {
                await registry.close()
                throw error
            }
            await registry.close()
            return try sink.finish()
        }

        private func download(_ sink: any BackupSink) async throws -> BackupContents {
            let request = ServerClient.Request(method: .POST, path: "/admin/backup")
            try await place.client.exchange(request) { status, headers, chunks in
                guard status == 200 else {
                    var body: [UInt8] = []
                    while let chunk = try await chunks.next() { body += chunk }
                    throw ClientError(
                        ServerClient.Answer(status: status, headers: headers, body: body).failure)
                }
                let total = headers.first(name: "x-lorry-estimated-bytes").flatMap(Int.init) ?? 0
                let bar = ProgressBar(label: "saving")
                var done = 0
                while let chunk = try await chunks.next() {
                    try sink.push(chunk)
                    done += chunk.count
                    bar.update(Double(done) / Double(max(total, 1)))
                }
                bar.finish()
            }
            return try sink.finish()
        }
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a new state directory of a backup.",
            discussion: """
                Everything is checked before the directory can be used; after a failure it is as \
                before, and after a crash run it again. Ends with 1 where the backup itself says \
                that versions were damaged.
                """)
        @Argument(help: "A file that `lorry state backup` wrote.", completion: .file())
        var file: String
        @Option(help: "A directory that is empty, or not there.", completion: .directory)
        var stateDir: String

        func run() throws {
            guard let input = FileHandle(forReadingAtPath: file) else {
                throw ClientError("\(file) cannot be read")
            }
            let restore = try StateRestore(
                stateDirectory: URL(fileURLWithPath: stateDir, isDirectory: true))
            let total = (try? input.seekToEnd()) ?? 0
            try input.seek(toOffset: 0)
            let bar = ProgressBar(label: "restoring")
            var done = 0
            while let data = try input.read(upToCount: 1 << 20), !data.isEmpty {
                try restore.push([UInt8](data))
                done += data.count
                bar.update(Double(done) / Double(max(total, 1)))
            }
            bar.finish()
            let contents = try restore.finish()
            print("Restored \(contents.summary) to \(stateDir)")
            try contents.failIfDamaged()
        }
    }

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read the database and every stored file, and say what is wrong.",
            discussion: "Ends with 1 where something is. A running server stops serving damage.")
        @OptionGroup var place: AdapterPlace

        func run() async throws {
            let report =
                if let directory = try place.ownedDirectory {
                    try StateReport.ofUnused(directory)
                } else {
                    try await ask()
                }
            for leftover in report.leftovers { print("left over: \(leftover)") }
            for problem in report.problems { print("damaged: \(problem)") }
            print(
                "\(report.nameCount) names, \(report.versionCount) versions, "
                    + "\(ByteCountText.text(report.byteCount)): "
                    + (report.problems.isEmpty ? "all is well" : "not all is well"))
            if !report.problems.isEmpty { throw ExitCode.failure }
        }

        private func ask() async throws -> StateReport {
            struct Answer: Decodable {
                let names, versions, bytes: Int
                let problems, leftovers: [String]
            }
            let request = ServerClient.Request(method: .POST, path: "/admin/check")
            let answer = try await place.client.send(request).checked().decoded(Answer.self)
            var report = StateReport()
            report.nameCount = answer.names
            report.versionCount = answer.versions
            report.byteCount = answer.bytes
            report.problems = answer.problems
            report.leftovers = answer.leftovers
            return report
        }
    }
}

extension AdapterPlace {
    /// The state directory to open; nil where a server is meant.
    /// - Throws: where both are given, or there is no registry in the directory.
    fileprivate var ownedDirectory: URL? {
        get throws {
            guard let stateDir else { return nil }
            try checkUrl()
            try Self.checkRegistry(stateDir)
            return URL(fileURLWithPath: stateDir, isDirectory: true)
        }
    }
}

extension BackupContents {
    fileprivate var summary: String {
        "\(versionCount) versions (\(ByteCountText.text(byteCount)))"
    }

    /// - Throws: `ExitCode` 1 after naming what is damaged.
    fileprivate func failIfDamaged() throws {
        for damaged in damaged {
            FileHandle.standardError.write(
                Data("not in it: version \(damaged.version): \(damaged.problem)\n".utf8))
        }
        if !damaged.isEmpty { throw ExitCode.failure }
    }
}
