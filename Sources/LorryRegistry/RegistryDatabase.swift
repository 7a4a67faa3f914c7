import Foundation
import GRDB
import LorryModel
import Synchronization

/// The rows behind `RegistryContents`, in SQLite with a write-ahead log synced at every commit.
final class RegistryDatabase: Sendable {
    /// "Lory": tells a registry from any other SQLite file.
    static let applicationID = 0x4C6F_7279

    let pool: DatabasePool
    let path: String
    /// Set when a commit failed in a way that may have left its rows in the log; see `commit`.
    private let hasUncertainCommit = Atomic(false)

    /// Opens or creates the database and brings its schema up to date.
    /// - Parameter mayBeNew: false where there are adapters, which a new one would not name.
    /// - Throws: `damaged` if it is no intact registry, `unsupported` if a newer Lorry wrote it.
    init(path: String, mayBeNew: Bool) throws {
        self.path = path
        var configuration = Configuration()
        configuration.label = "lorry.registry.database"
        configuration.maximumReaderCount = 2
        do {
            try WriteAheadLog.check(path + "-wal", database: path)
            pool = try DatabasePool(path: path, configuration: configuration)
            try pool.writeWithoutTransaction { db in
                // GRDB chooses NORMAL, which may lose the last commits when the power fails.
                try db.execute(sql: "PRAGMA synchronous = FULL")
                try Self.checkOrigin(db, path, mayBeNew: mayBeNew)
                if let problem = try Self.problems(db, limit: 1).first {
                    throw Self.damaged(path, problem)
                }
            }
            let migrator = RegistrySchema.migrator
            guard try !pool.read(migrator.hasBeenSuperseded) else { throw Self.newer(path) }
            try migrator.migrate(pool)
        } catch {
            throw Self.unreadable(error, path)
        }
    }

    /// Closes the database and leaves no write-ahead log behind. What fails here costs nothing: a
    /// log that stays is read at the next start.
    func close() {
        _ = try? pool.writeWithoutTransaction { try $0.checkpoint(.truncate) }
        try? pool.close()
    }

    /// The writer's `journal_mode` and `synchronous` (2 is FULL).
    func journalSettings() throws -> [String] {
        try pool.writeWithoutTransaction { db in
            try ["journal_mode", "synchronous"].compactMap {
                try String.fetchOne(db, sql: "PRAGMA \($0)")
            }
        }
    }

    func load() throws -> RegistryContents {
        do {
            return try pool.read { try Self.contents($0, path) }
        } catch {
            throw Self.unreadable(error, path)
        }
    }

    /// - Throws: `damaged`, or what SQLite says, for rows that no Lorry can have written.
    static func contents(_ db: Database, _ path: String) throws -> RegistryContents {
        let versions = try Row.fetchAll(db, sql: "SELECT * FROM versions").map(Self.version)
        var histories: [AdapterKey: [NameEntry.Past]] = [:]
        let rows = try Row.fetchAll(db, sql: "SELECT * FROM history ORDER BY position")
        for row in rows {
            histories[try Self.key(row), default: []].append(
                NameEntry.Past(
                    version: try AdapterVersionID(row.value(of: "version")),
                    created: try Self.date(of: row, "created")))
        }
        var aliases: [AdapterKey: [String: NameEntry.Alias]] = [:]
        for row in try Row.fetchAll(db, sql: "SELECT * FROM aliases") {
            aliases[try Self.key(row), default: [:]][try row.value(of: "alias")] =
                NameEntry.Alias(
                    version: try Self.optionalVersion(row),
                    created: try Self.date(of: row, "created"))
        }
        let names = try Row.fetchAll(db, sql: "SELECT * FROM names").map { row in
            let key = try Self.key(row)
            guard
                let entry = NameEntry(
                    key: key, isDisabled: try row.value(of: "disabled"),
                    isPinned: try row.value(of: "pinned"),
                    history: histories[key] ?? [], aliases: aliases[key] ?? [:])
            else { throw Self.damaged(path, "\(key) has no version") }
            guard entry.current.version.digest == (try row.value(of: "version")) else {
                throw Self.damaged(path, "\(key) has two current versions")
            }
            return entry
        }
        return RegistryContents(names: names, versions: versions)
    }

