import LorryEngine
import LorryModel
import Synchronization
import Testing

@Suite struct TaskTests {
    private func server(taskCount: Int?) async throws -> TestServer {
        var traits = AdapterTraits()
        traits.taskCount = taskCount
        let server = try TestServer(FakeEngine(saying: "x"), traits: traits)
        try await server.addAdapter("alpha", "first weights")
        return server
    }

    private func reference(_ server: TestServer, _ fields: String) async throws -> AdapterReference
    {
        let answer = try await server.complete("{\"prompt\": \"a\", \(fields)}")
        #expect(answer.status == 200, "\(fields): \(answer.body)")
        return try #require(server.engine.requests.last?.adapter)
    }

    @Test func eachTaskIsAnAdapterOfItsOwn() async throws {
        let server = try await server(taskCount: 3)
        let plain = try await reference(server, #""model": "alpha""#)
        for (fields, task) in [
            (#""model": "alpha", "task_id": null"#, 0), (#""model": "alpha", "task_id": 0"#, 0),
            (#""model": "alpha", "task_id": 2"#, 2), (#""adapter_id": "alpha", "task_id": 1"#, 1),
            (#""model": "base:alpha", "task_id": 1"#, 1),
        ] {
            let other = try await reference(server, fields)
            #expect((other.id == plain.id) == (task == 0), "\(fields)")
            #expect(other.id.digest.count == 64 && other.name == "alpha")
            let error = #expect(throws: AdapterError.self) { try other.load() }
            #expect(error?.message == "never loaded here, task \(task)")
        }
        let first = try await reference(server, #""model": "alpha", "task_id": 1"#)
        let second = try await reference(server, #""model": "alpha", "task_id": 2"#)
        #expect(first.id != second.id)
        server.engine.state.withLock { $0.requests = [] }
    }

    @Test func whatHasNoSuchTaskIs400() async throws {
        for (taskCount, fields, reason) in [
            (3, #""model": "alpha", "task_id": 3"#, "'alpha' has the tasks 0 to 2, not 3."),
            (3, #""model": "alpha", "task_id": -1"#, "must be non-negative, got -1."),
            (3, #""model": "alpha", "task_id": "1""#, "must be an integer of at most 64 bits."),
            (3, #""model": "base", "task_id": 0"#, "the base model has no tasks."),
            (3, #""lora": [{"name": "alpha"}], "task_id": 0"#, "a sum of adapters has no tasks."),
            (nil, #""model": "alpha", "task_id": 0"#, "'alpha' has no tasks."),
        ] as [(Int?, String, String)] {
            let server = try await server(taskCount: taskCount)
            let answer = try await server.complete("{\"prompt\": \"a\", \(fields)}")
            #expect(answer.status == 400, "\(fields)")
            #expect(try answer.string("error.param") == "task_id")
            #expect(try #require(try answer.string("error.message")).hasSuffix(reason))
        }
    }
}
