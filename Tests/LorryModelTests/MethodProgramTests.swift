import Foundation
import LorryModel
import LorryTensor
import Testing

/// Methods against their formulas, worked out number by number and folded into the base.
@Suite struct MethodProgramTests {
    // MARK: - Rotations

    private typealias Matrix = [Float]

    private static func product(_ a: Matrix, _ b: Matrix, _ size: Int) -> Matrix {
        var result = Matrix(repeating: 0, count: size * size)
        for row in 0..<size {
            for k in 0..<size {
                for column in 0..<size {
                    result[row * size + column] += a[row * size + k] * b[k * size + column]
                }
            }
        }
        return result
    }

    private static func identity(_ size: Int) -> Matrix {
        (0..<size * size).map { $0 / size == $0 % size ? 1 : 0 }
    }

    private static func transposed(_ a: Matrix, _ size: Int) -> Matrix {
        (0..<size * size).map { a[$0 % size * size + $0 / size] }
    }

    /// `(I - Q)(I + Q)⁻¹` by the whole series, which converges for a short Q.
    private static func cayley(_ q: Matrix, _ size: Int) -> Matrix {
        var (sum, power) = (identity(size), identity(size))
        for _ in 0..<200 {
            power = product(power, q.map { -$0 }, size)
            for index in sum.indices { sum[index] += 2 * power[index] }
        }
        return sum
    }

    private static func diagonal(_ blocks: [Matrix], _ size: Int) -> Matrix {
        let width = blocks.count * size
        var result = Matrix(repeating: 0, count: width * width)
        for (block, numbers) in blocks.enumerated() {
            for (index, number) in numbers.enumerated() {
                let (row, column) = (block * size + index / size, block * size + index % size)
                result[row * width + column] = number
            }
        }
        return result
    }

    private static func skew(_ triangle: ArraySlice<Float>, _ size: Int) -> Matrix {
        var (result, next) = (Matrix(repeating: 0, count: size * size), triangle.startIndex)
        for row in 0..<size {
            for column in row + 1..<size {
                result[row * size + column] = triangle[next]
                result[column * size + row] = -triangle[next]
                next += 1
            }
        }
        return result
    }

    private static func series(_ q: Matrix, _ size: Int, terms: [Float]) -> Matrix {
        var (sum, power) = (Matrix(repeating: 0, count: size * size), identity(size))
        for term in terms {
            for index in sum.indices { sum[index] += term * power[index] }
            power = product(power, q, size)
        }
        return sum
    }

    @Test func orthogonalBlocks() throws {
        let terms: [Int: [Float]] = [
            1: [1], 2: [1, 2], 3: [1, 2, 2, 1], 4: [1, 2, 2, 1], 5: [1, 2, 2, 2, 1],
            6: [1, 2, 2, 2, 2, 1],
        ]
        for count in [0, 2, 3, 4, 5, 6] {
            for isShared in [false, true] {
                let method = CraftedMethod(
                    "OFT",
                    [
                        "oft_block_size": 4, "use_cayley_neumann": count > 0,
                        "num_cayley_neumann_terms": max(1, count), "block_share": isShared,
                    ]
                ).adding("oft_R.weight") { [isShared ? 1 : $1 / 4, 6] }
                try method.check("OFT of \(count) terms, shared: \(isShared)") { module in
                    let triangles = method.floats(module.path, "oft_R.weight")
                    let blocks = (0..<module.into / 4).map { block -> Matrix in
                        let start = isShared ? 0 : block * 6
                        let q = Self.skew(triangles[start..<start + 6], 4)
                        guard let terms = terms[count] else { return Self.cayley(q, 4) }
                        return Self.series(q, 4, terms: terms)
                    }
                    module.multiply(
                        by: Self.transposed(Self.diagonal(blocks, 4), module.into))
                }
            }
        }
    }

    /// One factor needs no permutation; more than one go from coarse to fine.
    @Test func butterflies() throws {
        for factors in 1...3 {
            let method = CraftedMethod("BOFT", ["boft_n_butterfly_factor": factors])
                .adding("boft_R") { [factors, $1 / 2, 2, 2] }
                .adding("boft_s") { out, _ in [out, 1] }
            // 24 inputs are 12 blocks of two, 4 · 3.
            try method.check("BOFT of \(factors) factors") { module in
                let width = module.into
                let numbers = method.floats(module.path, "boft_R")
                var rotation = Self.identity(width)
                for factor in 0..<factors {
                    let blocks = (0..<width / 2).map { block -> Matrix in
                        let start = (factor * (width / 2) + block) * 4
                        let a = Matrix(numbers[start..<start + 4])
                        let mixed = zip(a, Self.transposed(a, 2)).map { ($0 - $1) / 2 }
                        return Self.cayley(mixed, 2)
                    }
                    // Half blocks of one: even places of each span before odd ones.
                    let span = 2 << factor
                    var order: [Int] = []
                    for start in stride(from: 0, to: width, by: span) {
                        order += stride(from: start, to: start + span, by: 2)
                        order += stride(from: start + 1, to: start + span, by: 2)
                    }
                    var permutation = Matrix(repeating: 0, count: width * width)
                    for (row, column) in order.enumerated() {
                        permutation[row * width + column] = 1
                    }
                    let inner = Self.product(
                        Self.diagonal(blocks, 2), Self.transposed(permutation, width), width)
                    let whole = Self.product(permutation, inner, width)
                    rotation = Self.product(whole, rotation, width)
                }
                module.multiply(by: Self.transposed(rotation, width))
                let scale = method.floats(module.path, "boft_s")
                for index in module.weight.indices { module.weight[index] *= scale[index / width] }
            }
        }
    }

