import LorryTensor

/// The base model's numbers in single precision, as a program's making reads them: the resident
/// ones, so what their format made of the checkpoint's.
struct BaseWeights {
    private let model: DecoderModel

    init(_ model: DecoderModel) { self.model = model }

    var configuration: ModelConfiguration { model.configuration }

    /// A linear layer's or the head's weight, row-major `[outFeatures, inFeatures]`; the embedding's
    /// table `[vocabularySize, hiddenSize]`.
    func weight(_ module: BaseModule) -> [Float] {
        let width = configuration.dimensions(of: module).inFeatures
        switch module {
        case .linear(let layer, let site):
            let start = configuration.columnStart(of: site)
            let count = configuration.dimensions(of: site).outFeatures
            return rows(
                of: model.layers[layer].linears[site.group.rawValue], start..<start + count, width)
        case .head:
            return rows(of: model.head, 0..<configuration.vocabularySize, width)
        case .embedding:
            var floats = [Float](
                repeating: 0, count: configuration.vocabularySize * configuration.hiddenSize)
            floats.withUnsafeMutableBufferPointer { buffer in
                guard let start = buffer.baseAddress else { return }
                for token in 0..<configuration.vocabularySize {
                    model.copyEmbedding(token, to: start + token * configuration.hiddenSize)
                }
            }
            return floats
        case .norm(let site):
            return model.norm(site)
        }
    }

    private func rows(of matrix: PackedMatrix, _ rows: Range<Int>, _ width: Int) -> [Float] {
        var floats = [Float](repeating: 0, count: rows.count * width)
        floats.withUnsafeMutableBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return }
            for (index, row) in rows.enumerated() {
                matrix.copyRow(row, to: start + index * width)
            }
        }
        return floats
    }

    /// The bias that the base adds, zeros where it has none. `[outFeatures]`
    func bias(_ module: BaseModule) -> [Float] {
        if case .linear(let layer, let site) = module,
            let bias = model.bias(layer: layer, site: site)
        {
            return Array(bias)
        }
        return [Float](repeating: 0, count: configuration.dimensions(of: module).outFeatures)
    }
}
