import HTTPTypes
import Hummingbird
import NIOCore

/// Writes server-sent events (WHATWG HTML section 9.2) as OpenAI's clients read them.
enum EventStream {
    static let headers: HTTPFields = [
        .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache",
    ]

    /// `data: <json>` and an empty line. JSON has no raw line break, so one line is enough.
    static func event(_ value: JSON) -> ByteBuffer {
        var bytes = Array("data: ".utf8)
        value.write(to: &bytes)
        bytes.append(contentsOf: "\n\n".utf8)
        return ByteBuffer(bytes: bytes)
    }

    /// An event with an id and a name, for streams that a client may resume.
    static func event(id: Int64, name: String, _ value: JSON) -> ByteBuffer {
        var bytes = Array("id: \(id)\nevent: \(name)\ndata: ".utf8)
        value.write(to: &bytes)
        bytes.append(contentsOf: "\n\n".utf8)
        return ByteBuffer(bytes: bytes)
    }

    /// OpenAI's error object under the event name `error`.
    static func failure(_ error: APIError) -> ByteBuffer {
        var bytes = Array("event: error\ndata: ".utf8)
        error.body.write(to: &bytes)
        bytes.append(contentsOf: "\n\n".utf8)
        return ByteBuffer(bytes: bytes)
    }

    static let done = ByteBuffer(string: "data: [DONE]\n\n")
}
