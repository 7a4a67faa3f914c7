import Foundation
import LorryModel

/// The only way into the engine thread: messages in, taken out all at once.
///
/// Safe because everything mutable is only touched with `condition` locked.
package final class Mailbox: @unchecked Sendable {
    package enum Message: Sendable {
        case submit(Submission)
        case abandon(SequenceID)
        case satisfy(SequenceID)
        case resume(SequenceID)
        case loaded(AdapterReference, Result<AdapterProgram, any Error>)
        case preload(AdapterReference)
        case setPinned(AdapterVersionID, Bool)
        case forget(AdapterVersionID)
        /// Asks what is wrong with what is noted of memory, nil for nothing.
        case check(@Sendable (String?) -> Void)
        /// Runs what runs to its end, then stops.
        case drain
        /// Ends everything at the next step, then stops.
        case stop
    }

    package struct Submission: Sendable {
        package let id: SequenceID
        package let request: GenerationRequest
        package let channel: EventChannel
        package let place: QueuePlace
        package let submitted: ContinuousClock.Instant

        package init(
            id: SequenceID, request: GenerationRequest, channel: EventChannel, place: QueuePlace,
            submitted: ContinuousClock.Instant
        ) {
            self.id = id
            self.request = request
            self.channel = channel
            self.place = place
            self.submitted = submitted
        }
    }

    private let condition = NSCondition()
    private var messages: [Message] = []
    private var isClosed = false

    package init() {}

    /// - Returns: false, dropping the message, where nobody will take it any more.
    @discardableResult
    package func send(_ message: Message) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        guard !isClosed else { return false }
        messages.append(message)
        condition.signal()
        return true
    }

    /// Takes no more messages.
    ///
    /// - Returns: those that nobody took.
    package func close() -> [Message] {
        condition.lock()
        defer { condition.unlock() }
        isClosed = true
        defer { messages = [] }
        return messages
    }

    /// - Parameters:
    ///   - waiting: whether to block until there is a message.
    ///   - deadline: until when to block at most.
    package func takeAll(
        waiting: Bool, until deadline: ContinuousClock.Instant? = nil
    ) -> [Message] {
        condition.lock()
        defer { condition.unlock() }
        while waiting, messages.isEmpty {
            guard let deadline else {
                condition.wait()
                continue
            }
            let left = (deadline - .now) / .seconds(1)
            guard left > 0, condition.wait(until: Date(timeIntervalSinceNow: left)) else { break }
        }
        defer { messages = [] }
        return messages
    }
}
