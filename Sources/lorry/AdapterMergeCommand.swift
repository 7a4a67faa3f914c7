import ArgumentParser
import NIOHTTP1

extension AdaptersCommand {
    struct Merge: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Merge LoRA adapters of a running server to a new one.",
            discussion: "The types are those of peft's add_weighted_adapter.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The new adapter's name.") var name: String
        @Option(help: "An adapter and its weight, as NAME=0.7. At least one.")
        var from: [WeightedName]
        @Option(help: "How: linear, cat, svd, ties, dare_linear, dare_ties, magnitude_prune …")
        var type = "svd"
        @Option(help: "The share of numbers that ties, dare and magnitude_prune keep.")
        var density: Double?
        @Option(help: "With ties: total or frequency.") var majoritySign: String?
        @Option(help: "The new rank of types that end in svd.") var svdRank: Int?
        @Option(help: "Of dare's choice.") var seed: Int?

        func validate() throws {
            guard place.stateDir == nil else {
                throw ValidationError("merge works on a running server: give --url.")
            }
            guard !from.isEmpty else { throw ValidationError("--from is missing.") }
        }

        func run() async throws {
            let body = Body(
                adapters: from, combinationType: type, density: density,
                majoritySignMethod: majoritySign, svdRank: svdRank, seed: seed)
            let record = try await RemoteAdapters(client: place.client).merge(name, body)
            print(
                "Merged \(record.name) (\(record.method), rank \(record.rank)) as version "
                    + record.version.prefix(12))
        }
    }

    /// What `POST /admin/adapters/{name}/merge` takes.
    struct Body: Encodable, Sendable {
        let adapters: [WeightedName]
        let combinationType: String
        let density: Double?
        let majoritySignMethod: String?
        let svdRank: Int?
        let seed: Int?

        enum CodingKeys: String, CodingKey {
            case adapters, density, seed
            case combinationType = "combination_type"
            case majoritySignMethod = "majority_sign_method"
            case svdRank = "svd_rank"
        }
    }
}

/// `NAME=WEIGHT` on the command line; the weight is 1 where it is missing.
struct WeightedName: ExpressibleByArgument, Encodable, Sendable {
    let name: String
    let weight: Double

    init?(argument: String) {
        guard let mark = argument.lastIndex(of: "=") else {
            name = argument
            weight = 1
            return
        }
        guard let weight = Double(argument[argument.index(after: mark)...]) else { return nil }
        name = String(argument[..<mark])
        self.weight = weight
    }
}

extension RemoteAdapters {
    fileprivate func merge(
        _ name: String, _ body: AdaptersCommand.Body
    ) async throws -> ListedAdapter {
        try await client.send(.json(.POST, path(name, "/merge"), body)).checked()
            .decoded(ListedAdapter.self)
    }
}
