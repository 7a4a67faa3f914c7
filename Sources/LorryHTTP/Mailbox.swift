import HTTPTypes
import NIOConcurrencyHelpers
import NIOCore

/// What a request's task asks of the connection that it came from.
enum ResponseCommand: Sendable {
    /// A whole response in one step.
    case whole(HTTPResponse, ByteBuffer)
    case head(HTTPResponse)
    case body(ByteBuffer)
    case end(HTTPFields?)
    /// The response cannot be completed: reset the stream, or close the connection.
    case abort
    /// The handler asked for body bytes for the first time.
    case bodyWanted
    /// The handler used so many body bytes.
    case consumed(Int)
    /// The request's task is over.
    case taskEnded
}

/// A handler that carries out commands on its event loop.
protocol ResponseCommandReceiver: AnyObject {
    /// Runs on the event loop. Ids of requests that are gone are ignored.
    func carryOut(_ commands: [(request: Int, command: ResponseCommand)])
}

/// The way from request tasks into a connection: commands pile up under a lock, and the event loop
/// is woken once for all that came meanwhile.
final class Mailbox: Sendable {
    private struct State {
        var commands: [(request: Int, command: ResponseCommand)] = []
        var isScheduled = false
    }

    private let eventLoop: any EventLoop
    private let state = NIOLockedValueBox(State())
    private let receiver: NIOLoopBoundBox<(any ResponseCommandReceiver)?>

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        receiver = NIOLoopBoundBox(nil, eventLoop: eventLoop)
    }

    /// Called on the event loop; nil ends delivery.
    func setReceiver(_ receiver: (any ResponseCommandReceiver)?) {
        self.receiver.value = receiver
    }

    func post(_ command: ResponseCommand, request: Int) {
        let mustSchedule = state.withLockedValue { state in
            state.commands.append((request, command))
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        if mustSchedule {
            eventLoop.execute { self.deliver() }
        }
    }

    private func deliver() {
        let commands = state.withLockedValue { state in
            state.isScheduled = false
            defer { state.commands = [] }
            return state.commands
        }
        receiver.value?.carryOut(commands)
    }
}
