import Foundation
import LorryModel
import LorryRegistry

/// A tar or tar.gz body. The checksums of headers are set right first, which no fuzzer finds.
struct ArchiveTarget: FuzzTarget {
    private let folder: URL
    private let files = FileLayer()

    init() throws { folder = try makeScratchFolder() }

    func run(_ input: [UInt8]) throws {
        let path = folder.appending(path: "staged").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        var limits = UploadLimits()
        limits.maxWeightsByteCount = 1 << 16
        limits.freeExpansionByteCount = 1 << 18
        let staged = try StagedFolder(path: path, files: files, limits: limits)
        let unpacker = ArchiveUnpacker(into: staged, limits: limits)
        let body = Self.withChecksums(input)
        // Pieces of other sizes than blocks.
        for start in stride(from: 0, to: body.count, by: 700) {
            try unpacker.push(body[start..<min(start + 700, body.count)])
        }
        try unpacker.finish()
        _ = try staged.seal { _ in
            AdapterDescription(
                method: "lora", rank: 1, targets: [], byteCount: 1, parameterCount: 1)
        }
    }

    private static func withChecksums(_ input: [UInt8]) -> [UInt8] {
        var body = input
        for start in stride(from: 0, to: body.count - 511, by: 512)
        where body[start + 257..<start + 262].elementsEqual("ustar".utf8) {
            body.replaceSubrange(
                start + 148..<start + 156, with: [UInt8](repeating: 0x20, count: 8))
            let sum = body[start..<start + 512].reduce(0) { $0 + Int($1) }
            let digits = String(sum, radix: 8)
            let field = String(repeating: "0", count: 6 - digits.count) + digits + "\0 "
            body.replaceSubrange(start + 148..<start + 156, with: field.utf8)
        }
        return body
    }
}
