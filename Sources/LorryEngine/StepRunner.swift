import LorryModel

/// Computes what the engine's core has planned. Owned by the engine thread.
///
/// For each step: `add` for every entry, `run`, then `clear`.
package protocol StepRunner: AnyObject {
    /// Whether `run` reads and writes the KV blocks.
    var usesMemory: Bool { get }
    /// Bytes of one KV block, all layers together.
    var kvBlockByteCount: Int { get }

    /// Adds a part of a sequence to the step. Entries with the same adapter come one after another.
    ///
    /// - Parameters:
    ///   - program: of the sequence's adapter; nil runs the base model alone.
    ///   - logits: which of the entry's tokens' logits are wanted, as offsets from the first.
    func add(_ entry: StepPlan.Entry, program: AdapterProgram?, logits: Range<Int>)

    /// Computes what was added.
    ///
    /// - Parameters:
    ///   - results: one for each token whose logits are wanted, in the order in which they were
    ///     added; filled in place.
    ///   - arena: the KV blocks, changed in place; nil where it does not use memory.
    func run(_ results: inout [RowResult], arena: UnsafeMutableRawPointer?)

    /// Forgets what was added, and lets go of its adapter programs.
    func clear()
}

/// What one row of logits gives.
package struct RowResult {
    package let sequence: TokenSequence
    /// Of the token whose logits these are.
    package let position: Int
    package var promptLogprobs: TokenLogprobs?
    /// The sampled one, where the position is the sequence's last.
    package var token: Int32?
    package var logprobs: TokenLogprobs?
    /// Whether the logits are no numbers, so that there is nothing to sample.
    package var isBroken = false

    package init(sequence: TokenSequence, position: Int) {
        self.sequence = sequence
        self.position = position
    }

    /// Whether the next token is to be sampled from this row.
    package var isSampled: Bool {
        position + 1 == sequence.tokens.count && !sequence.wantsNoTokens
    }
}
