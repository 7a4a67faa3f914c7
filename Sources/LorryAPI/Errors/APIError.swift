import HTTPTypes
import Hummingbird

/// What a client is told when its request cannot be answered: an HTTP status and OpenAI's error
/// object, with vLLM's values for `type` and `code` (the status).
public struct APIError: Error, Sendable, CustomStringConvertible {
    public var status: HTTPResponse.Status
    /// The `type` member: `BadRequestError`, `NotFoundError`, …
    public var type: String
    public var message: String
    /// The request's field at fault.
    public var parameter: String?
    /// Sent beside the body, such as `Retry-After`.
    public var headers: HTTPFields
    var form = ErrorForm.openAI

    public init(
        _ status: HTTPResponse.Status, type: String? = nil, _ message: String,
        parameter: String? = nil, headers: HTTPFields = [:]
    ) {
        self.status = status
        self.type = type ?? Self.commonType(of: status)
        self.message = message
        self.parameter = parameter
        self.headers = headers
    }

    public var description: String { "\(status.code) \(type): \(message)" }

    /// A known field with a bad value.
    static func invalid(_ field: String, _ reason: String) -> APIError {
        APIError(.badRequest, reason, parameter: field)
    }

    static func modelNotFound(_ name: String) -> APIError {
        APIError(.notFound, "The model `\(name)` does not exist.", parameter: "model")
    }

    var body: JSON { form.body(self) }

    public var response: Response {
        var fields = headers
        fields[.contentType] = "application/json"
        return Response(
            status: form.status(self), headers: fields,
            body: .init(byteBuffer: ByteBuffer(bytes: body.bytes)))
    }

    private static func commonType(of status: HTTPResponse.Status) -> String {
        switch status.code {
        case 400, 413, 415, 431: "BadRequestError"
        case 401: "AuthenticationError"
        case 403: "PermissionDeniedError"
        case 404: "NotFoundError"
        case 405: "MethodNotAllowedError"
        case 409: "ConflictError"
        case 412: "PreconditionFailedError"
        case 422: "UnprocessableEntityError"
        case 429: "RateLimitError"
        case 503: "ServiceUnavailableError"
        case 507: "InsufficientStorageError"
        case 500...599: "InternalServerError"
        default: "APIError"
        }
    }
}
