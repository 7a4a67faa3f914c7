import LorryTensor

/// Which format each part of a decoder's weights is held in.
///
/// | part | format | why |
/// |---|---|---|
/// | linear layers | the one asked for | nearly all bytes of a step |
/// | head, and the embedding tied to it | the same, int8 where that is int4 | its errors go into the logits unmixed, and a tied embedding's into every layer |
/// | untied embedding | as in the checkpoint | a step reads one row per token, so its width costs nothing |
/// | norms, biases, rotations | f32 | some thousandths of the bytes |
struct WeightPolicy: Sendable {
    let linears: WeightFormat
    let head: WeightFormat

    init(_ format: WeightFormat) {
        linears = format
        head = format == .int4 ? .int8 : format
    }
}