    /// Writes all changes in one transaction; they are on disk when this returns.
    ///
    /// After a failure none of them is seen. But where a sync failed the rows stand whole in the
    /// log, and a crash before the next commit, which writes over them, would bring them back:
    /// `mayComeBack` says so.
    func commit(_ changes: [RegistryChange]) throws -> [RegistryEvent] {
        try transaction { db in
            let events = try changes.map { try Self.write($0, db) }
            for version in Set(changes.flatMap(\.released)) {
                try db.execute(
                    sql: """
                        DELETE FROM versions WHERE digest = :version
                        AND NOT EXISTS (SELECT 1 FROM history WHERE version = :version)
                        """, arguments: ["version": version.digest])
            }
            return events
        }
    }

    /// Writes an audit entry that changes nothing.
    func note(_ audit: RegistryChange.Audit, _ key: AdapterKey) throws -> RegistryEvent {
        try transaction { try Self.write(audit, key, $0) }
    }

    var mayComeBack: Bool { hasUncertainCommit.load(ordering: .relaxed) }

    /// Runs `body` in one transaction; what it wrote is on disk when this returns.
    func transaction<Result>(_ body: (Database) throws -> Result) throws -> Result {
        do {
            let result = try pool.write(body)
            hasUncertainCommit.store(false, ordering: .relaxed)
            return result
        } catch {
            // A full disk takes no commit frame, so nothing can come back.
            if let error = error as? DatabaseError, error.resultCode == .SQLITE_IOERR {
                hasUncertainCommit.store(true, ordering: .relaxed)
            }
            throw Self.translated(error, path)
        }
    }

    func events(_ query: EventQuery) async throws -> [RegistryEvent] {
        do {
            return try await pool.read { db in
                try Row.fetchAll(
                    db,
                    sql: """
                        SELECT * FROM events WHERE id > :after AND id < :before
                        AND (:tenant IS NULL OR tenant = :tenant)
                        AND (:names IS NULL OR name IN (SELECT value FROM json_each(:names)))
                        ORDER BY id \(query.newestFirst ? "DESC" : "ASC") LIMIT :limit
                        """,
                    arguments: [
                        "after": query.after, "before": query.before ?? .max,
                        "tenant": query.tenant, "names": try query.names.map(Self.list),
                        "limit": max(0, query.limit),
                    ]
                ).map(Self.event)
            }
        } catch {
            throw Self.translated(error, path)
        }
    }

    private static func write(_ change: RegistryChange, _ db: Database) throws -> RegistryEvent {
        if let stored = change.stored { try write(stored, db) }
        let (tenant, name) = (change.key.tenant, change.key.name)
        for table in ["aliases", "history"] {
            try db.execute(
                sql: "DELETE FROM \(table) WHERE tenant = ? AND name = ?",
                arguments: [tenant, name])
        }
        if let entry = change.after {
            try db.execute(
                sql: """
                    INSERT INTO names (tenant, name, version, disabled, pinned)
                    VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version,
                    disabled = excluded.disabled, pinned = excluded.pinned
                    """,
                arguments: [
                    tenant, name, entry.current.version.digest, entry.isDisabled, entry.isPinned,
                ])
            for (position, past) in entry.history.enumerated() {
                try db.execute(
                    sql: """
                        INSERT INTO history (tenant, name, position, version, created)
                        VALUES (?, ?, ?, ?, ?)
                        """,
                    arguments: [
                        tenant, name, position, past.version.digest, milliseconds(past.created),
                    ])
            }
            for (alias, target) in entry.aliases {
                try db.execute(
                    sql: """
                        INSERT INTO aliases (tenant, alias, name, version, created)
                        VALUES (?, ?, ?, ?, ?)
                        """,
                    arguments: [
                        tenant, alias, name, target.version?.digest, milliseconds(target.created),
                    ])
            }
        } else {
            try db.execute(
                sql: "DELETE FROM names WHERE tenant = ? AND name = ?", arguments: [tenant, name])
        }
        return try write(change.audit, change.key, db)
    }

    private static func write(_ version: StoredVersion, _ db: Database) throws {
        let about = version.description
        let files = String(decoding: try JSONEncoder().encode(version.files), as: UTF8.self)
        let targets = String(decoding: try JSONEncoder().encode(about.targets), as: UTF8.self)
        let traits = String(decoding: try JSONEncoder().encode(about.traits), as: UTF8.self)
        try db.execute(
            sql: """
                INSERT INTO versions
                (digest, method, rank, targets, byteCount, parameterCount, files, created, traits)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET files = excluded.files
                """,
            arguments: [
                version.id.digest, about.method, about.rank, targets, about.byteCount,
                about.parameterCount, files, milliseconds(version.created), traits,
            ])
    }

