import Foundation
import LorryTensor

/// The matrices of a decoder, in the order in which a step reads them, and their places in one
/// block of memory.
struct PackingPlan: Sendable {
    /// One packed matrix: tensors of the checkpoint, stacked along their outputs.
    struct Matrix: Sendable {
        let tensors: [SafetensorsFile.Tensor]
        let shape: PackedShape
        /// Byte offset in the block.
        let offset: Int

        /// The tensors' bytes; their element types were checked when they were taken.
        var sources: [MatrixSource] {
            tensors.compactMap { tensor in
                tensor.elementType.map {
                    MatrixSource(
                        bytes: tensor.bytes.bytes, elementType: $0, outFeatures: tensor.shape[0])
                }
            }
        }
    }

    private(set) var matrices: [Matrix] = []
    /// Bytes of the block.
    private(set) var byteCount = 0

    /// Appends a matrix.
    ///
    /// - Parameter tensors: `[outFeatures, inFeatures]` each, of types that can be packed.
    mutating func add(
        _ tensors: [SafetensorsFile.Tensor], inFeatures: Int, format: WeightFormat
    ) {
        let shape = PackedShape(
            outFeatures: tensors.reduce(0) { $0 + $1.shape[0] }, inFeatures: inFeatures,
            format: format)
        matrices.append(Matrix(tensors: tensors, shape: shape, offset: byteCount))
        let end = byteCount + shape.byteCount
        byteCount =
            (end + PackedPlace.alignment - 1) / PackedPlace.alignment
            * PackedPlace.alignment
    }

    /// Packs all matrices.
    ///
    /// - Parameter progress: called with the share of bytes done, from 0 to 1.
    /// - Throws: an error that names the tensor with numbers that its format cannot hold.
    func pack(
        pool: WorkerPool, progress: (Double) -> Void
    ) throws(ModelError) -> (memory: PackedMemory, matrices: [PackedMatrix]) {
        let memory = PackedMemory(byteCount: byteCount)
        var packed: [PackedMatrix] = []
        for matrix in matrices {
            progress(Double(matrix.offset) / Double(byteCount))
            packed.append(try matrix.pack(into: memory, pool: pool))
        }
        return (memory, packed)
    }

    /// The matrices in memory that holds them packed already.
    func matrices(in memory: PackedMemory) -> [PackedMatrix] {
        matrices.map {
            PackedMatrix(
                packedAt: PackedPlace(memory: memory, offset: $0.offset), shape: $0.shape)
        }
    }

    /// Packs the first panel of each matrix anew and compares it with `memory`.
    ///
    /// - Returns: the name of a tensor whose panel differs, or nil.
    func firstDifference(in memory: PackedMemory, pool: WorkerPool) -> String? {
        matrices.first { !$0.startsAsPacked(in: memory, pool: pool) }?.tensors.first?.name
    }
}

extension PackingPlan.Matrix {
    fileprivate func pack(
        into memory: PackedMemory, pool: WorkerPool
    ) throws(ModelError) -> PackedMatrix {
        do {
            return try PackedMatrix(
                sources: sources, inFeatures: shape.inFeatures, format: shape.format, pool: pool,
                place: PackedPlace(memory: memory, offset: offset))
        } catch {
            let kind =
                shape.format == .int4 ? "NaN, infinite, or 2^60 or more" : "NaN or infinite"
            throw ModelError(
                "tensor '\(tensors[error.index].name)' has elements that are \(kind); "
                    + "\(shape.format.rawValue) weights cannot hold them")
        }
    }

    fileprivate func startsAsPacked(in memory: PackedMemory, pool: WorkerPool) -> Bool {
        guard var source = sources.first else { return false }
        let rowCount = min(PackedShape.panelWidth, shape.outFeatures)
        // A panel of several tensors is rare, and the others tell enough.
        guard source.outFeatures >= rowCount else { return true }
        let rowByteCount = source.bytes.count / source.outFeatures
        source.bytes = UnsafeRawBufferPointer(rebasing: source.bytes[..<(rowCount * rowByteCount)])
        source.outFeatures = rowCount
        let fresh = PackedMemory(byteCount: shape.panelByteCount)
        let packed = try? PackedMatrix(
            sources: [source], inFeatures: shape.inFeatures, format: shape.format, pool: pool,
            place: PackedPlace(memory: fresh))
        guard packed != nil else { return false }
        let cached = UnsafeRawBufferPointer(
            rebasing: memory.bytes[offset..<offset + shape.panelByteCount])
        guard let left = fresh.bytes.baseAddress, let right = cached.baseAddress else {
            return false
        }
        // Safe because both have as many bytes as are compared.
        return memcmp(left, right, cached.count) == 0
    }
}
