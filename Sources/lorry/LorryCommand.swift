import ArgumentParser

/// What `GET /version` and `lorry --version` say.
let lorryVersion = "0.1.0"

@main
struct LorryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lorry",
        abstract: "Serve one base language model with any number of PEFT adapters.",
        discussion: """
            One process holds one frozen base model; each request names an adapter, and requests \
            with different adapters run in the same batch. Start with `lorry serve`, which serves \
            the bundled example model when no other is given.
            """,
        version: lorryVersion,
        subcommands: [
            ServeCommand.self, AdaptersCommand.self, StateCommand.self, KeysCommand.self,
            ChatCommand.self,
            SynthCommand.self, BenchCommand.self, DoctorCommand.self,
        ])
}
