import Foundation
import GRDB
import LorryModel

/// What may be wrong with a database that SQLite opens.
extension RegistryDatabase {
    /// A new database is empty, or has the migrator's own table: that is made by a commit before
    /// the first migration's.
    static func checkOrigin(_ db: Database, _ path: String, mayBeNew: Bool) throws {
        let id = try Int.fetchOne(db, sql: "PRAGMA application_id")
        if id == applicationID { return }
        let tables = try Set(String.fetchAll(db, sql: "SELECT tbl_name FROM sqlite_master"))
        guard id == 0, tables.isSubset(of: ["grdb_migrations"]) else {
            throw damaged(path, "it is not a registry of Lorry")
        }
        guard mayBeNew else { throw damaged(path, "it is empty although there are adapters") }
    }

    /// What SQLite finds wrong: pages, tables against their indexes, and rows that refer to none.
    static func problems(_ db: Database, limit: Int) throws -> [String] {
        let found = try String.fetchAll(db, sql: "PRAGMA integrity_check(\(limit))")
        guard found == ["ok"] else { return found.isEmpty ? ["no answer"] : found }
        return try Row.fetchAll(db, sql: "PRAGMA foreign_key_check").prefix(limit).map { row in
            let (table, parent): (String, String) = (
                try row.value(of: "table"), try row.value(of: "parent")
            )
            return "a row of \(table) refers to none of \(parent)"
        }
    }

    /// Rows, read from a copy in memory so that a database of an older Lorry stays as it is, and
    /// all that is wrong with it.
    /// - Throws: `damaged` if it cannot be read, `unsupported` if a newer Lorry wrote it.
    static func examine(_ path: String) throws -> (contents: RegistryContents, problems: [String]) {
        do {
            try WriteAheadLog.check(path + "-wal", database: path)
            var configuration = Configuration()
            configuration.readonly = true
            let file = try DatabaseQueue(path: path, configuration: configuration)
            defer { try? file.close() }
            let problems = try file.read { db in
                try checkOrigin(db, path, mayBeNew: true)
                return try Self.problems(db, limit: 100)
            }
            let copy = try DatabaseQueue()
            try file.backup(to: copy)
            let migrator = RegistrySchema.migrator
            guard try !copy.read(migrator.hasBeenSuperseded) else { throw newer(path) }
            try migrator.migrate(copy)
            return (try copy.read { try contents($0, path) }, problems)
        } catch {
            throw unreadable(error, path)
        }
    }

    /// As `problems(_:limit:)`, beside changes.
    func problems() async throws(RegistryError) -> [String] {
        do {
            return try await pool.read { try Self.problems($0, limit: 100) }
        } catch {
            throw Self.translated(error, path)
        }
    }

    static func newer(_ path: String) -> RegistryError {
        RegistryError(.unsupported, "the registry database \(path) was written by a newer Lorry")
    }

    /// Writes a copy as of the last commit to `destination`, which must not exist.
    func copy(to destination: String) throws {
        do {
            let target = try DatabaseQueue(path: destination)
            try pool.backup(to: target)
            try target.close()
        } catch {
            throw Self.translated(error, destination)
        }
    }

    /// As `translated`, where all that could be wrong are the rows and tables themselves.
    static func unreadable(_ error: any Error, _ path: String) -> RegistryError {
        if let known = error as? RegistryError {
            return known.kind == .invalid ? damaged(path, known.message) : known
        }
        if let error = error as? DatabaseError, error.resultCode == .SQLITE_ERROR {
            return damaged(path, error.message ?? "SQLite error 1")
        }
        return translated(error, path)
    }

    /// A column with milliseconds since 1970, up to the year 9999: later ones break arithmetic.
    static func date(of row: Row, _ column: String) throws -> Date {
        let milliseconds: Int64 = try row.value(of: column)
        guard (0..<253_402_300_800_000).contains(milliseconds) else {
            throw RegistryError(.invalid, "the time \(milliseconds) is out of range")
        }
        return date(milliseconds)
    }

    /// - Throws: `invalid` for names or numbers that no upload can have.
    static func check(_ files: [StoredFile], _ description: AdapterDescription) throws {
        for file in files {
            guard AdapterFile.stored.contains(file.name) else {
                throw RegistryError(.invalid, "\(quoted(file.name)) is not a file of an adapter")
            }
        }
        let sizes = files.map(\.byteCount) + [description.byteCount, description.parameterCount]
        guard sizes.allSatisfy({ (0..<1 << 50).contains($0) }) else {
            throw RegistryError(.invalid, "a version has an impossible size")
        }
    }
}

extension Row {
    /// A column's value; an error rather than a trap when a damaged database holds something else.
    func value<Value: DatabaseValueConvertible>(of column: String) throws -> Value {
        guard hasColumn(column), let value = Value.fromDatabaseValue(self[column]) else {
            throw DatabaseError(
                resultCode: .SQLITE_CORRUPT, message: "column \(column) holds a wrong value")
        }
        return value
    }
}

/// The header of SQLite's write-ahead log.
///
/// SQLite takes a log with a broken header for an empty one, and so forgets what it held. Lorry
/// refuses it, as that would lose acknowledged changes. A crash cannot cause it: the header is
/// synced before any frame is written, and 32 bytes are never torn.
///
/// ```
/// 0 magic 4 | 4 version 4 | 8 page size 4 | 12 sequence 4 | 16 salts 8 | 24 checksum 8, big-endian
/// ```
/// Source: https://sqlite.org/fileformat2.html#walformat
enum WriteAheadLog {
    private static let headerByteCount = 32

    static func check(_ path: String, database: String) throws {
        guard let handle = FileHandle(forReadingAtPath: path) else { return }
        defer { try? handle.close() }
        let header = [UInt8](try handle.read(upToCount: headerByteCount) ?? Data())
        // Zeros are a header that the disk had not got yet, when nothing was committed either.
        guard header.count == headerByteCount, header.contains(where: { $0 != 0 }) else { return }
        guard isValid(header) else {
            throw RegistryError(
                .damaged,
                "the log \(path) of the registry database is damaged, and with it its last changes; "
                    + "put back a backup of the state directory, or remove the log and lose them")
        }
    }

    private static func isValid(_ header: [UInt8]) -> Bool {
        func word(_ index: Int, bigEndian: Bool) -> UInt32 {
            let bytes = header[index * 4..<index * 4 + 4]
            let ordered = bigEndian ? Array(bytes) : bytes.reversed()
            return ordered.reduce(0) { $0 << 8 | UInt32($1) }
        }
        let magic = word(0, bigEndian: true)
        guard magic & ~1 == 0x377F_0682 else { return false }
        var sums: (UInt32, UInt32) = (0, 0)
        for index in stride(from: 0, to: 6, by: 2) {
            // The magic's last bit says in which order the words are summed.
            sums.0 &+= word(index, bigEndian: magic & 1 == 1) &+ sums.1
            sums.1 &+= word(index + 1, bigEndian: magic & 1 == 1) &+ sums.0
        }
        return sums == (word(6, bigEndian: true), word(7, bigEndian: true))
    }
}