    private static func write(
        _ audit: RegistryChange.Audit, _ key: AdapterKey, _ db: Database
    ) throws -> RegistryEvent {
        let time = now()
        try db.execute(
            sql: """
                INSERT INTO events (time, actor, tenant, action, name, version, detail)
                VALUES (?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                milliseconds(time), audit.actor, key.tenant, audit.action.rawValue, key.name,
                audit.version?.digest, audit.detail,
            ])
        return RegistryEvent(
            id: db.lastInsertedRowID, time: time, actor: audit.actor, tenant: key.tenant,
            action: audit.action, name: key.name, version: audit.version, detail: audit.detail)
    }
}

/// For the tables that other files read and write.
extension RegistryDatabase {
    func reading<Result: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Result
    ) async throws -> Result {
        do { return try await pool.read(body) } catch { throw Self.translated(error, path) }
    }

    /// A list of texts as an argument for SQLite's `json_each`.
    static func list(_ texts: Set<String>) throws -> String {
        String(decoding: try JSONEncoder().encode(texts.sorted()), as: UTF8.self)
    }
}

/// Reading rows back, and what errors mean.
extension RegistryDatabase {
    /// The present in whole milliseconds, as it comes back from the database.
    static func now() -> Date { date(milliseconds(Date())) }

    private static func milliseconds(_ date: Date) -> Int64 {
        Int64((date.timeIntervalSince1970 * 1000).rounded())
    }

    static func date(_ milliseconds: Int64) -> Date {
        Date(timeIntervalSince1970: Double(milliseconds) / 1000)
    }

    private static func key(_ row: Row) throws -> AdapterKey {
        AdapterKey(name: try row.value(of: "name"), tenant: try row.value(of: "tenant"))
    }

    private static func optionalVersion(_ row: Row) throws -> AdapterVersionID? {
        row["version"] == nil ? nil : try AdapterVersionID(row.value(of: "version"))
    }

    private static func version(_ row: Row) throws -> StoredVersion {
        let targets: String = try row.value(of: "targets")
        let files: String = try row.value(of: "files")
        let traits: String = try row.value(of: "traits")
        let decoder = JSONDecoder()
        var description = AdapterDescription(
            method: try row.value(of: "method"), rank: try row.value(of: "rank"),
            targets: try decoder.decode([String].self, from: Data(targets.utf8)),
            byteCount: try row.value(of: "byteCount"),
            parameterCount: try row.value(of: "parameterCount"))
        description.traits = try decoder.decode(AdapterTraits.self, from: Data(traits.utf8))
        let stored = try decoder.decode([StoredFile].self, from: Data(files.utf8))
        try check(stored, description)
        return StoredVersion(
            id: try AdapterVersionID(row.value(of: "digest")), description: description,
            files: stored, created: try date(of: row, "created"))
    }

    private static func event(_ row: Row) throws -> RegistryEvent {
        let name: String = try row.value(of: "action")
        guard let action = RegistryEvent.Action(rawValue: name) else {
            throw RegistryError(.damaged, "the audit log holds the unknown action \(quoted(name))")
        }
        return RegistryEvent(
            id: try row.value(of: "id"), time: try date(of: row, "time"),
            actor: try row.value(of: "actor"), tenant: try row.value(of: "tenant"),
            action: action, name: try row.value(of: "name"),
            version: try optionalVersion(row),
            detail: try row.value(of: "detail"))
    }

    static func damaged(_ path: String, _ reason: String) -> RegistryError {
        RegistryError(
            .damaged,
            "the registry database \(path) is damaged (\(reason)); put back a backup of the state "
                + "directory, or move the whole directory away and register the adapters again")
    }

    static func translated(_ error: any Error, _ path: String) -> RegistryError {
        if let known = error as? RegistryError { return known }
        guard let error = error as? DatabaseError else {
            return damaged(path, String(describing: error))
        }
        let reason = error.message ?? "SQLite error \(error.resultCode.rawValue)"
        return switch error.resultCode {
        case .SQLITE_CORRUPT, .SQLITE_NOTADB: damaged(path, reason)
        case .SQLITE_FULL: RegistryError(.full, "the registry database \(path) failed: \(reason)")
        default: RegistryError(.storage, "the registry database \(path) failed: \(reason)")
        }
    }
}
