import LorryEngine
import Testing

@Suite struct StepCostsTests {
    @Test func findsTheCostsOfMixedSteps() throws {
        var random = SeededGenerator(seed: 3)
        let truth = StepCosts(fixed: 0.006, promptToken: 0.0004, decodeToken: 0.0007)
        var estimate = StepCostEstimate()
        for _ in 0..<400 {
            let prompt = Int.random(in: 0...200, using: &random)
            let decodes = Int.random(in: 0...60, using: &random)
            let noise = Double.random(in: 0.97...1.03, using: &random)
            estimate.note(
                promptTokenCount: prompt, decodeCount: decodes,
                seconds: noise * truth.seconds(promptTokenCount: prompt, decodeCount: decodes))
        }
        let costs = try #require(estimate.costs)
        #expect(abs(costs.fixed / truth.fixed - 1) < 0.25)
        #expect(abs(costs.promptToken / truth.promptToken - 1) < 0.05)
        #expect(abs(costs.decodeToken / truth.decodeToken - 1) < 0.05)
    }

    /// Steps that are all alike cannot be told apart, and still are predicted.
    @Test func predictsStepsThatAreAllAlike() throws {
        var estimate = StepCostEstimate()
        for _ in 0..<300 { estimate.note(promptTokenCount: 0, decodeCount: 8, seconds: 0.01) }
        let costs = try #require(estimate.costs)
        #expect(abs(costs.seconds(promptTokenCount: 0, decodeCount: 8) - 0.01) < 0.001)
        #expect(costs.promptToken > 0)
    }

    @Test func oneStepThatWasHeldUpChangesLittle() throws {
        var estimate = StepCostEstimate()
        for count in 0..<200 {
            estimate.note(
                promptTokenCount: 0, decodeCount: 1 + count % 9,
                seconds: 0.002 + 0.001 * Double(1 + count % 9))
        }
        let before = try #require(estimate.costs)
        estimate.note(promptTokenCount: 0, decodeCount: 4, seconds: 30)
        let after = try #require(estimate.costs)
        #expect(
            after.seconds(promptTokenCount: 0, decodeCount: 4)
                < 1.2 * before.seconds(promptTokenCount: 0, decodeCount: 4))
    }

    @Test func saysNothingBeforeItHasSeenSteps() {
        var estimate = StepCostEstimate()
        #expect(estimate.costs == nil)
        estimate.note(promptTokenCount: 5, decodeCount: 0, seconds: 1)
        #expect(estimate.costs == nil)
    }
}
