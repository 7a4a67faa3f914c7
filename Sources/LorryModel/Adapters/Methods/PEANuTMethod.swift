import Foundation
import LorryTensor

/// PEANuT (arXiv 2410.01870): `y = W x + scaling · B (hᵀ x) + b`, where h is what a small network
/// makes of the base's weight: `h = f(Wᵀ Aᵀ)`, then `depth` encoders `h ← f(h Eᵀ)`, then as many
/// decoders `h ← f(h Dᵀ) + (the h before the encoder that it answers)`. Tensors, as peft 0.21 saves
/// them:
///
///     base_model.model.<module>.peanut_A.weight           [r, outFeatures]
///     base_model.model.<module>.peanut_B.weight           [outFeatures, r]
///     base_model.model.<module>.peanut_encoders.N.weight  [r, r]
///     base_model.model.<module>.peanut_decoders.N.weight  [r, r]
///
/// A delta of rank r, with hᵀ made when the adapter is brought into memory.
struct PEANuTMethod: PEFTMethod {
    let peftTypes = ["PEANUT"]

    private struct Options {
        let depth: Int
        let scaling: Float
        let activation: Activation
    }

    func compile(
        _ source: AdapterSource, into builder: inout AdapterProgramBuilder
    ) throws(AdapterError) -> String {
        try source.refuseUnknownFields(known: ["r", "depth", "act_fn", "scaling", "init_weights"])
        let options = try options(source)
        var tensors = AdapterTensors(source, configuration: builder.configuration)
        try SavedModules.add(from: &tensors, to: &builder)
        for module in try tensors.linearTargets(having: "peanut_A") {
            try add(module, options, &tensors, &builder)
        }
        try tensors.requireEmpty()
        return "peanut"
    }

    private func options(_ source: AdapterSource) throws(AdapterError) -> Options {
        var depth = 0
        if let value = source.present("depth") {
            guard let number = value.integerValue, (0...256).contains(number) else {
                throw source.bad("depth", "is not a whole number from 0 to 256")
            }
            depth = number
        }
        let name = try source.string("act_fn") ?? "relu"
        guard let activation = Activation(name: name) else {
            throw source.unsupported("act_fn", "'\(name)' is not supported")
        }
        return Options(
            depth: depth,
            scaling: try source.scale("scaling", try source.number("scaling") ?? 1),
            activation: activation)
    }

    private func add(
        _ module: BaseModule, _ options: Options, _ tensors: inout AdapterTensors,
        _ builder: inout AdapterProgramBuilder
    ) throws(AdapterError) {
        let (outFeatures, inFeatures) = builder.dimensions(of: module)
        let a = try tensors.require(module, "peanut_A", shape: [nil, outFeatures])
        let rank = a.shape[0]
        let b = try tensors.require(module, "peanut_B", shape: [outFeatures, rank])
        func layers(_ name: String) throws(AdapterError) -> [TensorPlace] {
            var places: [TensorPlace] = []
            for index in 0..<options.depth {
                places.append(
                    TensorPlace(
                        try tensors.require(module, "\(name).\(index)", shape: [rank, rank])))
            }
            return places
        }
        let encoders = try layers("peanut_encoders")
        let decoders = try layers("peanut_decoders")
        let weight = builder.weight(of: module)
        let place = TensorPlace(a)
        let activation = options.activation
        let down = Operand.derived(count: rank * inFeatures) { reader throws(AdapterError) in
            // All of h is held transposed, [r, inFeatures].
            var hidden = DenseAlgebra.product(
                .init(reader.floats(place)), .init(try reader.floats(weight)), m: rank,
                n: inFeatures, k: outFeatures
            ).map(activation.apply)
            func pass(_ layer: TensorPlace, _ hidden: [Float]) -> [Float] {
                DenseAlgebra.product(
                    .init(reader.floats(layer)), .init(hidden), m: rank, n: inFeatures, k: rank
                ).map(activation.apply)
            }
            var kept: [[Float]] = []
            for encoder in encoders {
                kept.append(hidden)
                hidden = pass(encoder, hidden)
            }
            for (decoder, earlier) in zip(decoders, kept.reversed()) {
                hidden = zip(pass(decoder, hidden), earlier).map { $0 + $1 }
            }
            return hidden
        }
        builder.addProduct(
            at: module, rank: rank, down: down, up: .tensor(b), scale: options.scaling)
    }
}

/// An activation function by its name in transformers.
private struct Activation: Sendable {
    let apply: @Sendable (Float) -> Float

    init?(name: String) {
        @Sendable func sigmoid(_ x: Float) -> Float { 1 / (1 + exp(-x)) }
        switch name {
        case "linear": apply = { $0 }
        case "relu": apply = { max($0, 0) }
        case "relu2": apply = { max($0, 0) * max($0, 0) }
        case "relu6": apply = { min(max($0, 0), 6) }
        case "leaky_relu": apply = { $0 < 0 ? 0.01 * $0 : $0 }
        case "sigmoid": apply = { sigmoid($0) }
        case "silu", "swish": apply = { $0 * sigmoid($0) }
        case "tanh": apply = { tanh($0) }
        case "mish": apply = { $0 * tanh(log1p(exp(-abs($0))) + max($0, 0)) }
        case "gelu", "gelu_python":
            apply = { 0.5 * $0 * (1 + erf($0 / Float(2).squareRoot())) }
        case "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate":
            apply = {
                0.5 * $0 * (1 + tanh((2 / Float.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0)))
            }
        case "gelu_fast":
            apply = { 0.5 * $0 * (1 + tanh($0 * 0.7978845608 * (1 + 0.044715 * $0 * $0))) }
        case "gelu_10":
            apply = { min(max(0.5 * $0 * (1 + erf($0 / Float(2).squareRoot())), -10), 10) }
        case "hardswish": apply = { $0 * min(max($0 + 3, 0), 6) / 6 }
        case "laplace":
            apply = { 0.5 * (1 + erf(($0 - 0.707107) / (0.282095 * Float(2).squareRoot()))) }
        case "quick_gelu": apply = { $0 * sigmoid(1.702 * $0) }
        default: return nil
        }
    }
}
