import LorryModel

/// The input as a whole file, and as a header before some data.
struct SafetensorsTarget: FuzzTarget {
    func run(_ input: [UInt8]) {
        read(input)
        read(Self.file(header: input, data: [UInt8](repeating: 0, count: 64)))
    }

    static func file(header: [UInt8], data: [UInt8]) -> [UInt8] {
        withUnsafeBytes(of: UInt64(header.count).littleEndian, Array.init) + header + data
    }

    private func read(_ file: [UInt8]) {
        file.withUnsafeBytes { bytes in
            let found = try? SafetensorsPlaces(of: bytes, maximumHeaderByteCount: 1 << 16)
            guard let found else { return }
            var covered = 0
            for place in found.byName.values {
                precondition(place.range.upperBound <= bytes.count, "a tensor beyond the file")
                covered += place.range.count
            }
            let header = bytes.loadUnaligned(as: UInt64.self).littleEndian
            precondition(8 + Int(header) + covered == bytes.count, "bytes that no tensor has")
        }
    }
}
