import Foundation
import NIOHTTP1

/// Adapter uploads, built by the test.
enum AdapterArchive {
    /// The two files of an adapter's folder as a ustar archive.
    /// - Parameter alpha: replaces `lora_alpha`, which makes another version of the same size.
    static func tar(_ folder: URL, alpha: Int? = nil) throws -> [UInt8] {
        var archive: [UInt8] = []
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            var data = try Data(contentsOf: folder.appending(path: name))
            if let alpha, name == "adapter_config.json" {
                let text = String(decoding: data, as: UTF8.self)
                    .replacing(#/"lora_alpha": [0-9.]+/#, with: "\"lora_alpha\": \(alpha)")
                data = Data(text.utf8)
            }
            archive += header(name, byteCount: data.count) + data
            archive += [UInt8](repeating: 0, count: (512 - data.count % 512) % 512)
        }
        return archive + [UInt8](repeating: 0, count: 1024)
    }

    private static func header(_ name: String, byteCount: Int) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, at offset: Int) {
            header.replaceSubrange(offset..<offset + text.utf8.count, with: text.utf8)
        }
        func octal(_ value: Int, _ digits: Int) -> String {
            let text = String(value, radix: 8)
            return String(repeating: "0", count: digits - text.count) + text
        }
        put(name, at: 0)
        put(octal(0o644, 7), at: 100)
        put(octal(0, 7), at: 108)
        put(octal(0, 7), at: 116)
        put(octal(byteCount, 11), at: 124)
        put(octal(0, 11), at: 136)
        put("        0", at: 148)
        put("ustar", at: 257)
        put("00", at: 263)
        put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\0 ", at: 148)
        return header
    }
}

extension Client {
    func put(_ name: String, _ archive: [UInt8]) async throws -> Reply {
        try await send(
            .PUT, "/admin/adapters/\(name)", headers: [("content-type", "application/x-tar")],
            body: archive)
    }

    func delete(_ name: String) async throws -> Reply {
        try await send(.DELETE, "/admin/adapters/\(name)")
    }
}
