import HTTPTypes
import Hummingbird
import LorryModel
import NIOCore

extension Request {
    /// Collects the body and parses it as one JSON object.
    ///
    /// - Throws: what `json` throws, and 400 for another kind of value.
    func jsonObject(byteLimit: Int) async throws -> FieldReader {
        guard let object = try await json(byteLimit: byteLimit).objectValue else {
            throw APIError(.badRequest, "The body must be a JSON object.")
        }
        return FieldReader(object: object)
    }

    /// Collects the body and parses it.
    ///
    /// - Throws: `APIError` 415 for another content type, 413 over `byteLimit`, and 400 with the
    ///   byte's position where the JSON is malformed.
    func json(byteLimit: Int) async throws -> StrictJSON {
        if let type = contentType, type != "application/json", !type.hasSuffix("+json") {
            throw APIError(
                .unsupportedMediaType,
                "Unsupported content type '\(type)': only 'application/json' is allowed.")
        }
        let buffer = try await collectedBody(byteLimit: byteLimit)
        let parse = { @Sendable () -> Result<StrictJSON, any Error> in
            Result { try StrictJSON(parsing: buffer.readableBytesView) }
        }
        let isLong = buffer.readableBytes > Self.longBodyByteCount
        do {
            return try await (isLong ? onDispatch(parse) : parse()).get()
        } catch {
            throw APIError(.badRequest, "The body is \(error).")
        }
    }

    /// Bodies from this size on are parsed on a thread of their own.
    private static let longBodyByteCount = 64 << 10

    func collectedBody(byteLimit: Int) async throws -> ByteBuffer {
        if let text = headers[.contentLength], let length = Int(text), length > byteLimit {
            throw Self.tooLarge(byteLimit)
        }
        do {
            return try await body.collect(upTo: byteLimit)
        } catch is NIOTooManyBytesError {
            throw Self.tooLarge(byteLimit)
        }
    }

    /// The content type in lower case, without its parameters.
    var contentType: String? {
        headers[.contentType].map { value in
            let type = value.prefix { $0 != ";" }
            return type.trimmingSpaces.lowercased()
        }
    }

    static func tooLarge(_ byteLimit: Int) -> APIError {
        APIError(.contentTooLarge, "The body is larger than the limit of \(byteLimit) bytes.")
    }
}

extension StringProtocol {
    /// Without spaces and tabs at both ends.
    var trimmingSpaces: String {
        let isSpace = { (c: Character) in c == " " || c == "\t" }
        let start = drop(while: isSpace)
        guard let end = start.lastIndex(where: { !isSpace($0) }) else { return "" }
        return String(start[...end])
    }
}
