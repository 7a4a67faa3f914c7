/// Where the engine's core has its instants from: the machine's clock, or a simulation's.
package protocol EngineClock {
    var now: ContinuousClock.Instant { get }
}

extension ContinuousClock: EngineClock {}
