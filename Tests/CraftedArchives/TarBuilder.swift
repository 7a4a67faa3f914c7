package typealias NamedFile = (name: String, bytes: [UInt8])

/// Builds tar archives byte by byte, valid or not.
package struct TarBuilder {
    package private(set) var bytes: [UInt8] = []
    /// Where each entry's header starts.
    package private(set) var offsets: [Int] = []

    package init(_ files: [NamedFile] = [], prefix: String = "") {
        for file in files { add(prefix + file.name, file.bytes) }
    }

    package mutating func add(
        _ path: String, _ content: [UInt8] = [], type: Character = "0", link: String = "",
        claimedByteCount: Int? = nil, change: (inout [UInt8]) -> Void = { _ in }
    ) {
        offsets.append(bytes.count)
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, at offset: Int) {
            for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
        }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        put(String(path.prefix(100)), at: 0)
        put("0000644\0", at: 100)
        put("0000000\0", at: 108)
        put("0000000\0", at: 116)
        put(octal(claimedByteCount ?? content.count, 11) + "\0", at: 124)
        put("00000000000\0", at: 136)
        put(String(type), at: 156)
        put(link, at: 157)
        put("ustar\u{0}00", at: 257)
        change(&header)
        put("        ", at: 148)
        let sum = header.reduce(0) { $0 + Int($1) }
        put(octal(sum, 6) + "\0 ", at: 148)
        bytes += header + content
        bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    package mutating func addPax(_ records: [(String, String)], type: Character = "x") {
        add("PaxHeader", Self.pax(records), type: type)
    }

    package static func pax(_ records: [(String, String)]) -> [UInt8] {
        records.flatMap { key, value -> [UInt8] in
            let rest = " \(key)=\(value)\n"
            var length = rest.utf8.count + 1
            while "\(length)".utf8.count + rest.utf8.count != length { length += 1 }
            return Array("\(length)\(rest)".utf8)
        }
    }

    /// With the end marker.
    package var archive: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
}
