import Foundation
import HTTPTypes
import Hummingbird
import LorryEngine
import LorryModel
import LorryRegistry
import LorryText
import NIOCore

// The one place where errors of the other targets become HTTP statuses.

extension APIError {
    init(_ error: EngineError) {
        switch error {
        case .queueFull(let retryAfter):
            let seconds = max(1, Int((retryAfter / .seconds(1)).rounded(.up)))
            self.init(
                .tooManyRequests, "The queue is full; try again in \(seconds) s.",
                headers: [.retryAfter: "\(seconds)"])
        case .queueTooSmall(let count, let limit):
            self.init(
                .badRequest,
                "The request asks for \(count) sequences; at most \(limit) may wait.",
                parameter: "prompt")
        case .promptTooLong(let tokenCount, let limit):
            self = .promptTooLong(tokenCount: tokenCount, limit: limit, parameter: "prompt")
        case .exceedsMemory(let required, let budget):
            self.init(
                .badRequest,
                "The request needs \(required) bytes for its keys, values and adapter, more than the "
                    + "memory budget of \(budget) bytes holds.")
        case .invalidToken(let id, let vocabularySize):
            self.init(
                .badRequest,
                "Token id \(id) is outside the vocabulary of \(vocabularySize) tokens.",
                parameter: "prompt")
        case .adapterLoadFailed(let name, let reason):
            self.init(.internalServerError, "The adapter '\(name)' could not be loaded: \(reason)")
        case .numbersOverflow(let adapter):
            self.init(
                .internalServerError,
                "\(adapter.map { "The adapter '\($0)'" } ?? "The model") gives numbers that are not "
                    + "finite: its weights, or their scales, are too large.")
        case .deadlineUnreachable(let needed, let left):
            let seconds = max(1, Int(((needed - left) / .seconds(1)).rounded(.up)))
            self.init(
                .serviceUnavailable, type: Self.deadlineType,
                "The answer would take about \(Self.text(needed)) s with what is ahead of it, and "
                    + "the request's time ends in \(Self.text(left)) s.",
                headers: [.retryAfter: "\(min(seconds, 60))"])
        case .deadlinePassed:
            self.init(
                .gatewayTimeout, type: Self.deadlineType,
                "The request's time ended before its answer was complete.")
        case .shuttingDown:
            self = .shuttingDown
        }
    }

    /// The `type` of what a request's own deadline caused.
    static let deadlineType = "DeadlineExceededError"

    private static func text(_ duration: Duration) -> String {
        let seconds = duration / .seconds(1)
        return String(format: seconds < 1 ? "%.3f" : "%.1f", seconds)
    }

    static var shuttingDown: APIError {
        APIError(
            .serviceUnavailable, "The server is shutting down.", headers: [.retryAfter: "5"])
    }

    /// vLLM's words for a prompt that fills the context.
    static func promptTooLong(tokenCount: Int, limit: Int, parameter: String) -> APIError {
        .invalid(
            parameter,
            "This model's maximum context length is \(limit) tokens. However, your request has "
                + "\(tokenCount) input tokens. Please reduce the length of the input messages.")
    }

    init(_ error: RegistryError) {
        let status: HTTPResponse.Status =
            switch error.kind {
            case .invalid: .badRequest
            case .unsupported: .unprocessableContent
            case .tooLarge: .contentTooLarge
            case .notFound: .notFound
            case .disabled, .overAllowance: .forbidden
            case .conflict: .conflict
            case .preconditionFailed: .preconditionFailed
            case .busy: .serviceUnavailable
            // RFC 4918 section 11.5.
            case .full: .init(code: 507, reasonPhrase: "Insufficient Storage")
            case .damaged, .storage: .internalServerError
            }
        self.init(
            status, error.message,
            headers: error.kind == .busy ? [.retryAfter: "1"] : [:])
    }

    /// Any error at all; one that no target declares is not shown to clients.
    init(any error: any Error) {
        switch error {
        case let error as APIError: self = error
        case let error as FormedError:
            self.init(any: error.underlying)
            form = error.form
        case let error as EngineError: self.init(error)
        case let error as RegistryError: self.init(error)
        case let error as AdapterError:
            let status: HTTPResponse.Status =
                switch error.kind {
                case .invalid, .unreadable: .badRequest
                case .unsupported: .unprocessableContent
                case .damaged, .outOfMemory: .internalServerError
                }
            self.init(status, error.message)
        case let error as TokenizerError: self.init(.badRequest, "\(error)")
        case let error as MultipartParser.Failure: self.init(.badRequest, "\(error)")
        case is NIOTooManyBytesError:
            self.init(.contentTooLarge, "The body is larger than the limit.")
        case let error as any HTTPResponseError:
            let text = (error as? HTTPError)?.body ?? error.status.reasonPhrase
            self.init(error.status, text, headers: (error as? HTTPError)?.headers ?? [:])
        default: self.init(.internalServerError, "Internal error.")
        }
    }
}
