import ArgumentParser
import LorryBench

/// The commands that change what a name stands for, or whether it is served.
extension AdaptersCommand {
    struct Versions: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List an adapter's versions, the one served last first.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The adapter's name.") var name: String

        func run() async throws {
            try await place.work { store in
                for line in TextTable.of(try await store.versions(name)).lines { print(line) }
            }
        }
    }

    struct Rollback: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Serve an earlier version of an adapter again.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The adapter's name.") var name: String
        @Option(help: "At least 8 digits of a version; the one served before if it is not given.")
        var to: String?

        func run() async throws {
            try await place.work { store in
                let record = try await store.rollBack(name, to: to)
                print("\(record.name) is at version \(record.version.prefix(12)) again")
            }
        }
    }

    struct Switch<Change: AdapterSwitch.Change>: AsyncParsableCommand {
        static var configuration: CommandConfiguration {
            CommandConfiguration(commandName: Change.name, abstract: Change.abstract)
        }
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The adapter's name.") var name: String

        func run() async throws {
            try await place.work { store in
                let record = try await store.apply(Change.kind, name)
                print("\(Change.done) \(record.name)")
            }
        }
    }

    struct Aliases: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the aliases.")
        @OptionGroup var place: AdapterPlace

        func run() async throws {
            try await place.work { store in
                for line in TextTable.of(try await store.aliases()).lines { print(line) }
            }
        }
    }

    struct Alias: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make another name stand for an adapter, or move it to another one.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The alias.") var alias: String
        @Argument(help: "The adapter: NAME follows its current version, NAME@VERSION stays there.")
        var adapter: String

        func run() async throws {
            try await place.work { store in
                let record = try await store.setAlias(alias, to: adapter)
                print(
                    "\(record.name) is \(record.adapter), "
                        + (record.fixed ? "fixed at" : "now at")
                        + " version \(record.version.prefix(12))")
            }
        }
    }

    struct Unalias: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove an alias. The adapter stays.")
        @OptionGroup var place: AdapterPlace
        @Argument(help: "The alias.") var alias: String

        func run() async throws {
            try await place.work { store in
                try await store.removeAlias(alias)
                print("Removed the alias \(alias)")
            }
        }
    }
}

/// What an adapter can be switched to, each a command of its own.
enum AdapterSwitch: String {
    case pin, unpin, disable, enable

    protocol Change {
        static var kind: AdapterSwitch { get }
        static var abstract: String { get }
        static var done: String { get }
    }

    enum Pin: Change {
        static let kind = AdapterSwitch.pin
        static let abstract = "Keep an adapter in memory."
        static let done = "Pinned"
    }

    enum Unpin: Change {
        static let kind = AdapterSwitch.unpin
        static let abstract = "Let an adapter leave memory when others need it."
        static let done = "Unpinned"
    }

    enum Disable: Change {
        static let kind = AdapterSwitch.disable
        static let abstract = "Refuse new requests for an adapter. Running ones end as they began."
        static let done = "Disabled"
    }

    enum Enable: Change {
        static let kind = AdapterSwitch.enable
        static let abstract = "Serve a disabled adapter again."
        static let done = "Enabled"
    }
}

extension AdapterSwitch.Change {
    static var name: String { kind.rawValue }
}
