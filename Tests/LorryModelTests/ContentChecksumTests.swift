import Foundation
import LorryModel
import Testing

@Suite struct ContentChecksumTests {
    private let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 131 &+ $0 >> 8) }

    private func checksum(_ bytes: [UInt8]) -> ContentChecksum {
        bytes.withUnsafeBytes { ContentChecksum(of: $0) }
    }

    @Test(arguments: [1, 7, 240, 256, 1024, 5000])
    func piecesGiveTheChecksumOfTheWhole(size: Int) {
        let stream = ContentChecksum.Stream()
        for start in stride(from: 0, to: bytes.count, by: size) {
            bytes[start..<min(start + size, bytes.count)].withUnsafeBytes { stream.update($0) }
        }
        #expect(stream.checksum == checksum(bytes))
    }

    @Test func everyByteCounts() {
        let whole = checksum(bytes)
        for index in stride(from: 0, to: bytes.count, by: 97) {
            var changed = bytes
            changed[index] ^= 1
            #expect(checksum(changed) != whole)
        }
        #expect(checksum(Array(bytes.dropLast())) != whole)
        #expect(ContentChecksum.Stream().checksum == checksum([]))
    }

    @Test func isCodedAsDigits() throws {
        let whole = checksum(bytes)
        // XXH3's value for no bytes, from its specification's reference implementation.
        #expect(checksum([]).hexadecimal == "99aa06d3014798d86001c324468d497f")
        #expect(ContentChecksum(hexadecimal: whole.hexadecimal) == whole)
        let coded = try JSONEncoder().encode([whole])
        #expect(String(decoding: coded, as: UTF8.self) == "[\"\(whole.hexadecimal)\"]")
        #expect(try JSONDecoder().decode([ContentChecksum].self, from: coded) == [whole])
        let zeros = String(repeating: "0", count: 31)
        for text in ["", "99", "g" + zeros, "+" + zeros] {
            #expect(ContentChecksum(hexadecimal: text) == nil)
        }
    }
}
