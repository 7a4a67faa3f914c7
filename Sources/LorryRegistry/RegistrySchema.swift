import GRDB

/// The schema as a chain of migrations; a released one never changes.
enum RegistrySchema {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1 names, versions, history, events") { db in
            try db.execute(sql: first)
            try db.execute(sql: "PRAGMA application_id = \(RegistryDatabase.applicationID)")
        }
        migrator.registerMigration("2 traits of versions") { db in
            try db.execute(
                sql: "ALTER TABLE versions ADD COLUMN traits TEXT NOT NULL DEFAULT '{}'")
        }
        migrator.registerMigration("3 aliases") { db in
            try db.execute(sql: third)
        }
        migrator.registerMigration("4 usage") { db in try db.execute(sql: usage) }
        return migrator
    }

    /// Times are milliseconds since 1970. `history.position` rises in the order in which versions
    /// were last put into service; the last one is `names.version`.
    private static let first = """
        CREATE TABLE versions (
            digest TEXT PRIMARY KEY CHECK (length(digest) = 64),
            method TEXT NOT NULL,
            rank INTEGER NOT NULL,
            targets TEXT NOT NULL,
            byteCount INTEGER NOT NULL,
            parameterCount INTEGER NOT NULL,
            files TEXT NOT NULL,
            created INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE names (
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            version TEXT NOT NULL REFERENCES versions (digest),
            disabled INTEGER NOT NULL,
            pinned INTEGER NOT NULL,
            PRIMARY KEY (tenant, name)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE history (
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            position INTEGER NOT NULL,
            version TEXT NOT NULL REFERENCES versions (digest),
            created INTEGER NOT NULL,
            PRIMARY KEY (tenant, name, position),
            UNIQUE (tenant, name, version),
            FOREIGN KEY (tenant, name) REFERENCES names (tenant, name)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX historyByVersion ON history (version);
        CREATE INDEX namesByVersion ON names (version);
        CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            time INTEGER NOT NULL,
            actor TEXT NOT NULL,
            tenant TEXT NOT NULL,
            action TEXT NOT NULL,
            name TEXT NOT NULL,
            version TEXT,
            detail TEXT NOT NULL
        ) STRICT;
        CREATE TRIGGER eventsAreNotChanged BEFORE UPDATE ON events
            BEGIN SELECT RAISE (ABORT, 'the audit log is append-only'); END;
        CREATE TRIGGER eventsAreNotRemoved BEFORE DELETE ON events
            BEGIN SELECT RAISE (ABORT, 'the audit log is append-only'); END;
        """

    /// An alias without a version follows its adapter's current one.
    private static let third = """
        CREATE TABLE aliases (
            tenant TEXT NOT NULL,
            alias TEXT NOT NULL,
            name TEXT NOT NULL,
            version TEXT REFERENCES versions (digest),
            created INTEGER NOT NULL,
            PRIMARY KEY (tenant, alias),
            FOREIGN KEY (tenant, name) REFERENCES names (tenant, name)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX aliasesByName ON aliases (tenant, name);
        CREATE INDEX aliasesByVersion ON aliases (version);
        """

    /// `day` is a day of UTC as `2026-11-21`; `adapter` is empty for the base model.
    private static let usage = """
        CREATE TABLE usage (
            day TEXT NOT NULL,
            tenant TEXT NOT NULL,
            keyID TEXT NOT NULL,
            adapter TEXT NOT NULL,
            requests INTEGER NOT NULL,
            promptTokens INTEGER NOT NULL,
            completionTokens INTEGER NOT NULL,
            cachedTokens INTEGER NOT NULL,
            PRIMARY KEY (day, tenant, keyID, adapter)
        ) STRICT, WITHOUT ROWID;
        """
}
