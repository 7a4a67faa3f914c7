import Foundation
import LorryModel
import LorryRegistry
import Testing

struct AdapterLeaseTests {
    let scratch: ScratchFolder
    let state: URL
    let registry: AdapterRegistry

    init() throws {
        scratch = try ScratchFolder()
        state = scratch.sub("state")
        registry = try openRegistry(state)
    }

    private func text(_ lease: AdapterLease) throws -> String {
        try String(
            contentsOf: lease.directory.appendingPathComponent("adapter_model.safetensors"),
            encoding: .utf8)
    }

    /// Removal after the last lease is not awaited by anyone.
    private func waitForStore(_ versions: Set<String>) async throws {
        while storedVersions(state) != versions || !stagedNames(state).isEmpty {
            try await Task.sleep(for: .milliseconds(1))
        }
    }

    @Test func keepsFilesOfARemovedAdapter() async throws {
        let version = try await registry.add("a").record.version
        let first = try registry.acquire("a")
        let second = try registry.acquire("a@\(version.digest.prefix(8))")
        #expect(registry.leaseCount == 2)
        try await registry.remove(name: "a", actor: "x")
        #expect(try text(first) == "weights one")
        first.release()
        first.release()
        #expect(try text(second) == "weights one")
        #expect(registry.leaseCount == 1)
        second.release()
        try await waitForStore([])
        #expect(registry.leaseCount == 0)
    }

    @Test func carriesTheChecksumsOfItsFiles() async throws {
        try await registry.add("a")
        let lease = try registry.acquire("a")
        func checksum(_ name: String) throws -> ContentChecksum {
            try Data(contentsOf: lease.directory.appendingPathComponent(name)).withUnsafeBytes {
                ContentChecksum(of: $0)
            }
        }
        let expected = AdapterChecksums(
            configuration: try checksum("adapter_config.json"),
            weights: try checksum("adapter_model.safetensors"))
        #expect(lease.checksums == expected)
        #expect(lease.contentProblem() == nil)
        // They are read back from the database.
        await registry.close()
        let again = try openRegistry(state)
        #expect(try again.acquire("a").checksums == expected)
    }

    @Test func filesThatWereStoredWithoutChecksumsStillHaveTheirDigests() throws {
        let stored = #"{"name":"a","byteCount":3,"sha256":"00"}"#
        let file = try JSONDecoder().decode(StoredFile.self, from: Data(stored.utf8))
        #expect(file == StoredFile(name: "a", byteCount: 3, sha256: "00"))
        #expect(file.checksum == nil)
    }

    @Test func damageThatALoadFoundIsHealedByAnUpload() async throws {
        let version = try await registry.add("a").record.version
        let lease = try registry.acquire("a")
        let path = lease.directory.appendingPathComponent("adapter_model.safetensors")
        try Data("weights onf".utf8).write(to: path)
        #expect(lease.contentProblem()?.contains("adapter_model.safetensors") == true)
        registry.reportDamage(version, problem: "other bytes", actor: "test")
        while try registry.record(name: "a").state != .damaged {
            try await Task.sleep(for: .milliseconds(1))
        }
        let healed = try await registry.add("a")
        #expect(!healed.created && healed.record.state == .ready)
        #expect(try registry.weights("a") == "weights one")
    }

    @Test func isReleasedWhenLetGo() async throws {
        try await registry.add("a")
        var lease: AdapterLease? = try registry.acquire("a")
        #expect(lease?.record.name == "a")
        try await registry.remove(name: "a", actor: "x")
        lease = nil
        try await waitForStore([])
        #expect(registry.leaseCount == 0)
    }

    @Test func keepsItsVersionWhenTheNameMovesOn() async throws {
        try await registry.add("a")
        let lease = try registry.acquire("a")
        let two = try await registry.add("a", adapterFiles("two")).record
        try await registry.disable(name: "a", actor: "x")
        #expect(try text(lease) == "weights one")
        #expect(lease.record.version != two.version)
    }

    @Test func survivesThatTheSameContentComesBack() async throws {
        let version = try await registry.add("a").record.version
        let lease = try registry.acquire("a")
        try await registry.remove(name: "a", actor: "x")
        #expect(try await registry.add("b").created)
        lease.release()
        // Another change on the same queue shows that the removal has had its turn.
        try await registry.pin(name: "b", actor: "x")
        #expect(storedVersions(state) == [version.digest])
        #expect(try registry.weights("b") == "weights one")
    }

    @Test func sweepsAtStartWhatALeaseKept() async throws {
        try await registry.add("a")
        let lease = try registry.acquire("a")
        try await registry.remove(name: "a", actor: "x")
        await registry.close()
        #expect(storedVersions(state).count == 1)
        let reopened = try openRegistry(state)
        #expect(storedVersions(state).isEmpty)
        #expect(reopened.count == 0)
        lease.release()
    }

    @Test func staysCorrectUnderConcurrentChanges() async throws {
        try await registry.add("a", adapterFiles("0"))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { [registry] in
                for round in 1..<40 {
                    try await registry.add("a", adapterFiles("\(round)"))
                    if round.isMultiple(of: 5) { try await registry.remove(name: "a", actor: "x") }
                }
            }
            for _ in 0..<4 {
                group.addTask { [registry] in
                    for _ in 0..<300 {
                        if let lease = try? registry.acquire("a") {
                            await Task.yield()
                            let text = try String(
                                contentsOf: lease.directory.appendingPathComponent(
                                    "adapter_model.safetensors"), encoding: .utf8)
                            #expect(text.hasPrefix("weights "))
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(registry.leaseCount == 0)
        try await waitForStore(
            Set(try registry.versions(name: "a").map(\.version.digest)))
    }
}
