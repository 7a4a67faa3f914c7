/// What an adapter is, as far as its files tell: shown in listings and checked at registration.
public struct AdapterDescription: Sendable, Codable, Equatable {
    /// The PEFT method by its common name: `lora`, `rslora`, …
    public let method: String
    /// The largest rank of any target; 0 for methods without one.
    public let rank: Int
    /// Short names of the adapted modules, sorted: `k_proj`, `q_proj`, …
    public let targets: [String]
    /// Bytes that the adapter occupies while it is resident.
    public let byteCount: Int
    public let parameterCount: Int
    public var traits = AdapterTraits()
    /// Products and sums that a token takes, counted as two operations.
    public var operationCount: Int?

    public init(
        method: String, rank: Int, targets: [String], byteCount: Int, parameterCount: Int
    ) {
        self.method = method
        self.rank = rank
        self.targets = targets
        self.byteCount = byteCount
        self.parameterCount = parameterCount
    }
}

/// What a request must know of its adapter beside how to load it.
public struct AdapterTraits: Sendable, Codable, Equatable {
    /// Tokens of the adapter's own in front of every prompt, written -1, -2, …; nil for none.
    public var virtualTokenCount: Int?
    /// How many tokens the adapter knows, where they are more than the base's.
    public var vocabularySize: Int?
    /// The adapter acts from the last place of these tokens in the prompt on; nil: everywhere.
    public var invocationTokens: [Int32]?
    /// How many tasks the adapter knows, of which each request takes one; nil where it has none.
    public var taskCount: Int?

    public init() {}

    /// The first token of a prompt that the adapter acts on; Int.max where it never does.
    public func activationStart(in prompt: [Int32]) -> Int {
        guard let wanted = invocationTokens, !wanted.isEmpty else { return 0 }
        var start = prompt.count - wanted.count
        while start >= 0 {
            if prompt[start..<start + wanted.count].elementsEqual(wanted) { return start }
            start -= 1
        }
        return Int.max
    }
}

/// An adapter that is not served, with the file, tensor or field at fault in the message.
public struct AdapterError: Error, CustomStringConvertible, Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// Inconsistent, or made for another base model.
        case invalid
        /// A PEFT method or option that Lorry does not serve.
        case unsupported
        /// A file is missing or cannot be read.
        case unreadable
        /// The files are not those that were checked.
        case damaged
        /// The system does not give the memory.
        case outOfMemory
    }

    /// What of an adapter is at fault.
    enum Subject: Sendable, Equatable {
        case field(String)
        /// By its name in the file.
        case tensor(String)
        /// A module's path, which lacks a tensor or has too many.
        case module(String)
    }

    public let kind: Kind
    public let message: String
    let subject: Subject?
    public var description: String { message }

    public init(_ kind: Kind, _ message: String) { self.init(kind, message, about: nil) }

    /// - Parameter message: may have names and values of the files, as they are.
    init(_ kind: Kind, _ message: String, about subject: Subject?) {
        self.kind = kind
        self.message = shown(message, maximumCount: 1000)
        self.subject = subject
    }
}