    @Test func reflections() throws {
        for isOrthogonal in [false, true] {
            let method = CraftedMethod("HRA", ["apply_GS": isOrthogonal]).adding("hra_u") {
                [$1, 3]
            }
            try method.check("HRA, Gram and Schmidt: \(isOrthogonal)") { module in
                let numbers = method.floats(module.path, "hra_u")
                var units: [[Float]] = []
                for index in 0..<3 {
                    var vector = (0..<module.into).map { numbers[$0 * 3 + index] }
                    for unit in isOrthogonal ? units : [] {
                        let part = zip(unit, vector).reduce(0) { $0 + $1.0 * $1.1 }
                        vector = zip(vector, unit).map { $0 - part * $1 }
                    }
                    let length = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
                    units.append(vector.map { $0 / length })
                }
                for unit in units {
                    var reflection = Self.identity(module.into)
                    for index in reflection.indices {
                        reflection[index] -=
                            2 * unit[index / module.into] * unit[index % module.into]
                    }
                    module.multiply(by: reflection)
                }
            }
        }
    }

    // MARK: - Outputs

    @Test func mixedOutputs() throws {
        for (variant, per) in [("road_1", 1), ("road_2", 2), ("road_4", 4)] {
            let method = CraftedMethod("ROAD", ["variant": variant, "group_size": 4])
                .adding("road_theta") { out, _ in [out * per / 2] }
                .adding("road_alpha") { out, _ in [out * per / 2] }
            try method.check(variant) { module in
                let theta = method.floats(module.path, "road_theta")
                let alpha = method.floats(module.path, "road_alpha")
                let (weight, bias, into) = (module.weight, module.bias, module.into)
                for row in 0..<module.out {
                    let (group, place) = row.quotientAndRemainder(dividingBy: 4)
                    let (c, s): (Int, Int) =
                        switch per {
                        case 1: (group * 2 + place % 2, group * 2 + place % 2)
                        case 2: (row, row)
                        default: (group * 8 + place, group * 8 + 4 + place)
                        }
                    let own = alpha[c] * cos(theta[c])
                    let other = alpha[s] * sin(theta[s]) * (place < 2 ? -1 : 1)
                    let mate = place < 2 ? row + 2 : row - 2
                    module.bias[row] = own * bias[row] + other * bias[mate]
                    for column in 0..<into {
                        module.weight[row * into + column] =
                            own * weight[row * into + column]
                            + other * weight[mate * into + column]
                    }
                }
            }
        }
    }

    @Test func scaledAndShiftedWeights() throws {
        for isVector in [false, true] {
            let method = CraftedMethod("GLORA")
                .adding("glora_A.X") { out, _ in isVector ? [out, 1] : [1] }
                .adding("glora_B.X") { out, _ in isVector ? [out, 1] : [1] }
                .adding("glora_C.X") { [$1, 1] }
                .adding("glora_D.X") { out, _ in isVector ? [out] : [1] }
                .adding("glora_E.X") { out, _ in isVector ? [out] : [1] }
            try method.check("GLoRA of vectors: \(isVector)") { module in
                let base = module
                func number(_ path: String, _ row: Int) -> Float {
                    method.floats(base.path, "glora_\(path).X")[isVector ? row : 0]
                }
                module.add { row, column in
                    base.weight[row * base.into + column] * number("A", row) + number("B", row)
                }
                let c = method.floats(base.path, "glora_C.X")
                for row in 0..<base.out {
                    module.bias[row] +=
                        base.bias[row] * number("D", row) + number("E", row)
                        + (0..<base.into).reduce(0) {
                            $0 + base.weight[row * base.into + $1] * c[$1]
                        }
                }
            }
        }
    }

    // MARK: - Deltas

