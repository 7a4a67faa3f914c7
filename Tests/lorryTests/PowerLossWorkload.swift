import Foundation
import NIOHTTP1
import Testing

/// Clients that note in a log what they ask for and what they were told.
enum PowerLossWorkload {
    /// What the log must hold of a request: `begin 7 name`, then `done 7 name state`.
    struct Ledger {
        private var states: [String: String] = [:]
        private var open: [String: String] = [:]
        /// State that each request led to.
        private let outcomes: [String: String]
        private(set) var doneCount = 0

        init(_ records: [DiskLog.Record]) {
            var outcomes: [String: String] = [:]
            for record in records where record.kind == .mark {
                let words = record.text.split(separator: " ", maxSplits: 3).map(String.init)
                if words[0] == "done" { outcomes[words[1]] = words[3] }
            }
            self.outcomes = outcomes
        }

        mutating func apply(_ record: DiskLog.Record) {
            guard record.kind == .mark else { return }
            let words = record.text.split(separator: " ", maxSplits: 3).map(String.init)
            if words[0] == "begin" {
                open[words[2]] = words[1]
            } else {
                open[words[2]] = nil
                states[words[2]] = words[3]
                doneCount += 1
            }
        }

        /// What a name may be now: as it was acknowledged last, or as a request that is under
        /// way would leave it.
        func allowed(_ name: String) -> Set<String> {
            let next = open[name].flatMap { outcomes[$0] }
            return Set([states[name] ?? "-", next].compactMap { $0 })
        }
    }

    struct Record: Decodable {
        let version: String
        let pinned: Bool
        var state: String { "\(version) \(pinned)" }
    }

    /// One name's client: a request at a time, each with its marks.
    struct Worker: Sendable {
        let name: String
        let client: Client
        let log: DiskLog

        func change(_ number: Int, _ send: (Client) async throws -> Reply) async throws {
            let id = "\(name)-\(number)"
            try log.mark("begin \(id) \(name)")
            let reply = try await send(client)
            guard (200..<300).contains(reply.status) else {
                throw TestFailure("\(id): \(reply.status) \(reply.text)")
            }
            let record: Record = try reply.decoded()
            try log.mark("done \(id) \(name) \(record.state)")
        }

        func remove(_ number: Int) async throws {
            let id = "\(name)-\(number)"
            try log.mark("begin \(id) \(name)")
            #expect(try await client.delete(name).status == 200)
            try log.mark("done \(id) \(name) -")
        }

        func act(_ action: String, _ number: Int) async throws {
            try await change(number) {
                try await $0.send(.POST, "/admin/adapters/\(name)/\(action)")
            }
        }

        func run(_ archives: [[UInt8]], rounds: Int) async throws {
            for round in 0..<rounds {
                let (first, second) = (archives[round % 4], archives[(round + 1) % 4])
                try await change(6 * round) { try await $0.put(name, first) }
                try await change(6 * round + 1) { try await $0.put(name, second) }
                try await act("pin", 6 * round + 2)
                try await act("rollback", 6 * round + 3)
                try await act("unpin", 6 * round + 4)
                if round % 2 == 0 { try await remove(6 * round + 5) }
            }
        }

        func merge(rounds: Int) async throws {
            for round in 0..<rounds {
                try await change(2 * round) {
                    let object =
                        #"{"adapters": [{"name": "pirate"}, {"name": "robots"}], "#
                        + #""combination_type": "cat"}"#
                    return try await $0.send(
                        .POST, "/admin/adapters/\(name)/merge",
                        headers: [("content-type", "application/json")],
                        body: Array(object.utf8))
                }
                try await remove(2 * round + 1)
            }
        }
    }
}
