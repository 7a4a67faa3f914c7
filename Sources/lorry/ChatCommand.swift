import ArgumentParser
import Dispatch
import Foundation
import NIOHTTP1
import Synchronization

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat", abstract: "Talk to a running server in the terminal.",
        discussion: """
            Ctrl-C stops an answer; at the prompt it ends the chat, as does Ctrl-D. Lines that \
            begin with a slash are commands: /reset forgets the conversation, /adapter NAME \
            changes the adapter (without a name: the base model), /system TEXT sets the system \
            message, /quit ends.
            """)

    @Option(help: "The adapter to talk through. The base model where it is not given.")
    var adapter: String?
    @Option(help: "The server. Also LORRY_URL; http://127.0.0.1:8080 where neither is given.")
    var url: String?
    @Option(help: "The server's API key. Also LORRY_API_KEY.") var apiKey: String?
    @Option(help: "Certificates to trust, in PEM format.", completion: .file()) var caFile: String?
    @Option(help: "The system message.") var system: String?
    @Option(help: "0 always takes the likeliest token.") var temperature: Double?
    @Option(help: "Upper bound on an answer's tokens.") var maxTokens: Int?

    func run() async throws {
        let client = ServerClient(address: try AdapterPlace.address(url, apiKey, caFile))
        var chat = Chat(
            client: client, adapter: adapter, system: system, temperature: temperature,
            maximumTokenCount: maxTokens)
        let interrupts = Interrupts()
        let isTerminal = isatty(STDIN_FILENO) == 1
        if isTerminal { Terminal.showLine("Talking to \(try await chat.modelName()). /quit ends.") }
        while let line = await Terminal.line(prompt: isTerminal ? "> " : "") {
            let text = line.trimmingCharacters(in: .whitespaces)
            if text.isEmpty { continue }
            if text.hasPrefix("/") {
                if ["/quit", "/exit"].contains(text) { return }
                Terminal.showLine(chat.apply(text))
                continue
            }
            let turn = chat
            let answer = Task { try await turn.answer(to: text) }
            interrupts.watch { answer.cancel() }
            let result = await answer.result
            interrupts.watch(nil)
            Terminal.showLine("")
            switch result {
            case .success(let reply): chat.remember(text, reply)
            case .failure(let error):
                // One question that fails ends a script, and not a conversation.
                guard isTerminal else { throw error }
                FileHandle.standardError.write(Data("\(error)\n".utf8))
            }
        }
    }
}

/// Ctrl-C: stops the answer under way, else the program.
private final class Interrupts {
    private final class Handler: Sendable {
        let body = Mutex<(@Sendable () -> Void)?>(nil)
    }

    private let handler = Handler()
    private let source: any DispatchSourceSignal

    init() {
        signal(SIGINT, SIG_IGN)
        source = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
        source.setEventHandler { [handler] in
            guard let body = handler.body.withLock({ $0 }) else {
                Terminal.showLine("")
                Foundation.exit(130)
            }
            body()
        }
        source.resume()
    }

    func watch(_ body: (@Sendable () -> Void)?) { handler.body.withLock { $0 = body } }
}

private enum Terminal {
    /// Reads on a thread of its own; nil at the end of the input.
    static func line(prompt: String) async -> String? {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                show(prompt)
                continuation.resume(returning: readLine())
            }
        }
    }

    /// At once: `print` would hold text back where the output is no terminal, and answers come in
    /// pieces.
    static func show(_ text: String) {
        FileHandle.standardOutput.write(Data(text.utf8))
    }

    static func showLine(_ text: String) { show(text + "\n") }
}

/// A conversation with its settings.
private struct Chat: Sendable {
    private struct Message: Codable, Sendable {
        let role: String
        let content: String
    }

    private struct Body: Encodable {
        let model: String?
        let messages: [Message]
        let stream = true
        let temperature: Double?
        let maximumTokenCount: Int?

        enum CodingKeys: String, CodingKey {
            case model, messages, stream, temperature
            case maximumTokenCount = "max_tokens"
        }
    }