    @Test func sparseDeltas() throws {
        var method = CraftedMethod("SHIRA").adding("shira_weight") { _, _ in [3] }
            .adding("shira_indices", dtype: "I64") { _, _ in [2, 3] }
        let places: [Float] = [1, 0, 15, 2, 15, 3]
        for name in method.file.tensors.keys where name.hasSuffix("shira_indices") {
            method.file.tensors[name]?.floats = places
        }
        try method.check("SHiRA") { module in
            let values = method.floats(module.path, "shira_weight")
            for index in 0..<3 {
                let place = Int(places[index]) * module.into + Int(places[3 + index])
                module.weight[place] += values[index]
            }
        }
        for name in method.file.tensors.keys where name.hasSuffix("shira_indices") {
            method.file.tensors[name]?.floats[5] = 24
        }
        #expect(throws: AdapterError.self) { try method.check("a place outside") { _ in } }
    }

    @Test func largestAndSmallestNumbers() throws {
        for isLargest in [true, false] {
            let method = CraftedMethod("SUPERTUNING", ["select_top": isLargest])
                .adding("supertuning_values") { _, _ in [9] }
            try method.check("Super-Tuning of the largest: \(isLargest)") { module in
                let base = module.weight
                let order = base.indices.sorted {
                    isLargest ? abs(base[$0]) > abs(base[$1]) : abs(base[$0]) < abs(base[$1])
                }
                for (place, value) in zip(
                    order, method.floats(module.path, "supertuning_values"))
                {
                    module.weight[place] += value
                }
            }
        }
    }

    @Test func circulantDeltas() throws {
        let method = CraftedMethod("C3A").adding("c3a_kernel") { [$0 / 8, $1 / 8, 8] }
        try method.check("C3A") { module in
            let kernel = method.floats(module.path, "c3a_kernel")
            let blocks = module.into / 8
            let into = Float(module.into)
            module.add { row, column in
                let start = ((row / 8) * blocks + column / 8) * 8
                return kernel[start + (column - row % 8 + 8) % 8] / into
            }
        }
    }

    @Test func weightedDeltas() throws {
        let method = CraftedMethod("HIRA").adding("hira_A") { [3, $1] }
            .adding("hira_B") { out, _ in [out, 3] }
        try method.check("HiRA") { module in
            let base = module
            let a = method.floats(base.path, "hira_A")
            let b = method.floats(base.path, "hira_B")
            module.add { row, column in
                let factor = (0..<3).reduce(Float(0)) {
                    $0 + b[row * 3 + $1] * a[$1 * base.into + column]
                }
                return base.weight[row * base.into + column] * factor
            }
        }
    }

    @Test func removedSubspaces() throws {
        for (isPara, alpha) in [(true, 0), (false, 0), (false, 6)] {
            var method = CraftedMethod("DEFT", ["para": isPara, "alpha": alpha])
                .adding("deft_P") { out, _ in [out, 3] }
            if !isPara { method = method.adding("deft_R") { [3, $1] } }
            try method.check("DEFT, para: \(isPara), alpha \(alpha)") { module in
                let base = module
                let p = method.floats(base.path, "deft_P")
                let r = method.floats(base.path, "deft_R")
                module.add { row, column in
                    (0..<3).reduce(Float(0)) { sum, k in
                        let removed = (0..<base.out).reduce(Float(0)) {
                            $0 + max(p[$1 * 3 + k], 0) * base.weight[$1 * base.into + column]
                        }
                        let added = isPara ? 0 : r[k * base.into + column] * (alpha > 0 ? 2 : 1)
                        return sum + p[row * 3 + k] * (added - removed)
                    }
                }
            }
        }
    }

    // MARK: - Wavelets

    /// Filters are orthogonal to themselves moved by two, and are those that were published.
    @Test func waveletFilters() throws {
        let first: [String: Float] = [
            "db1": 0.70710678, "db4": 0.23037781, "db10": 0.026670058, "sym4": 0.032223101,
            "sym8": 0.0018899503, "coif1": -0.072732620,
        ]
        let names =
            (1...10).map { "db\($0)" } + (2...10).map { "sym\($0)" } + ["coif1"]
        for name in names {
            let filters = try #require(WaveletFilters(name: name))
            let smooth = filters.reconstruction(isDetail: false)
            let detail = filters.reconstruction(isDetail: true)
            for other in [smooth, detail] {
                for shift in stride(from: 0, to: smooth.count, by: 2) {
                    let sum = zip(smooth.dropFirst(shift), other).reduce(Float(0)) {
                        $0 + $1.0 * $1.1
                    }
                    let expected: Float = other == smooth && shift == 0 ? 1 : 0
                    #expect(abs(sum - expected) < 1e-6, "\(name) moved by \(shift)")
                }
            }
            if let number = first[name] { #expect(abs(smooth[0] - number) < 1e-7, "\(name)") }
        }
        #expect(WaveletFilters(name: "db11") == nil)
        #expect(WaveletFilters(name: "sym1") == nil)
        #expect(WaveletFilters(name: "haar") == nil)
    }
}
