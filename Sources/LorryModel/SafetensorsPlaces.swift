/// Where a safetensors file's tensors lie, read from its header and checked.
///
/// Whatever the reference library (huggingface/safetensors 0.8) refuses is refused. So is what it
/// takes, but no writer makes: duplicate names, names that are empty, long, do not print or look
/// like paths, unknown fields of a tensor, more than 64 dimensions, bytes that no tensor has.
///
/// The header is read without a tree of it, so that a hostile one takes little more memory than the
/// tensors that it names.
package struct SafetensorsPlaces {
    package struct Place {
        let name: String
        let dtype: SafetensorsFile.DType
        let shape: [Int]
        /// Of the file's bytes.
        package let range: Range<Int>
    }

    /// What is wrong, without the file's name.
    package struct Failure: Error {
        package let reason: String
    }

    static let maximumNameByteCount = 512
    /// As many as torch allows.
    static let maximumDimensionCount = 64
    static let maximumMetadataCount = 4096

    package private(set) var byName: [String: Place] = [:]
    package private(set) var metadata: [String: String] = [:]
    private let dataRange: Range<Int>

    /// - Parameter bytes: of the whole file.
    package init(of bytes: UnsafeRawBufferPointer, maximumHeaderByteCount: Int) throws(Failure) {
        guard bytes.count >= 8 else {
            throw Failure(reason: "shorter than its 8-byte header length")
        }
        let declared = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard declared <= UInt64(bytes.count - 8) else {
            throw Failure(reason: "header length \(declared) exceeds the file")
        }
        guard declared <= UInt64(maximumHeaderByteCount) else {
            throw Failure(
                reason: "header length \(declared) exceeds the limit of \(maximumHeaderByteCount)")
        }
        dataRange = 8 + Int(declared)..<bytes.count
        let header = bytes[8..<dataRange.lowerBound]
        guard header.first == UInt8(ascii: "{") else {
            throw Failure(reason: "the header is not an object: it does not begin with '{'")
        }
        var reader = JSONReader(header, maximumDepth: 3, takesLoneSurrogates: false)
        do {
            try read(&reader)
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(reason: "header: \(error)")
        }
        try checkCoverage()
    }

    /// - Throws: `Failure`, or the reader's `StrictJSON.ParseError`.
    private mutating func read(_ reader: inout JSONReader) throws {
        var hasMetadata = false
        var object = try reader.enter()
        while let name = try reader.nextKey(&object) {
            if name == "__metadata__" {
                guard !hasMetadata else { throw Failure(reason: "__metadata__ is there twice") }
                hasMetadata = true
                try readMetadata(&reader)
            } else {
                try readTensor(name, &reader)
            }
        }
        try reader.expectEnd()
    }

    // MARK: - Members

    private mutating func readMetadata(_ reader: inout JSONReader) throws {
        guard reader.peek() == UInt8(ascii: "{") else {
            throw Failure(reason: "__metadata__ is not an object")
        }
        var object = try reader.enter()
        while let key = try reader.nextKey(&object) {
            guard reader.peek() == UInt8(ascii: "\"") else {
                throw Failure(reason: "__metadata__.\(shown(key)) is not a string")
            }
            let text = try reader.readString()
            guard metadata.updateValue(text, forKey: key) == nil else {
                throw Failure(reason: "__metadata__.\(shown(key)) is there twice")
            }
            guard metadata.count <= Self.maximumMetadataCount else {
                throw Failure(
                    reason: "__metadata__ has more than \(Self.maximumMetadataCount) entries")
            }
        }
    }

    private mutating func readTensor(_ name: String, _ reader: inout JSONReader) throws {
        if let problem = Self.problem(ofName: name) {
            throw Failure(reason: "a tensor's name \(problem): '\(shown(name))'")
        }
        var fields = TensorFields(name: name)
        guard reader.peek() == UInt8(ascii: "{") else { throw fields.fail("is no object") }
        var object = try reader.enter()
        while let key = try reader.nextKey(&object) {
            switch key {
            case "dtype" where fields.dtype == nil:
                guard reader.peek() == UInt8(ascii: "\"") else { throw fields.fail("has no dtype") }
                fields.dtype = try reader.readString()
            case "shape" where fields.shape == nil:
                fields.shape = try readCounts(
                    &reader, of: fields, atMost: Self.maximumDimensionCount, key)
            case "data_offsets" where fields.offsets == nil:
                fields.offsets = try readCounts(&reader, of: fields, atMost: 2, key)
            case "dtype", "shape", "data_offsets":
                throw fields.fail("has its \(key) twice")
            default: throw fields.fail("has the unknown field '\(shown(key))'")
            }
        }
        let place = try fields.place(dataRange)
        guard byName.updateValue(place, forKey: name) == nil else {
            throw fields.fail("is there twice")
        }
    }

    private func readCounts(
        _ reader: inout JSONReader, of tensor: TensorFields, atMost limit: Int, _ key: String
    ) throws -> [Int] {
        guard reader.peek() == UInt8(ascii: "[") else { throw tensor.fail("has no \(key)") }
        var counts: [Int] = []
        var array = try reader.enter()
        while try reader.nextElement(&array) {
            guard let count = reader.readCount() else {
                throw tensor.fail("has a \(key) that is not made of whole numbers")
            }
            guard counts.count < limit else {
                throw tensor.fail("has a \(key) of more than \(limit) numbers")
            }
            counts.append(count)
        }
        return counts
    }

    /// What is wrong with a tensor's name: names end up in messages, and careless tools make files
    /// of them.
    private static func problem(ofName name: String) -> String? {
        if name.isEmpty { return "is empty" }
        if name.utf8.count > maximumNameByteCount {
            return "is longer than \(maximumNameByteCount) bytes"
        }
        if shown(name, maximumCount: .max) != name { return "has characters that do not print" }
        if name.utf8.contains(where: { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") })
            || name.contains("..")
        {
            return "looks like a path"
        }
        return nil
    }

    // MARK: - All together

    /// Every data byte belongs to exactly one tensor.
    private func checkCoverage() throws(Failure) {
        let places = byName.values.sorted {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }
        var end = dataRange.lowerBound
        for place in places {
            let start = place.range.lowerBound
            guard start == end else {
                throw Failure(
                    reason:
                        "tensor '\(place.name)' starts at byte \(start - dataRange.lowerBound), "
                        + "expected \(end - dataRange.lowerBound): "
                        + (start < end ? "it overlaps another" : "there is a gap"))
            }
            end = place.range.upperBound
        }
        guard end == dataRange.upperBound else {
            throw Failure(reason: "\(dataRange.upperBound - end) bytes after the last tensor")
        }
    }
}

/// What the header says of one tensor.
private struct TensorFields {
    let name: String
    var dtype: String?
    var shape: [Int]?
    var offsets: [Int]?

    func fail(_ problem: String) -> SafetensorsPlaces.Failure {
        SafetensorsPlaces.Failure(reason: "tensor '\(name)' \(problem)")
    }

    /// - Parameter data: where the file's data lie.
    func place(
        _ data: Range<Int>
    ) throws(SafetensorsPlaces.Failure) -> SafetensorsPlaces.Place {
        guard let dtype else { throw fail("has no dtype") }
        guard let type = SafetensorsFile.DType(rawValue: dtype) else {
            throw fail("has the unknown dtype '\(shown(dtype))'")
        }
        guard let shape else { throw fail("has no shape") }
        var byteCount = type.byteCount
        for size in shape {
            let (product, overflow) = byteCount.multipliedReportingOverflow(by: size)
            guard !overflow else { throw fail("has an impossible shape") }
            byteCount = product
        }
        guard let offsets, offsets.count == 2, offsets[0] <= offsets[1], offsets[1] <= data.count
        else { throw fail("lies outside the file") }
        guard offsets[1] - offsets[0] == byteCount else {
            throw fail(
                "has \(offsets[1] - offsets[0]) bytes, its shape \(shape) needs \(byteCount)")
        }
        return SafetensorsPlaces.Place(
            name: name, dtype: type, shape: shape,
            range: data.lowerBound + offsets[0]..<data.lowerBound + offsets[1])
    }
}
