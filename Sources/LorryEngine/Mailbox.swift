import Foundation
import LorryModel

/// The only way into the engine thread: messages in, taken out all at once.
///
/// Safe because everything mutable is only touched with `condition` locked.
final class Mailbox: @unchecked Sendable {
    enum Message: Sendable {
        case submit(Submission)
        case abandon(SequenceID)
        case resume(SequenceID)
        case loaded(AdapterReference, Result<AdapterProgram, any Error>)
        case preload(AdapterReference)
        case setPinned(AdapterVersionID, Bool)
        case forget(AdapterVersionID)
        /// Runs what runs to its end, then stops.
        case drain
        /// Ends everything at the next step, then stops.
        case stop
    }

    struct Submission: Sendable {
        let id: SequenceID
        let request: GenerationRequest
        let channel: EventChannel
        let place: QueuePlace
        let submitted: ContinuousClock.Instant
    }

    private let condition = NSCondition()
    private var messages: [Message] = []

    func send(_ message: Message) {
        condition.lock()
        messages.append(message)
        condition.signal()
        condition.unlock()
    }

    /// - Parameter waiting: whether to block until there is a message.
    func takeAll(waiting: Bool) -> [Message] {
        condition.lock()
        defer { condition.unlock() }
        while waiting, messages.isEmpty { condition.wait() }
        defer { messages = [] }
        return messages
    }
}
