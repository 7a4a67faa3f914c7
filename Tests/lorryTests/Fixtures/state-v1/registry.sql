-- A registry as the first release of Lorry wrote it.
PRAGMA application_id = 1282372217;
CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
INSERT INTO grdb_migrations VALUES ('1 names, versions, history, events');
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
INSERT INTO versions VALUES ('ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', 'LORA', 8, '["q_proj","v_proj"]', 22, 11, '[{"name":"adapter_config.json","byteCount":29,"sha256":"9cae11a6a97c085077a6de5ec48cbcdd87e9f1620578658009db688857d47131"},{"name":"adapter_model.safetensors","byteCount":11,"sha256":"0b58304e84fd78c3ce0421116fbde92ed848ccea3aee4f2ff04489e1a49157eb"}]', 1760000000000);
INSERT INTO versions VALUES ('4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', 'LORA', 8, '["q_proj","v_proj"]', 22, 11, '[{"name":"adapter_config.json","byteCount":29,"sha256":"9cae11a6a97c085077a6de5ec48cbcdd87e9f1620578658009db688857d47131"},{"name":"adapter_model.safetensors","byteCount":11,"sha256":"be983c12208a286c3252005c1e2b0f3cfffecabc40da924baa69fc8e3cb68894"}]', 1760000000000);
INSERT INTO names VALUES ('default', 'a', '4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', 0, 0);
INSERT INTO names VALUES ('default', 'b', 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', 1, 1);
INSERT INTO names VALUES ('blue', 'c', '4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', 0, 0);
INSERT INTO history VALUES ('default', 'a', 0, 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', 1760000000000);
INSERT INTO history VALUES ('default', 'a', 1, '4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', 1760000001000);
INSERT INTO history VALUES ('default', 'b', 0, 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', 1760000002000);
INSERT INTO history VALUES ('blue', 'c', 0, '4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', 1760000003000);
INSERT INTO events VALUES (1, 1760000000000, 'default', 'default', 'add', 'a', 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', '');
INSERT INTO events VALUES (2, 1760000001000, 'default', 'default', 'add', 'a', '4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', '');
INSERT INTO events VALUES (3, 1760000002000, 'default', 'default', 'add', 'b', 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', '');
INSERT INTO events VALUES (4, 1760000003000, 'blue', 'blue', 'add', 'c', '4696d157fdf4851ad0ffe5097786b3e4e700dd324a965f742fbefd0458ff23b5', '');
INSERT INTO events VALUES (5, 1760000004000, 'default', 'default', 'pin', 'b', 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', '');
INSERT INTO events VALUES (6, 1760000005000, 'default', 'default', 'disable', 'b', 'ac4f7c6a75b20f540272dc1d537a183114e013c6c367628f82e9bc149bfafeaa', '');
