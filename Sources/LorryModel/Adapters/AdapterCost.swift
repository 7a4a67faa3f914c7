import LorryTensor

extension AdapterProgramBuilder {
    /// In no order.
    var changedModules: [BaseModule] {
        var modules = Set(operations.keys)
        for place in groupInputSteps.keys {
            for site in place.group.sites { modules.insert(.linear(layer: place.layer, site)) }
        }
        for place in bottlenecks.keys {
            for site in place.group.sites { modules.insert(.linear(layer: place.layer, site)) }
        }
        for site in norms.keys { modules.insert(.norm(site)) }
        if !embeddingLowRanks.isEmpty || embeddingScale != nil { modules.insert(.embedding) }
        modules.formUnion(tables.keys)
        modules.formUnion(tableRows.keys)
        return Array(modules)
    }

    /// What the adapter adds to a token's computation; a product and its sum count as two. The
    /// head's part is counted as if each token's logits were wanted.
    var operationCount: Int {
        var count = 0
        for (module, operations) in operations {
            let (outFeatures, inFeatures) = dimensions(of: module)
            count += operations.operationCount(outFeatures: outFeatures, inFeatures: inFeatures)
        }
        for (place, steps) in groupInputSteps {
            let width = configuration.dimensions(of: place.group.sites[0]).inFeatures
            count += Self.operationCount(steps, width: width)
        }
        let width = configuration.hiddenSize
        // Squares, their sum, the division and the product with the weight.
        count += norms.count * 4 * width
        if let table = tables[.head] { count += 2 * table.count }
        if let rows = tableRows[.head] { count += 2 * rows.rows.count }
        for delta in embeddingLowRanks { count += 2 * delta.rank * width }
        if embeddingScale != nil { count += width }
        for bottleneck in bottlenecks.values {
            count += 4 * bottleneck.rank * width + 2 * bottleneck.rank + width
        }
        // Products with keys, and sums of values.
        for prompt in promptAttentions.values {
            count += 4 * prompt.count * configuration.queryWidth
        }
        return count
    }

    fileprivate static func operationCount(_ steps: [InputStep], width: Int) -> Int {
        steps.reduce(0) { count, step in
            switch step {
            case .scale: count + width
            case .gather: count
            case .blocks(_, let blockSize, let blockCount, _):
                count + 2 * blockCount * blockSize * blockSize
            }
        }
    }
}

extension AdapterProgramBuilder.LinearOperations {
    fileprivate func operationCount(outFeatures: Int, inFeatures: Int) -> Int {
        var count = AdapterProgramBuilder.operationCount(inputSteps, width: inFeatures)
        count += lowRanks.reduce(0) { $0 + 2 * $1.rank * (inFeatures + outFeatures) }
        count += dense.count * 2 * outFeatures * inFeatures
        count += sparse.reduce(0) { $0 + 2 * $1.count }
        for kronecker in kroneckers {
            let shape = kronecker.shape
            count += 2 * shape.leftOut * shape.rightIn * (shape.leftIn + shape.rightOut)
        }
        count += circulants.count * 2 * outFeatures * inFeatures
        if outputScale != nil { count += outFeatures }
        if mix != nil { count += 3 * outFeatures }
        if !biases.isEmpty { count += outFeatures }
        return count
    }
}
