import Foundation
import LorryTensor

/// FourierFT (arXiv 2405.03003): `y = W x + D x + b`, where D is `scaling` times the real part of the
/// inverse two-dimensional Fourier transform of a spectrum with n numbers. Tensors, as peft 0.21
/// saves them:
///
///     base_model.model.<module>.fourierft_spectrum  [n]
///
/// Their places are the first n of torch's random permutation of `outFeatures · inFeatures`, seeded
/// with `random_loc_seed` for each module anew. A number s at `[p, q]` gives
/// `s / (out · in) · cos(2π (p j / out + q t / in))`, which is of rank 2.
struct FourierFTMethod: PEFTMethod {
    let peftTypes = ["FOURIERFT"]

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        // How many frequencies a module has is seen from its tensor.
        try source.refuseUnknownFields(known: [
            "n_frequency", "n_frequency_pattern", "scaling", "random_loc_seed", "fan_in_fan_out",
            "bias", "init_weights",
        ])
        // peft's documentation has the one name, its other methods are named as the other.
        let name = try source.string("bias") == "fourier_only" ? "fourier_only" : "fourierft_only"
        let biases = try SavedBiases(source, only: name)
        let scaling = try source.scale("scaling", try source.number("scaling") ?? 150)
        let seed = try RandomPlaces.seed(source)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        let targets = try tensors.linearTargets(having: "fourierft_spectrum")
        for module in targets {
            let (outFeatures, inFeatures) = builder.dimensions(of: module)
            let tensor = try tensors.require(module, "fourierft_spectrum", shape: [nil])
            let count = tensor.shape[0]
            guard count <= outFeatures * inFeatures else {
                throw source.badTensor(tensor.name, "has more numbers than the base's weight")
            }
            let places = RandomPlaces(
                seed: seed, outFeatures: outFeatures, inFeatures: inFeatures, count: count)
            let place = TensorPlace(tensor)
            builder.addProduct(
                at: module, rank: 2 * count,
                down: .derived(count: 2 * count * inFeatures) { _ in
                    Self.down(places)
                },
                up: .derived(count: outFeatures * 2 * count) { reader in
                    let factor = scaling / Float(outFeatures) / Float(inFeatures)
                    return Self.up(places, spectrum: reader.floats(place).map { $0 * factor })
                })
        }
        try biases.add(adapted: targets, from: &tensors, to: &builder)
        try tensors.requireEmpty()
        return "fourierft"
    }

    /// For each frequency `cos(2π q t / in)`, then `sin(2π q t / in)`. `[2 n, inFeatures]`
    private static func down(_ places: RandomPlaces) -> [Float] {
        let width = places.inFeatures
        let circle = Circle(width)
        var rows: [Float] = []
        rows.reserveCapacity(2 * places.count * width)
        for (_, frequency) in places.all() {
            for wave in [circle.cosines, circle.sines] {
                var angle = 0
                for _ in 0..<width {
                    rows.append(wave[angle])
                    angle += frequency
                    if angle >= width { angle -= width }
                }
            }
        }
        return rows
    }

    /// For each frequency `s cos(2π p j / out)` and `-s sin(2π p j / out)`. `[outFeatures, 2 n]`
    private static func up(_ places: RandomPlaces, spectrum: [Float]) -> [Float] {
        let circle = Circle(places.outFeatures)
        let frequencies = places.all().map(\.row)
        var angles = [Int](repeating: 0, count: frequencies.count)
        var rows: [Float] = []
        rows.reserveCapacity(2 * places.count * places.outFeatures)
        for _ in 0..<places.outFeatures {
            for (index, frequency) in frequencies.enumerated() {
                rows.append(spectrum[index] * circle.cosines[angles[index]])
                rows.append(-spectrum[index] * circle.sines[angles[index]])
                angles[index] += frequency
                if angles[index] >= places.outFeatures { angles[index] -= places.outFeatures }
            }
        }
        return rows
    }

    /// Cosine and sine of `count` equal parts of a turn.
    private struct Circle {
        let cosines: [Float]
        let sines: [Float]

        init(_ count: Int) {
            let angles = (0..<count).map { 2 * Double.pi * Double($0) / Double(count) }
            cosines = angles.map { Float(cos($0)) }
            sines = angles.map { Float(sin($0)) }
        }
    }
}

/// Places in a matrix that torch chose by a seed: the first of `randperm(out · in)`.
struct RandomPlaces: Sendable {
    let seed: Int
    let outFeatures: Int
    let inFeatures: Int
    let count: Int

    /// `random_loc_seed` of a configuration.
    static func seed(_ source: AdapterSource) throws(AdapterError) -> Int {
        guard let value = source.present("random_loc_seed") else { return 777 }
        guard let seed = value.integerValue else {
            throw source.bad("random_loc_seed", "is not a whole number")
        }
        return seed
    }

    func all() -> [(row: Int, column: Int)] {
        var generator = TorchGenerator(seed: seed)
        return generator.permutation(of: outFeatures * inFeatures, prefix: count).map {
            let (row, column) = $0.quotientAndRemainder(dividingBy: inFeatures)
            return (row, column)
        }
    }
}
