import LorryTensor

// What a step has to read and compute of the base, for measurements against a machine's limits.
extension DecoderModel {
    /// Bytes of all layers' packed linear weights: what every step reads.
    public var layerByteCount: Int {
        layers.reduce(0) { sum, layer in layer.linears.reduce(sum) { $0 + $1.byteCount } }
    }

    /// Bytes of the packed head: what a step reads that computes logits.
    public var headByteCount: Int { head.byteCount }

    /// Weights of all layers' linear maps; a row takes twice as many operations.
    public var layerParameterCount: Int {
        layers.reduce(0) { sum, layer in
            layer.linears.reduce(sum) { $0 + $1.outFeatures * $1.inFeatures }
        }
    }

    /// Of `layerByteCount`, those of what follows the last layer's keys and values.
    public var tailByteCount: Int { tail.reduce(0) { $0 + $1.byteCount } }

    /// Of `layerParameterCount`, likewise: only rows whose logits are wanted meet these.
    public var tailParameterCount: Int {
        tail.reduce(0) { $0 + $1.outFeatures * $1.inFeatures }
    }

    private var tail: some Sequence<PackedMatrix> {
        (layers.last?.linears ?? []).enumerated().lazy
            .filter { $0.offset != LinearGroup.attentionInput.rawValue }.map(\.element)
    }

    /// Weights of the head.
    public var headParameterCount: Int { head.outFeatures * head.inFeatures }
}
