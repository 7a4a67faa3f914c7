import Foundation
import LorryEngine
import LorryModel
import LorryTensor
import Testing

/// Holds the engine's numbers against what transformers and peft answered in single precision.
///
/// The bundled fixtures are always run; the environment variable `LORRY_FIXTURES_DIR` names a folder
/// with further ones of the same layout.
@Suite struct ReferenceAnswersTests {
    static let folders: [URL] = {
        var roots = [ReferenceModel.bundledRoot]
        if let path = ProcessInfo.processInfo.environment["LORRY_FIXTURES_DIR"] {
            roots.append(URL(filePath: path))
        }
        let names = ["llama", "llama3", "llama_bias", "mistral", "qwen2"]
        return roots.flatMap { root in names.map { root.appending(path: $0) } }
            .filter { FileManager.default.fileExists(atPath: $0.path) }
    }()

    /// All adapters and prompts in one batch, against the reference; then each alone, bit for bit.
    @Test(arguments: folders)
    func answersEqualTheReference(_ folder: URL) async throws {
        let reference = try ReferenceModel(folder)
        let pool = WorkerPool(threadCount: 2)
        let engine = try reference.engine(workers: pool, batchTokenCount: 96)
        // Of some adapters there are answers although they are refused.
        let names = reference.answers.keys.sorted().filter {
            $0.isEmpty
                || FileManager.default.fileExists(
                    atPath: folder.appending(path: "adapters/\($0)").path)
        }
        #expect(names.count >= 3)
        var jobs: [(name: String, prompt: Int)] = []
        for name in names {
            for prompt in reference.prompts.indices { jobs.append((name, prompt)) }
        }
        let references = try reference.adapterReferences(names.filter { !$0.isEmpty }, engine.model)
        var mixed: [[GeneratedToken]] = []
        try await withThrowingTaskGroup(of: (Int, [GeneratedToken]).self) { group in
            for (index, job) in jobs.enumerated() {
                let request = reference.request(job.prompt, references[job.name])
                group.addTask { (index, try await engine.tokens(request)) }
            }
            var byIndex = [Int: [GeneratedToken]]()
            for try await (index, tokens) in group { byIndex[index] = tokens }
            mixed = jobs.indices.map { byIndex[$0] ?? [] }
        }
        for (job, tokens) in zip(jobs, mixed) {
            let label = "\(folder.lastPathComponent)/\(job.name)/\(job.prompt)"
            reference.check(tokens, job.name, job.prompt, label: label)
            let alone = try await engine.tokens(reference.request(job.prompt, references[job.name]))
            #expect(alone == tokens, "\(label): alone it answers other bits than in the batch")
        }
        await engine.shutdown(drainDeadline: .seconds(5))
        let statistics = engine.statistics()
        #expect(statistics.usedKVBlockCount == 0)
        #expect(statistics.runningCount == 0)
    }
}
