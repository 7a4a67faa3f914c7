import Foundation
import Testing

/// A small, checking reader: tensors must lie in the file without gaps or overlap.
struct SafetensorsReader {
    struct Tensor {
        let type: String
        let shape: [Int]
        let bytes: Data

        var values: [Float] {
            let raw = [UInt8](bytes)
            if type == "BF16" {
                return stride(from: 0, to: raw.count, by: 2).map {
                    Float(bitPattern: (UInt32(raw[$0]) | UInt32(raw[$0 + 1]) << 8) << 16)
                }
            }
            return stride(from: 0, to: raw.count, by: 4).map { start in
                Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(raw[start + $1]) << (8 * $1) })
            }
        }
    }

    private struct Entry: Decodable {
        let dtype: String
        let shape: [Int]
        let dataOffsets: [Int]

        enum CodingKeys: String, CodingKey {
            case dtype, shape
            case dataOffsets = "data_offsets"
        }
    }

    let tensors: [String: Tensor]

    init(_ file: URL) throws {
        let data = try Data(contentsOf: file)
        let length = (0..<8).reduce(0) { $0 | Int(data[$1]) << (8 * $1) }
        try #require(length % 8 == 0 && 8 + length <= data.count)
        let header = try #require(
            JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any])
        var tensors: [String: Tensor] = [:]
        var ranges: [Range<Int>] = []
        for (name, value) in header where name != "__metadata__" {
            let json = try JSONSerialization.data(withJSONObject: value)
            let entry = try JSONDecoder().decode(Entry.self, from: json)
            let range = entry.dataOffsets[0]..<entry.dataOffsets[1]
            let size = entry.shape.reduce(entry.dtype == "BF16" ? 2 : 4, *)
            try #require(range.count == size)
            ranges.append(range)
            let start = 8 + length
            let bytes = data[(start + range.lowerBound)..<(start + range.upperBound)]
            tensors[name] = Tensor(type: entry.dtype, shape: entry.shape, bytes: bytes)
        }
        var end = 0
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            try #require(range.lowerBound == end)
            end = range.upperBound
        }
        try #require(8 + length + end == data.count)
        self.tensors = tensors
    }
}

/// A folder of a test's own, removed when the test is over.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory
            .appending(path: "lorry-synth-\(UUID().uuidString)", directoryHint: .isDirectory)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
    }

    func contents() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: url.path).sorted()
    }
}

func jsonObject(_ file: URL) throws -> [String: Any] {
    try #require(
        JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
}
