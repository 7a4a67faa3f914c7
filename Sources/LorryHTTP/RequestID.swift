import HTTPTypes

/// The id that a request is logged and answered with.
package enum RequestID {
    package static let name: HTTPField.Name =
        HTTPField.Name("x-request-id") ?? HTTPField.Name(parsed: "x-request-id") ?? .via

    /// The client's `x-request-id` when it is short and plain, or a new one.
    package static func of(_ request: HTTPRequest) -> String {
        if let id = request.headerFields[name], isUsable(id) { return id }
        return make()
    }

    /// 128 random bits as 32 hexadecimal digits.
    package static func make() -> String {
        var generator = SystemRandomNumberGenerator()
        let digits = (generator.next() as UInt64, generator.next() as UInt64)
        return hex(digits.0) + hex(digits.1)
    }

    private static func hex(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }

    /// An outside id goes into logs and header fields: visible ASCII only, and not long.
    private static func isUsable(_ id: String) -> Bool {
        let bytes = id.utf8
        return (1...128).contains(bytes.count) && bytes.allSatisfy { (0x21...0x7e).contains($0) }
    }
}
