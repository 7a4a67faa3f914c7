import HTTPTypes
import Hummingbird
import Logging
import LorryHTTP
import LorryModel
import NIOCore

/// Logs what administrators were refused. It does not go to the audit log, which whoever knocks
/// could fill.
struct RefusalLog {
    private let request: Request
    private let context: LorryRequestContext
    private let access: Access

    init(_ request: Request, _ context: LorryRequestContext, _ access: Access) {
        self.request = request
        self.context = context
        self.access = access
    }

    /// - Parameter principal: nil for an unknown key.
    func refused(_ error: APIError, _ principal: Principal?) {
        guard access.role == .admin else { return }
        write(error, actor: principal?.actor)
    }

    /// A change that was refused by its content or by what there is.
    func failed(_ error: any Error, _ principal: Principal) {
        let reads = request.method == .get || request.method == .head
        guard access.role == .admin, !reads, !(error is CancellationError) else { return }
        let answer = APIError(any: error)
        if (400..<500).contains(answer.status.code) { write(answer, actor: principal.actor) }
    }

    private func write(_ error: APIError, actor: String?) {
        context.logger.notice(
            "administration refused",
            metadata: [
                "actor": "\(actor ?? "unknown")", "method": "\(request.method.rawValue)",
                "path": "\(shown(request.uri.path))", "status": "\(error.status.code)",
                "reason": "\(error.message)", "peer": "\(peer)",
            ])
    }

    private var peer: String { context.peerAddress?.ipAddress ?? "" }
}
