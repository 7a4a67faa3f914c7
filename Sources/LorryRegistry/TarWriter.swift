/// Parts of a ustar archive (POSIX.1-2017, pax, "ustar Interchange Format") of plain files.
package enum TarWriter {
    private static let block = 512

    /// The two blocks that end an archive.
    package static var end: [UInt8] { [UInt8](repeating: 0, count: 2 * block) }

    /// Bytes of zeros that fill a file's last block.
    package static func padding(_ byteCount: Int) -> [UInt8] {
        [UInt8](repeating: 0, count: (block - byteCount % block) % block)
    }

    /// What a file takes in the archive.
    package static func entryByteCount(_ byteCount: Int) -> Int {
        block + byteCount + padding(byteCount).count
    }

    /// - Parameters:
    ///   - path: at most 100 bytes of ASCII.
    ///   - byteCount: below 8 GiB, which is what eleven octal digits reach.
    package static func header(_ path: String, byteCount: Int) -> [UInt8] {
        precondition(path.utf8.count <= 100 && (0..<8 << 30).contains(byteCount))
        var header = [UInt8](repeating: 0, count: block)
        func put(_ text: String, at offset: Int) {
            for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
        }
        func octal(_ value: Int, digits: Int) -> String {
            let text = String(value, radix: 8)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        put(path, at: 0)
        put(octal(0o644, digits: 7), at: 100)
        put(octal(0, digits: 7), at: 108)
        put(octal(0, digits: 7), at: 116)
        put(octal(byteCount, digits: 11), at: 124)
        put(octal(0, digits: 11), at: 136)
        put("0", at: 156)
        put("ustar", at: 257)
        put("00", at: 263)
        // The checksum is taken with its own field as spaces.
        put("        ", at: 148)
        let sum = header.reduce(0) { $0 + Int($1) }
        put(octal(sum, digits: 6), at: 148)
        header[154] = 0
        return header
    }
}
