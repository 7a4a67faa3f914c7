import Foundation
import LorryTensor

/// The weights of a model folder: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` lists. Every tensor is taken exactly once; what is left over at
/// the end is an error that names it.
package struct Checkpoint {
    private var remaining: [String: SafetensorsFile.Tensor] = [:]
    /// Bytes of all tensors.
    package let byteCount: Int
    /// The mapped files, in the order of their names.
    let shards: [MappedFile]

    /// - Throws: `ModelError` naming the file or tensor at fault.
    package init(directory: URL) throws(ModelError) {
        var total = 0
        var shards: [MappedFile] = []
        for path in try Self.shardPaths(directory) {
            let file: SafetensorsFile
            do { file = try SafetensorsFile(path: path) } catch { throw ModelError("\(error)") }
            shards.append(file.file)
            for (name, tensor) in file.tensors {
                guard remaining.updateValue(tensor, forKey: name) == nil else {
                    throw ModelError("\(path): tensor '\(name)' is in another shard too")
                }
                total += tensor.bytes.count
            }
        }
        byteCount = total
        self.shards = shards
    }

    private static func shardPaths(_ directory: URL) throws(ModelError) -> [String] {
        let single = directory.appending(path: "model.safetensors").path
        let index = directory.appending(path: "model.safetensors.index.json")
        if FileManager.default.fileExists(atPath: single) { return [single] }
        guard FileManager.default.fileExists(atPath: index.path) else {
            throw ModelError(
                "\(directory.path): has neither model.safetensors nor model.safetensors.index.json")
        }
        let file = try ConfigurationFile(index)
        guard let map = file["weight_map"]?.objectValue else {
            throw file.bad("weight_map", "is missing")
        }
        var names: Set<String> = []
        for (tensor, shard) in map.members {
            guard let name = shard.stringValue, !name.isEmpty, !name.contains("/"), name != "..",
                !name.utf8.contains(0)
            else { throw file.bad("weight_map.\(tensor)", "is not a file name") }
            names.insert(name)
        }
        return names.sorted().map { directory.appending(path: $0).path }
    }

    /// The element type that most bytes of the checkpoint have.
    package var prevailingElementType: ElementType? {
        var counts: [ElementType: Int] = [:]
        for tensor in remaining.values {
            if let type = tensor.elementType { counts[type, default: 0] += tensor.bytes.count }
        }
        return counts.max { $0.value < $1.value }?.key
    }

    package func contains(_ name: String) -> Bool { remaining[name] != nil }

    /// Takes a tensor out, checked against the shape that the configuration asks for.
    package mutating func take(_ name: String, shape: [Int]) throws(ModelError)
        -> SafetensorsFile.Tensor
    {
        guard let tensor = remaining.removeValue(forKey: name) else {
            throw ModelError("tensor '\(name)' is missing from the checkpoint")
        }
        guard tensor.shape == shape else {
            throw ModelError("tensor '\(name)' has shape \(tensor.shape), expected \(shape)")
        }
        guard tensor.elementType != nil else {
            throw ModelError(
                "tensor '\(name)' has dtype \(tensor.dtype), expected F32, F16 or BF16")
        }
        return tensor
    }

    /// Takes a one-dimensional tensor as single-precision numbers.
    package mutating func takeVector(_ name: String, count: Int) throws(ModelError) -> [Float] {
        try take(name, shape: [count]).floats()
    }

    package mutating func discard(where isExpected: (String) -> Bool) {
        remaining = remaining.filter { !isExpected($0.key) }
    }

    /// - Throws: `ModelError` naming a tensor that nothing took.
    package func requireEmpty() throws(ModelError) {
        guard let name = remaining.keys.min() else { return }
        throw ModelError(
            "the checkpoint has \(remaining.count) tensors that the configuration does not explain, "
                + "such as '\(name)'")
    }
}

extension SafetensorsFile.Tensor {
    /// The elements as single-precision numbers; exact for every supported type.
    ///
    /// Only for tensors whose `elementType` was checked to be there.
    package func floats() -> [Float] {
        guard let elementType else { return [] }
        var floats = [Float](repeating: 0, count: elementCount)
        floats.withUnsafeMutableBufferPointer { destination in
            // Safe because the tensor's byte count was checked against its shape and type.
            if let source = bytes.bytes.baseAddress, let target = destination.baseAddress {
                widen(source, elementType, count: destination.count, to: target)
            }
        }
        return floats
    }
}
