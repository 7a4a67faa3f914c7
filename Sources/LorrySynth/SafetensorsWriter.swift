import Foundation
import LorryModel

/// Writes safetensors files chunk by chunk, so that memory stays small whatever the tensors' size.
struct SafetensorsWriter {
    /// Bytes of a chunk at most; a few of them exist at a time.
    static let chunkByteCount = 8 << 20

    let seed: UInt64

    private struct Chunk {
        let tensor: TensorSpec
        let elements: Range<Int>
    }

    /// - Parameter wrote: called with the byte count of every piece that reached the file.
    func write(
        _ tensors: [TensorSpec], to file: URL, wrote: (_ byteCount: Int) -> Void = { _ in }
    ) async throws {
        guard FileManager.default.createFile(atPath: file.path, contents: nil) else {
            throw SynthError("cannot create \(file.path)")
        }
        let handle = try FileHandle(forWritingTo: file)
        do {
            try handle.write(contentsOf: Self.header(tensors))
            try await writeChunks(of: tensors, to: handle, wrote: wrote)
            try handle.close()
        } catch {
            // The file is thrown away by the caller; the first error is the one to tell.
            try? handle.close()
            throw error
        }
    }

    /// Chunks are made by several tasks and written in order.
    private func writeChunks(
        of tensors: [TensorSpec], to handle: FileHandle, wrote: (Int) -> Void
    ) async throws {
        let chunks = tensors.flatMap(Self.chunks)
        let window = ProcessInfo.processInfo.activeProcessorCount + 2
        let seed = seed
        try await withThrowingTaskGroup(of: (Int, [UInt8]).self) { group in
            var startedCount = 0
            var writtenCount = 0
            var ready: [Int: [UInt8]] = [:]
            func startMore() {
                while startedCount < min(chunks.count, writtenCount + window) {
                    let index = startedCount
                    group.addTask {
                        let chunk = chunks[index]
                        return (index, chunk.tensor.bytes(of: chunk.elements, seed: seed))
                    }
                    startedCount += 1
                }
            }
            startMore()
            while let (index, bytes) = try await group.next() {
                try Task.checkCancellation()
                ready[index] = bytes
                while let next = ready.removeValue(forKey: writtenCount) {
                    try handle.write(contentsOf: next)
                    writtenCount += 1
                    wrote(next.count)
                }
                startMore()
            }
        }
    }

    private static func chunks(of tensor: TensorSpec) -> [Chunk] {
        let step = chunkByteCount / tensor.type.byteCount
        return stride(from: 0, to: tensor.elementCount, by: step).map {
            Chunk(tensor: tensor, elements: $0..<min($0 + step, tensor.elementCount))
        }
    }

    private static func header(_ tensors: [TensorSpec]) throws -> Data {
        try SafetensorsHeader(
            tensors.map {
                .init(
                    name: $0.name, type: $0.type.safetensorsName, shape: $0.shape,
                    byteCount: $0.byteCount)
            }
        ).encoded()
    }
}
