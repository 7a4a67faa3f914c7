import HTTPTypes
import NIOHTTP1

/// Judges HTTP/1.1 request heads. What the parser let through and a proxy in front might read
/// otherwise is refused (RFC 9112 §3.2, §5.1, §6.1, §6.3; RFC 9110 §7.2).
package enum HTTP1Rules {
    /// A head that is not served.
    package struct Violation: Error, Equatable {
        package let status: HTTPResponse.Status
        package let message: String
        package let reason: Refusal

        init(
            _ message: String, status: HTTPResponse.Status = .badRequest,
            reason: Refusal = .badRequest
        ) {
            self.status = status
            self.message = message
            self.reason = reason
        }
    }

    /// What a head announces.
    package struct Head {
        package let request: HTTPRequest
        /// nil when the body is chunked; 0 when there is none.
        package let contentLength: Int?
        package let keepsAlive: Bool
        package let expectsContinue: Bool
        /// The parser stops after a message with an `upgrade` field: nothing more can be read.
        package let wantsUpgrade: Bool

        package var hasBody: Bool { contentLength != 0 }
    }

    package static func judge(
        _ head: HTTPRequestHead, isSecure: Bool, limits: HTTPLimits
    ) throws(Violation) -> Head {
        guard head.uri.utf8.count <= limits.uriByteCount else {
            throw Violation(
                "The request target is too long", status: .uriTooLong, reason: .uriTooLong)
        }
        guard head.version.major == 1 else { throw Violation("This HTTP version is not served") }
        guard head.method != .CONNECT, let method = HTTPRequest.Method(head.method.rawValue) else {
            throw Violation("This method is not served", status: .notImplemented)
        }
        let host = try host(of: head)
        let path = try path(of: head, host: host)
        let contentLength = try bodyLength(of: head)
        var fields = HTTPFields()
        for (name, value) in head.headers {
            guard let name = HTTPField.Name(name), HTTPField.isValidValue(value) else {
                throw Violation("A header field has characters that do not belong there")
            }
            fields.append(HTTPField(name: name, value: value))
        }
        let connection = head.headers[canonicalForm: "connection"].map { $0.lowercased() }
        let wantsUpgrade = connection.contains("upgrade") && head.headers.contains(name: "upgrade")
        return Head(
            request: HTTPRequest(
                method: method, scheme: isSecure ? "https" : "http", authority: host,
                path: path, headerFields: fields),
            contentLength: contentLength,
            keepsAlive: head.version == .http1_1 && head.isKeepAlive,
            expectsContinue: head.version == .http1_1
                && head.headers["expect"].contains { $0.lowercased() == "100-continue" },
            wantsUpgrade: wantsUpgrade)
    }

    private static func host(of head: HTTPRequestHead) throws(Violation) -> String? {
        let hosts = head.headers["host"]
        guard hosts.count <= 1 else { throw Violation("There is more than one host field") }
        guard let host = hosts.first else {
            guard head.version == .http1_0 else { throw Violation("The host field is missing") }
            return nil
        }
        let isPlain = host.utf8.allSatisfy { byte in
            (0x21...0x7e).contains(byte) && !"/\\@,?#\"<>^`{|}".utf8.contains(byte)
        }
        guard isPlain else { throw Violation("The host field is not a host") }
        return host
    }

    /// The target's path and query (RFC 9112 §3.2).
    private static func path(
        of head: HTTPRequestHead, host: String?
    ) throws(Violation) -> String {
        let target = head.uri
        guard !target.utf8.contains(UInt8(ascii: "#")) else {
            throw Violation("The request target has a fragment")
        }
        if target.hasPrefix("/") { return target }
        if target == "*", head.method == .OPTIONS { return target }
        guard let scheme = ["http://", "https://"].first(where: target.lowercased().hasPrefix)
        else { throw Violation("The request target is not served") }
        let rest = target.dropFirst(scheme.count)
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        // RFC 9112 §3.2.2 lets the target win; whoever looked at the host field before us was told
        // another story then.
        guard host == nil || authority.lowercased() == host?.lowercased() else {
            throw Violation("The request target and the host field name different hosts")
        }
        let path = rest.dropFirst(authority.count)
        return path.hasPrefix("/") ? String(path) : "/" + path
    }

    private static func bodyLength(of head: HTTPRequestHead) throws(Violation) -> Int? {
        let codings = head.headers["transfer-encoding"]
        let lengths = head.headers["content-length"]
        guard codings.isEmpty || lengths.isEmpty else {
            throw Violation("There are both content-length and transfer-encoding")
        }
        if !codings.isEmpty {
            guard head.version == .http1_1 else {
                throw Violation("HTTP/1.0 has no transfer-encoding")
            }
            guard codings.count == 1, codings.first?.lowercased() == "chunked" else {
                throw Violation(
                    "Only the transfer-encoding chunked is served", status: .notImplemented)
            }
            return nil
        }
        guard lengths.count <= 1 else { throw Violation("There is more than one content-length") }
        guard let length = lengths.first else { return 0 }
        guard !length.isEmpty, length.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let length = Int(length)
        else { throw Violation("The content-length is not a number") }
        return length
    }
}

extension HTTP1Rules.Head {
    /// The SETTINGS payload of a sound `Upgrade: h2c` request without a body (RFC 7540 §3.2).
    ///
    /// A request that asks for it in another way is served over HTTP/1.1, as the RFC allows.
    package func h2cSettings(_ head: HTTPRequestHead) -> [UInt8]? {
        guard wantsUpgrade, !hasBody,
            head.headers[canonicalForm: "upgrade"].contains("h2c"),
            head.headers[canonicalForm: "connection"]
                .contains(where: { $0.lowercased() == "http2-settings" })
        else { return nil }
        let settings = head.headers["http2-settings"]
        guard settings.count == 1, let text = settings.first,
            let payload = Base64URL.decode(text), payload.count % 6 == 0, payload.count <= 32 * 6
        else { return nil }
        return payload
    }
}

/// Base64 with the alphabet of URLs and without padding (RFC 4648 §5).
package enum Base64URL {
    /// - Returns: nil for anything but whole characters of the alphabet.
    package static func decode(_ text: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        var bits: UInt32 = 0
        var bitCount = 0
        for character in text.utf8 {
            guard let value = value(of: character) else { return nil }
            bits = (bits << 6 | value) & 0xffff
            bitCount += 6
            if bitCount >= 8 {
                bitCount -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
            }
        }
        return bitCount < 6 ? bytes : nil
    }

    private static func value(of character: UInt8) -> UInt32? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
        case UInt8(ascii: "-"): 62
        case UInt8(ascii: "_"): 63
        default: nil
        }
    }
}
