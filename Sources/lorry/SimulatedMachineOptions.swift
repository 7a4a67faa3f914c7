import ArgumentParser
import Foundation
import LorryBench
import LorryTensor

/// The flags of `lorry bench simulate` that say how fast the machine is.
struct SimulatedMachineOptions: ParsableArguments {
    @Option(help: "Figures that 'lorry bench engine --json' wrote.", completion: .file())
    var calibrate: String?
    @Option(help: "GB/s that the machine reads.")
    var readRate: Double?
    @Option(help: "Gop/s of the arithmetic that multiplies the base's weights.")
    var operationsRate: Double?
    @Option(help: "Gop/s of the arithmetic of adapters, keys and values, where it is another.")
    var operandRate: Double?
    @Option(help: "Share of the limits that prefill reaches.")
    var prefillShare: Double?
    @Option(help: "Share of the limits that decode reaches.")
    var decodeShare: Double?
    @Option(help: "Milliseconds of a step beside the model.")
    var stepOverhead: Double?
    @Option(help: "Milliseconds of a load beside its bytes.")
    var loadSeek: Double?
    @Option(help: "MB/s of a load, reading and compiling.")
    var loadRate: Double?
    @Option(help: "Loads at a time.")
    var loadThreads: Int?

    /// A flag that changes one of the machine's numbers.
    private struct Change {
        var flag: String
        var value: Double?
        var range: ClosedRange<Double>
        var number: WritableKeyPath<SimulatedMachine, Double>
        var unit: Double

        /// - Parameter unit: by which the flag's value is multiplied.
        init(
            _ flag: String, _ value: Double?, _ range: ClosedRange<Double>,
            _ number: WritableKeyPath<SimulatedMachine, Double>, unit: Double
        ) {
            self.flag = flag
            self.value = value
            self.range = range
            self.number = number
            self.unit = unit
        }
    }

    private func changes(_ weights: WeightFormat) -> [Change] {
        let rates = 1e-6...1e9
        let shares = 1e-6...1.0
        let milliseconds = 0.0...1e9
        return [
            Change("--read-rate", readRate, rates, \.readBytesPerSecond, unit: 1e9),
            Change("--operations-rate", operationsRate, rates, \.[weights.arithmetic], unit: 1e9),
            Change(
                "--operand-rate", operandRate, rates, \.[weights.operandFormat.arithmetic],
                unit: 1e9),
            Change("--prefill-share", prefillShare, shares, \.prefillShare, unit: 1),
            Change("--decode-share", decodeShare, shares, \.decodeShare, unit: 1),
            Change("--step-overhead", stepOverhead, milliseconds, \.stepSeconds, unit: 1e-3),
            Change("--load-seek", loadSeek, milliseconds, \.loadSeconds, unit: 1e-3),
            Change("--load-rate", loadRate, rates, \.loadBytesPerSecond, unit: 1e6),
        ]
    }

    func check(_ weights: WeightFormat) throws {
        for change in changes(weights) {
            try BenchCommand.check(change.flag, change.value, change.range)
        }
        try BenchCommand.check("--load-threads", loadThreads, 1...1024)
        if operandRate != nil, weights.arithmetic == weights.operandFormat.arithmetic {
            throw ValidationError(
                "--operand-rate: with \(weights.rawValue) weights it is --operations-rate")
        }
    }

    func machine(_ weights: WeightFormat) throws -> SimulatedMachine {
        var machine = try measured() ?? assumed()
        for change in changes(weights) {
            guard let value = change.value else { continue }
            machine[keyPath: change.number] = value * change.unit
        }
        machine.loadThreadCount = loadThreads ?? machine.loadThreadCount
        return machine
    }

    private func measured() throws -> SimulatedMachine? {
        guard let calibrate else { return nil }
        guard let data = FileManager.default.contents(atPath: calibrate) else {
            throw StartError("--calibrate \(calibrate): cannot be read")
        }
        do {
            return try JSONDecoder().decode(SimulatedMachine.self, from: data)
        } catch let error as BenchError {
            throw StartError("--calibrate \(calibrate): \(error)")
        } catch {
            throw StartError("--calibrate \(calibrate): is not of 'lorry bench engine --json'")
        }
    }

    private func assumed() throws -> SimulatedMachine {
        guard let readRate, let operationsRate else {
            throw StartError("give --calibrate, or --read-rate and --operations-rate")
        }
        return SimulatedMachine(
            readBytesPerSecond: readRate * 1e9, operationsPerSecond: operationsRate * 1e9)
    }
}
