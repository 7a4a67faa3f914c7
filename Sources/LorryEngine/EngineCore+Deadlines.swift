// Requests whose clients wait for a limited time.
extension EngineCore {
    /// Why the sequence need not begin: its deadline has passed, or cannot be met.
    func deadlineError(_ sequence: TokenSequence) -> EngineError? {
        guard let deadline = sequence.request.deadline else { return nil }
        let left = deadline - clock.now
        guard left > .zero else { return .deadlinePassed }
        guard let seconds = scheduler.estimatedSeconds(for: sequence) else { return nil }
        let needed = Duration.seconds(seconds)
        return needed > left ? .deadlineUnreachable(needed: needed, left: left) : nil
    }

    /// When the first deadline passes; of a sequence that may have ended already.
    var nextDeadline: ContinuousClock.Instant? { deadlines.first }

    /// Ends the sequences whose deadlines have passed, whether they wait or run.
    func endOverdue(_ now: ContinuousClock.Instant) {
        while let id = deadlines.popFirst(upTo: now) {
            if let sequence = sequences[id] { fail(sequence, .deadlinePassed) }
        }
    }
}

extension Scheduler {
    /// Notes how long answers are.
    func noteAnswer(tokenCount: Int) {
        answerTokenCount += (Double(tokenCount) - answerTokenCount) / 32
    }

    /// The time until a sequence that comes now has the least answer that it may have, after what
    /// is ahead of it: its tenant's own waiting sequences, and as much of the others' as their
    /// weights give them meanwhile. Nil where no steps were measured yet.
    package func estimatedSeconds(for sequence: TokenSequence) -> Double? {
        guard let costs else { return nil }
        let request = sequence.request
        let tenant = queue.account(of: request)
        let weight = tenant.waitingCount > 0 ? tenant.weight : request.weight
        let all = queue.waitingWeight + (tenant.waitingCount > 0 ? 0 : weight)
        let others = all / weight
        let tokens = min(Double(tenant.waitingTokenCount) * others, Double(queue.tokenCount))
        let count = min(Double(tenant.waitingCount) * others, Double(queue.count))
        // Those for whom there is no place have to wait until others' answers have ended.
        let free = Double(max(bounds.runningCount - running.count, 0))
        let answers = max(count + 1 - free, 0) * answerTokenCount
        let perAnswerToken = costs.decodeToken + costs.fixed / Double(max(running.count, 1))
        let ahead = tokens * costs.promptToken + answers * perAnswerToken
        let prompt = costs.fixed + Double(sequence.promptCount) * costs.promptToken
        let least = request.ignoresEndTokens ? request.maximumTokenCount : request.minimumTokenCount
        let step = costs.seconds(promptTokenCount: 0, decodeCount: running.count + 1)
        return ahead + prompt + Double(max(least - 1, 0)) * min(step, bounds.stepSeconds)
    }
}