    private struct Chunk: Decodable {
        struct Choice: Decodable {
            struct Delta: Decodable { let content: String? }
            let delta: Delta
        }
        struct Failure: Decodable { let message: String }
        let choices: [Choice]?
        let error: Failure?
    }

    let client: ServerClient
    var adapter: String?
    var system: String?
    let temperature: Double?
    let maximumTokenCount: Int?
    private var history: [Message] = []

    init(
        client: ServerClient, adapter: String?, system: String?, temperature: Double?,
        maximumTokenCount: Int?
    ) {
        self.client = client
        self.adapter = adapter
        self.system = system
        self.temperature = temperature
        self.maximumTokenCount = maximumTokenCount
    }

    /// What the server calls the model that answers.
    /// - Throws: `ClientError` where the server is not there or does not have the adapter.
    func modelName() async throws -> String {
        struct List: Decodable {
            struct Card: Decodable { let id: String }
            let data: [Card]
        }
        let list = try await client.send(.init(path: "/v1/models")).checked().decoded(List.self)
        guard let adapter else { return list.data.first?.id ?? "the base model" }
        let bare = String(adapter.prefix { $0 != "@" })
        guard list.data.contains(where: { $0.id == bare }) else {
            let known = list.data.map(\.id).joined(separator: ", ")
            throw ClientError("the server has no model '\(adapter)'; it has \(known)")
        }
        return adapter
    }

    /// Carries out a line that begins with a slash and says what it did.
    mutating func apply(_ line: String) -> String {
        let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
        let argument = parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces) : nil
        switch parts[0] {
        case "/reset":
            history = []
            return "The conversation is forgotten."
        case "/adapter":
            adapter = argument
            return argument.map { "Talking through \($0)." } ?? "Talking to the base model."
        case "/system":
            system = argument
            return argument == nil ? "No system message." : "The system message is set."
        default: return "Commands: /reset, /adapter NAME, /system TEXT, /quit."
        }
    }

    mutating func remember(_ question: String, _ reply: String) {
        history.append(Message(role: "user", content: question))
        history.append(Message(role: "assistant", content: reply))
    }

    /// Shows the answer as it comes and returns it whole; what came before a cancellation counts.
    func answer(to question: String) async throws -> String {
        var messages = system.map { [Message(role: "system", content: $0)] } ?? []
        messages += history + [Message(role: "user", content: question)]
        let request = try ServerClient.Request.json(
            .POST, "/v1/chat/completions",
            Body(
                model: adapter, messages: messages, temperature: temperature,
                maximumTokenCount: maximumTokenCount))
        let shown = Mutex("")
        do {
            try await client.exchange(request) { status, headers, chunks in
                guard status == 200 else {
                    var body: [UInt8] = []
                    while let chunk = try await chunks.next() { body += chunk }
                    throw ClientError(
                        ServerClient.Answer(status: status, headers: headers, body: body).failure)
                }
                var lines = LineBuffer()
                while let chunk = try await chunks.next() {
                    for line in lines.push(chunk) {
                        guard let text = try Self.text(of: line) else { continue }
                        Terminal.show(text)
                        shown.withLock { $0 += text }
                    }
                }
            }
        } catch {
            guard Task.isCancelled else { throw error }
            Terminal.show(" …")
        }
        return shown.withLock { $0 }
    }

    /// The new text in a line of the event stream; nil where it has none.
    private static func text(of line: String) throws -> String? {
        guard line.hasPrefix("data: "), line != "data: [DONE]" else { return nil }
        let chunk = try JSONDecoder().decode(
            Chunk.self, from: Data(line.dropFirst("data: ".count).utf8))
        if let failure = chunk.error { throw ClientError(failure.message) }
        return chunk.choices?.first?.delta.content
    }
}

/// Cuts bytes into lines, whatever the chunks they come in.
private struct LineBuffer {
    private var pending: [UInt8] = []

    mutating func push(_ bytes: [UInt8]) -> [String] {
        pending += bytes
        var lines: [String] = []
        while let end = pending.firstIndex(of: 0x0A) {
            lines.append(String(decoding: pending[..<end], as: UTF8.self))
            pending.removeSubrange(...end)
        }
        return lines
    }
}
