-- The registry: mailboxes, contracts, steps, their links, secrets, switches, health, audit.
--
-- In every table: times are milliseconds since 1970-01-01T00:00:00Z; ids of the host are compared byte by byte (the
-- BINARY collation, SQLite's default); JSON is text; a word is one of those that the manual lists for its column.

-- The last number that was given, for numbers that are never given again.
CREATE TABLE postroom_sequence (
    name TEXT NOT NULL PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO postroom_sequence (name, last) VALUES ('mailbox', 0);

CREATE TABLE postroom_mailbox (
    -- Given by postroom_sequence, never again after a removal.
    id INTEGER NOT NULL PRIMARY KEY,
    -- inbox | outbox
    kind TEXT NOT NULL,
    -- draft | active | disabled
    status TEXT NOT NULL,
    -- Copies of settings.server and settings.description, to search and sort by.
    server TEXT NOT NULL,
    description TEXT NOT NULL,
    -- A copy of settings.companion of an outbox.
    companion INTEGER REFERENCES postroom_mailbox (id),
    -- Grows with each save.
    revision INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    -- JSON: the form of the mailbox, without secrets.
    settings TEXT NOT NULL
) STRICT;

-- They hold all that a search filters and sorts by: settings are read for the rows of the page only.
CREATE INDEX postroom_mailbox_by_server ON postroom_mailbox (server, id, kind, status, description);
CREATE INDEX postroom_mailbox_by_id ON postroom_mailbox (id, server, kind, status, description);
CREATE INDEX postroom_mailbox_companion ON postroom_mailbox (companion) WHERE companion IS NOT NULL;

-- Sealed secrets. A ciphertext is bound to owner and field: moved to another row it does not open.
CREATE TABLE postroom_secret (
    -- mailbox/7, or a name of postroom's own
    owner TEXT NOT NULL,
    field TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (owner, field)
) STRICT, WITHOUT ROWID;

CREATE TABLE postroom_contract (
    -- The host's id, 1 to 200 bytes.
    id TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    -- Copies of settings.limits; none is no limit.
    queued_limit INTEGER,
    per_day_limit INTEGER,
    -- JSON: the contract.
    settings TEXT NOT NULL
) STRICT;

-- The mailboxes that a contract names: a copy of its settings to look links up from both ends.
CREATE TABLE postroom_contract_mailbox (
    contract TEXT NOT NULL REFERENCES postroom_contract (id),
    -- outbox | allowed | inbox
    role TEXT NOT NULL,
    mailbox INTEGER NOT NULL REFERENCES postroom_mailbox (id),
    PRIMARY KEY (contract, role, mailbox)
) STRICT, WITHOUT ROWID;

CREATE INDEX postroom_contract_mailbox_mailbox ON postroom_contract_mailbox (mailbox, role, contract);

CREATE TABLE postroom_step (
    flow TEXT NOT NULL,
    step TEXT NOT NULL,
    revision INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    -- The outbox of a step whose setup is Specific.
    outbox INTEGER REFERENCES postroom_mailbox (id),
    -- JSON: the step.
    settings TEXT NOT NULL,
    PRIMARY KEY (flow, step)
) STRICT;

CREATE INDEX postroom_step_outbox ON postroom_step (outbox) WHERE outbox IS NOT NULL;

-- The standard outbox: one row or none.
CREATE TABLE postroom_standard (
    singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    outbox INTEGER NOT NULL REFERENCES postroom_mailbox (id)
) STRICT;

-- What is paused: a row is a pause.
CREATE TABLE postroom_pause (
    -- system | contract | outbox
    scope TEXT NOT NULL,
    -- Empty, the contract's id, or the outbox's number.
    subject TEXT NOT NULL,
    paused_by TEXT NOT NULL,
    paused_at INTEGER NOT NULL,
    PRIMARY KEY (scope, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE postroom_health (
    mailbox INTEGER NOT NULL PRIMARY KEY REFERENCES postroom_mailbox (id),
    last_success INTEGER,
    -- In a row.
    failures INTEGER NOT NULL,
    last_error TEXT,
    failed_at INTEGER,
    -- Not tried before.
    next_attempt INTEGER,
    -- 1: not tried before a person acts.
    suspended INTEGER NOT NULL,
    -- The worker that tries it after a failure, until next_attempt; null for nobody.
    prober BLOB
) STRICT;

-- Append-only.
CREATE TABLE postroom_audit (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    -- mailbox/7, contract/ACME, step/F/S, standard, pause/system ..
    subject TEXT NOT NULL,
    -- add | save | remove | set
    action TEXT NOT NULL,
    -- JSON: the changed fields with old and new values, never a secret.
    changes TEXT NOT NULL
) STRICT;

CREATE INDEX postroom_audit_subject ON postroom_audit (subject, number);
