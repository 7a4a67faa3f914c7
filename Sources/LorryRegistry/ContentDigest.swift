import Crypto
import Foundation

/// The version of an adapter: SHA-256 over what its files mean.
///
/// The hashed text is the line `lorry-adapter 1`, then one line `<name> <byte count> <sha256>` per
/// file that counts, sorted by name, each ended by a newline. `README.md` does not count.
/// `adapter_config.json` stands in its canonical form (`CanonicalJSON`), so that another order of
/// keys or indentation is the same version; all other files stand as their bytes.
package enum ContentDigest {
    package static func version(
        of files: [StoredFile], configuration: [UInt8]
    ) throws(RegistryError) -> AdapterVersionID {
        let canonical = try CanonicalJSON.encode(configuration, file: AdapterFile.configuration)
        var text = "lorry-adapter 1\n"
        for file in files.sorted(by: { $0.name < $1.name })
        where !AdapterFile.unversioned.contains(file.name) {
            if file.name == AdapterFile.configuration {
                text += "\(file.name) \(canonical.count) \(hex(SHA256.hash(data: canonical)))\n"
            } else {
                text += "\(file.name) \(file.byteCount) \(file.sha256)\n"
            }
        }
        return AdapterVersionID(checked: hex(SHA256.hash(data: Array(text.utf8))))
    }

    package static func hex(_ digest: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        for byte in digest {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
