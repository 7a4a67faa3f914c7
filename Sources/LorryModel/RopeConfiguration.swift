import Foundation
import LorryTensor

/// Rotary position embedding: base frequency and how it is stretched for long contexts.
public struct RopeConfiguration: Sendable, Equatable {
    public enum Scaling: Sendable, Equatable {
        case none
        /// All frequencies divided by the factor.
        case linear(factor: Float)
        /// Low frequencies divided by the factor, high ones kept, a smooth ramp between (Llama 3.1).
        case llama3(
            factor: Float, lowFrequencyFactor: Float, highFrequencyFactor: Float,
            originalMaximumPositions: Float)
    }
    public var theta: Float
    public var scaling: Scaling

    public init(theta: Float, scaling: Scaling = .none) {
        self.theta = theta
        self.scaling = scaling
    }

    /// The angle per position of each pair of dimensions, `[headDim / 2]`.
    ///
    /// Computed in single precision, as transformers does, so that angles agree at far positions.
    public func inverseFrequencies(headDim: Int) -> [Float] {
        let plain = stride(from: 0, to: headDim, by: 2).map { index in
            1 / powf(theta, Float(index) / Float(headDim))
        }
        switch scaling {
        case .none:
            return plain
        case .linear(let factor):
            return plain.map { $0 / factor }
        case .llama3(let factor, let low, let high, let original):
            let longestKept = original / high
            let shortestScaled = original / low
            return plain.map { frequency in
                let wavelength = 2 * Float.pi / frequency
                if wavelength < longestKept { return frequency }
                if wavelength > shortestScaled { return frequency / factor }
                let smooth = (original / wavelength - low) / (high - low)
                return (1 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

/// Cosines and sines of every position's angles, each `[positionCount, headDim / 2]`.
///
/// Safe because the buffers are written in `init` only and freed with this object.
final class RotationTables: @unchecked Sendable {
    let positionCount: Int
    private let buffer: AlignedBuffer<Float>
    private let halfCount: Int

    init(_ rope: RopeConfiguration, headDim: Int, positionCount: Int, pool: WorkerPool) {
        self.positionCount = positionCount
        let frequencies = rope.inverseFrequencies(headDim: headDim)
        let halfCount = positionCount * frequencies.count
        self.halfCount = halfCount
        buffer = AlignedBuffer(count: 2 * halfCount)
        // Safe because each task writes the rows of its own positions.
        nonisolated(unsafe) let cosines = buffer.pointer
        let taskCount = (positionCount + Self.taskPositionCount - 1) / Self.taskPositionCount
        pool.run(taskCount: taskCount) { task in
            let start = task * Self.taskPositionCount
            for position in start..<min(start + Self.taskPositionCount, positionCount) {
                for (index, frequency) in frequencies.enumerated() {
                    let angle = Float(position) * frequency
                    let place = position * frequencies.count + index
                    cosines[place] = cosf(angle)
                    cosines[halfCount + place] = sinf(angle)
                }
            }
        }
    }

    private static let taskPositionCount = 1024

    var cosines: UnsafePointer<Float> { UnsafePointer(buffer.pointer) }
    var sines: UnsafePointer<Float> { UnsafePointer(buffer.pointer + halfCount) }
    var byteCount: Int { buffer.byteCount }
}
