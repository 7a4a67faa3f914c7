import HTTPTypes

/// In which API's shape a client is told what went wrong.
enum ErrorForm: Sendable, Equatable {
    /// OpenAI's, which vLLM and SGLang share.
    case openAI
    case llamaCpp
    case loRAX
    /// What SGLang's adapter routes answer, with the names of the adapters that there are.
    case sgLangAdapters([String])

    func status(_ error: APIError) -> HTTPResponse.Status {
        switch (self, error.status.code) {
        case (.loRAX, 400): .unprocessableContent
        case (.loRAX, 500): HTTPResponse.Status(code: 424, reasonPhrase: "Failed Dependency")
        case (.sgLangAdapters, 400..<500): .badRequest
        default: error.status
        }
    }

    func body(_ error: APIError) -> JSON {
        switch self {
        case .openAI:
            [
                "error": [
                    "message": .string(error.message), "type": .string(error.type),
                    "param": .optional(error.parameter), "code": .integer(error.status.code),
                ]
            ]
        case .llamaCpp:
            [
                "error": [
                    "code": .integer(error.status.code), "message": .string(error.message),
                    "type": .string(Self.llamaCppType(error.status)),
                ]
            ]
        case .loRAX:
            [
                "error": .string(Self.loRAXMessage(error)),
                "error_type": .string(Self.loRAXType(error.status)),
            ]
        case .sgLangAdapters(let names): Self.sgLangAdapters(names, failure: error.message)
        }
    }

    /// - Parameter failure: empty for a success.
    static func sgLangAdapters(_ names: [String], failure: String) -> JSON {
        [
            "success": .bool(failure.isEmpty), "error_message": .string(failure),
            "loaded_adapters": .object(names.map { ($0, .string($0)) }),
        ]
    }

    private static func llamaCppType(_ status: HTTPResponse.Status) -> String {
        switch status.code {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 501: "not_supported_error"
        case 503: "unavailable_error"
        case 400..<500: "invalid_request_error"
        default: "server_error"
        }
    }

    /// Names beyond LoRAX's own are those of the status, which its clients go by then.
    private static func loRAXType(_ status: HTTPResponse.Status) -> String {
        switch status.code {
        case 400, 413, 415, 422: "validation"
        case 401: "authentication"
        case 403: "permission"
        case 404: "not_found"
        case 429, 503: "overloaded"
        case 504: "timeout"
        default: "generation"
        }
    }

    private static func loRAXMessage(_ error: APIError) -> String {
        switch loRAXType(error.status) {
        case "validation": "Input validation error: \(error.message)"
        case "generation": "Request failed during generation: \(error.message)"
        default: error.message
        }
    }
}

/// An error on its way to a client that expects it in a form of its own.
struct FormedError: Error {
    let form: ErrorForm
    let underlying: any Error
}

/// Lets whatever `body` throws, but for a cancellation, be told in `form`.
func telling<Result>(
    errorsAs form: ErrorForm, _ body: () async throws -> Result
) async throws -> Result {
    do {
        return try await body()
    } catch let error as CancellationError {
        throw error
    } catch let error as FormedError {
        throw error
    } catch {
        guard form != .openAI else { throw error }
        throw FormedError(form: form, underlying: error)
    }
}
