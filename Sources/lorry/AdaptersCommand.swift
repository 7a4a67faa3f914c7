import ArgumentParser
import Foundation
import LorryAPI
import LorryBench
import LorryModel
import LorryRegistry
import LorryTensor

struct AdaptersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adapters",
        abstract: "Work on the adapters of a running server, or of a state directory.",
        discussion: """
            Without --state-dir the commands talk to the server at --url. With it they open the \
            directory themselves, which no server may be using at the time. `verify` needs \
            neither.
            """,
        subcommands: [
            List.self, Add.self, Remove.self, Show.self, Versions.self, Rollback.self,
            Switch<AdapterSwitch.Pin>.self, Switch<AdapterSwitch.Unpin>.self,
            Switch<AdapterSwitch.Disable>.self, Switch<AdapterSwitch.Enable>.self,
            Aliases.self, Alias.self, Unalias.self, Merge.self, Verify.self,
        ])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the adapters.")
        @OptionGroup var place: AdapterPlace
        @Option(help: "Only names that begin so.") var prefix: String?
        @Option(help: "Only adapters of this PEFT method.") var method: String?
        @Option(help: "Only adapters in this state: ready, resident, disabled …")
        var state: String?
        @Flag(help: "Print JSON, one adapter a line.") var json = false

        func run() async throws {
            let filter = AdapterFilter(prefix: prefix, method: method, state: state)
            try await place.work { store in
                let adapters = try await store.list(filter)
                if json {
                    for adapter in adapters { print(try adapter.line) }
                } else if adapters.isEmpty {
                    print("There is no adapter.")
                } else {
                    for line in TextTable.of(adapters).lines { print(line) }
                }
            }
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add an adapter's folder, or a new version of an adapter.",
            discussion: "With --state-dir it needs --model, to check the adapter against.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The name that clients use.") var name: String
        @Argument(help: "A folder in PEFT's format.", completion: .directory) var folder: String
        @Option(help: "With --state-dir: the base model's folder.", completion: .directory)
        var model: String?

        func validate() throws {
            guard (model == nil) == (place.stateDir == nil) else {
                throw ValidationError("--state-dir and --model are given together or not at all.")
            }
        }

        func run() async throws {
            try await place.work(model: model) { store in
                let (record, isNew) = try await store.add(
                    name, URL(fileURLWithPath: folder, isDirectory: true))
                print(
                    isNew
                        ? "Added \(record.name) (\(record.method), rank \(record.rank)) as version "
                            + record.version.prefix(12)
                        : "\(record.name) has this content already (\(record.version.prefix(12)))")
            }
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove an adapter with its history. Running requests end as they began.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The adapter's name.") var name: String

        func run() async throws {
            try await place.work { store in
                try await store.remove(name)
                print("Removed \(name)")
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one adapter.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The adapter's name.") var name: String

        func run() async throws {
            try await place.work { store in print(try await store.show(name).details) }
        }
    }
}

/// Where the adapters are that a command works on.
struct AdapterPlace: ParsableArguments {
    @Option(help: "The server. Also LORRY_URL; http://127.0.0.1:8080 where neither is given.")
    var url: String?
    @Option(help: "The server's API key with the role admin. Also LORRY_API_KEY.")
    var apiKey: String?
    @Option(help: "Certificates to trust, in PEM format.", completion: .file()) var caFile: String?
    @Option(help: "Work on this state directory instead of a server.", completion: .directory)
    var stateDir: String?
    @Option(help: "With --state-dir: whose adapters. With a server the key says it.")
    var tenant: String?

    func validate() throws {
        guard tenant == nil || stateDir != nil else {
            throw ValidationError("--tenant is for --state-dir; with a server the key says it.")
        }
    }

    var client: ServerClient {
        get throws { ServerClient(address: try Self.address(url, apiKey, caFile)) }
    }

    static func address(
        _ url: String?, _ apiKey: String?, _ caFile: String?
    ) throws -> ServerAddress {
        let environment = ProcessInfo.processInfo.environment
        return try ServerAddress(
            url ?? environment["LORRY_URL"] ?? "http://127.0.0.1:8080",
            apiKey: apiKey ?? environment["LORRY_API_KEY"], authorityFile: caFile)
    }

    /// Runs `body` on the server's adapters or on the state directory's.
    func work(
        model: String? = nil, _ body: (any AdapterStore) async throws -> Void
    ) async throws {
        guard let stateDir else { return try await body(RemoteAdapters(client: client)) }
        try checkUrl()
        let inspect: AdapterInspection
        if let model {
            inspect = try Self.inspection(model: model)
        } else {
            // Without a model nothing can be added, so the registry must be there already.
            try Self.checkRegistry(stateDir)
            inspect = { _ in
                throw ClientError("--state-dir needs --model to check an adapter against")
            }
        }
        let registry = try AdapterRegistry(
            stateDirectory: URL(fileURLWithPath: stateDir, isDirectory: true), inspect: inspect)
        do {
            try await body(
                LocalAdapters(registry: registry, tenant: tenant ?? AdapterKey.sharedTenant))
        } catch {
            await registry.close()
            throw error
        }
        await registry.close()
    }

    /// - Throws: where a server is named too.
    func checkUrl() throws {
        guard url == nil else {
            throw ValidationError("--url and --state-dir exclude each other.")
        }
    }

    /// - Throws: where there is no registry in the directory.
    static func checkRegistry(_ stateDir: String) throws {
        let database = URL(fileURLWithPath: stateDir).appending(path: "registry.sqlite")
        guard FileManager.default.fileExists(atPath: database.path) else {
            throw ClientError("\(stateDir) is no state directory: it has no registry.sqlite")
        }
    }

    static func inspection(model: String) throws -> AdapterInspection {
        let configuration = try ModelConfiguration(
            directory: URL(fileURLWithPath: model, isDirectory: true))
        return { folder in
            try AdapterTexts.check(folder)
            return try AdapterCompiler.inspect(
                directory: folder, configuration: configuration, format: .bf16)
        }
    }
}
