import Foundation
import LorryModel
import LorryTensor
import Testing

/// Methods whose numbers depend on the request's task.
@Suite struct TaskMethodTests {
    private static let modules = ["q_proj", "down_proj"]
    private static let workers = WorkerPool(threadCount: 1)

    private func poly(splits: Int) -> FoldedAdapter {
        var folded = FoldedAdapter(
            "POLY", Self.modules,
            ["r": 2, "n_tasks": 3, "n_skills": 2, "n_splits": splits, "poly_type": "poly"])
        folded.add("poly_lora_A") { _, into in [splits, 2, into / splits, 2] }
        folded.add("poly_lora_B") { out, _ in [splits, 2, 2, out / splits] }
        folded.add("poly_router.module_logits") { _, _ in [3, splits * 2] }
        return folded
    }

    /// A task is the same as an adapter whose only task it is, which peft's fixtures are held to.
    @Test(arguments: [1, 2]) func aTaskOfPolyMixesBySkills(splits: Int) throws {
        let several = poly(splits: splits)
        try several.check { path, _ in
            let (out, into) = FoldedAdapter.dimensions(path)
            let a = several.floats(path, "poly_lora_A")
            let b = several.floats(path, "poly_lora_B")
            let logits = several.floats(path, "poly_router.module_logits")
            func share(_ split: Int, _ skill: Int) -> Float {
                let own = (0..<2).map { 1 / (1 + exp(-logits[split * 2 + $0])) }
                return own[skill] / (own[0] + own[1])
            }
            let (inPart, outPart) = (into / splits, out / splits)
            func down(_ column: Int, _ rank: Int) -> Float {
                let (split, place) = (column / inPart, column % inPart)
                return (0..<2).reduce(0) {
                    $0 + share(split, $1) * a[((split * 2 + $1) * inPart + place) * 2 + rank]
                }
            }
            func up(_ row: Int, _ rank: Int) -> Float {
                let (split, place) = (row / outPart, row % outPart)
                return (0..<2).reduce(0) {
                    $0 + share(split, $1) * b[((split * 2 + $1) * 2 + rank) * outPart + place]
                }
            }
            return (0..<out * into).map { index in
                (0..<2).reduce(0) { $0 + up(index / into, $1) * down(index % into, $1) / 2 }
            }
        }
        for task in 0..<3 {
            var single = several
            single.adapter.set("n_tasks", 1)
            for (name, tensor) in several.adapter.file.tensors where name.contains("logits") {
                let width = 2 * splits
                single.adapter.file.tensors[name]?.shape = [1, width]
                single.adapter.file.tensors[name]?.floats = Array(
                    tensor.floats[task * width..<(task + 1) * width])
            }
            #expect(
                try bytes(several.adapter, task: task) == bytes(single.adapter, task: 0))
        }
        #expect(try bytes(several.adapter, task: 0) != bytes(several.adapter, task: 1))
    }

    private var prompts: CraftedAdapter {
        var adapter = CraftedAdapter(modules: [])
        adapter.configuration = [
            "peft_type": "MULTITASK_PROMPT_TUNING", "task_type": "CAUSAL_LM",
            "num_virtual_tokens": 3, "num_ranks": 2, "num_tasks": 4, "num_layers": 2,
            "prompt_tuning_init": "RANDOM", "prompt_tuning_init_task": 0,
        ]
        adapter.file.add("prompt_embeddings", [3, TinyModel.hiddenSize])
        adapter.file.add("prefix_task_cols", [4, 3, 2])
        adapter.file.add("prefix_task_rows", [4, 2, TinyModel.hiddenSize])
        return adapter
    }

    @Test(arguments: 0..<4) func aTaskScalesThePrompt(task: Int) throws {
        let file = prompts.file.tensors
        func floats(_ name: String) -> [Float] { file[name]?.floats ?? [] }
        let width = TinyModel.hiddenSize
        let product = plainProduct(
            Array(floats("prefix_task_cols")[task * 6..<task * 6 + 6]),
            Array(floats("prefix_task_rows")[task * 2 * width..<(task + 1) * 2 * width]),
            3, width, 2)
        let expected = zip(floats("prompt_embeddings"), product).map { $0 * $1 }
        let found = try bytes(prompts, task: task).withUnsafeBytes { bytes in
            (0..<3 * width).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
        }
        #expect(zip(found, expected).allSatisfy { abs($0 - $1) < 1e-6 })
    }

    @Test func tasksAreTold() throws {
        #expect(try prompts.inspect().traits.taskCount == 4)
        #expect(try poly(splits: 1).adapter.inspect().traits.taskCount == 3)
        #expect(throws: AdapterError.self) { try bytes(prompts, task: 4) }
        #expect(throws: AdapterError.self) { try bytes(prompts, task: -1) }
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        try poly(splits: 1).checkRefusals()
        var odd = poly(splits: 1)
        odd.adapter.set("n_splits", 3)
        let error = #expect(throws: AdapterError.self) { try odd.adapter.inspect() }
        #expect(error?.message.contains("n_splits") == true)
        var other = poly(splits: 1)
        other.adapter.set("poly_type", "mono")
        #expect(throws: AdapterError.self) { try other.adapter.inspect() }
        for name in ["prompt_embeddings", "prefix_task_cols", "prefix_task_rows"] {
            var changed = prompts
            changed.file.tensors[name]?.shape.append(1)
            let error = #expect(throws: AdapterError.self) { try changed.inspect() }
            #expect(error?.message.contains(name) == true)
        }
    }

    private func bytes(_ adapter: CraftedAdapter, task: Int) throws -> [UInt8] {
        let folder = try TestFolder()
        try TinyModel.write(to: folder, TinyModel.tensors())
        let model = try DecoderModel(directory: folder.url, format: .f32, pool: Self.workers)
        try adapter.write(to: folder)
        return try AdapterCompiler.compile(
            directory: folder.url, model: model, format: .f32, task: task
        ).operandBytes
    }
}
