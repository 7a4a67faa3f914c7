import Foundation

/// What a safetensors file begins with: the header's length as 8 bytes little-endian, then the
/// header as JSON, padded to a multiple of 8 with spaces. The tensors follow without gaps.
public struct SafetensorsHeader: Sendable {
    public struct Entry: Sendable {
        public let name: String
        /// As in the format: `F32`, `BF16`, …
        public let type: String
        public let shape: [Int]
        public let byteCount: Int

        public init(name: String, type: String, shape: [Int], byteCount: Int) {
            self.name = name
            self.type = type
            self.shape = shape
            self.byteCount = byteCount
        }
    }

    /// In the order in which their bytes follow.
    public let entries: [Entry]

    public init(_ entries: [Entry]) { self.entries = entries }

    public func encoded() throws -> Data {
        var members: [String: Any] = ["__metadata__": ["format": "pt"]]
        var offset = 0
        for entry in entries {
            members[entry.name] =
                [
                    "dtype": entry.type, "shape": entry.shape,
                    "data_offsets": [offset, offset + entry.byteCount],
                ] as [String: Any]
            offset += entry.byteCount
        }
        var json = try JSONSerialization.data(withJSONObject: members, options: [.sortedKeys])
        json.append(Data(repeating: UInt8(ascii: " "), count: (8 - json.count % 8) % 8))
        let length = UInt64(json.count)
        return Data((0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }) + json
    }
}
