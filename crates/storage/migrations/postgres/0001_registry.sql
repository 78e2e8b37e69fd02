-- The registry: mailboxes, contracts, steps, their links, secrets, switches, health, audit.
--
-- In every table: times are milliseconds since 1970-01-01T00:00:00Z; ids of the host are compared byte by byte (the
-- collation "C"); JSON is text; a word is one of those that the manual lists for its column.

-- The last number that was given, for numbers that are never given again.
CREATE TABLE postroom_sequence (
    name text COLLATE "C" NOT NULL PRIMARY KEY,
    last bigint NOT NULL
);

INSERT INTO postroom_sequence (name, last) VALUES ('mailbox', 0);

CREATE TABLE postroom_mailbox (
    -- Given by postroom_sequence, never again after a removal.
    id bigint NOT NULL PRIMARY KEY,
    -- inbox | outbox
    kind text COLLATE "C" NOT NULL,
    -- draft | active | disabled
    status text COLLATE "C" NOT NULL,
    -- Copies of settings.server and settings.description, to search and sort by.
    server text COLLATE "C" NOT NULL,
    description text COLLATE "C" NOT NULL,
    -- A copy of settings.companion of an outbox.
    companion bigint REFERENCES postroom_mailbox (id),
    -- Grows with each save.
    revision bigint NOT NULL,
    changed_by text COLLATE "C" NOT NULL,
    changed_at bigint NOT NULL,
    -- JSON: the form of the mailbox, without secrets.
    settings text COLLATE "C" NOT NULL
);

-- They hold all that a search filters and sorts by: settings are read for the rows of the page only.
CREATE INDEX postroom_mailbox_by_server ON postroom_mailbox (server, id) INCLUDE (kind, status, description);
CREATE INDEX postroom_mailbox_by_id ON postroom_mailbox (id) INCLUDE (server, kind, status, description);
CREATE INDEX postroom_mailbox_companion ON postroom_mailbox (companion) WHERE companion IS NOT NULL;

-- Sealed secrets. A ciphertext is bound to owner and field: moved to another row it does not open.
CREATE TABLE postroom_secret (
    -- mailbox/7, or a name of postroom's own
    owner text COLLATE "C" NOT NULL,
    field text COLLATE "C" NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (owner, field)
);

CREATE TABLE postroom_contract (
    -- The host's id, 1 to 200 bytes.
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    revision bigint NOT NULL,
    changed_by text COLLATE "C" NOT NULL,
    changed_at bigint NOT NULL,
    -- Copies of settings.limits; none is no limit.
    queued_limit bigint,
    per_day_limit bigint,
    -- JSON: the contract.
    settings text COLLATE "C" NOT NULL
);

-- The mailboxes that a contract names: a copy of its settings to look links up from both ends.
CREATE TABLE postroom_contract_mailbox (
    contract text COLLATE "C" NOT NULL REFERENCES postroom_contract (id),
    -- outbox | allowed | inbox
    role text COLLATE "C" NOT NULL,
    mailbox bigint NOT NULL REFERENCES postroom_mailbox (id),
    PRIMARY KEY (contract, role, mailbox)
);

CREATE INDEX postroom_contract_mailbox_mailbox ON postroom_contract_mailbox (mailbox, role, contract);

CREATE TABLE postroom_step (
    flow text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    changed_by text COLLATE "C" NOT NULL,
    changed_at bigint NOT NULL,
    -- The outbox of a step whose setup is Specific.
    outbox bigint REFERENCES postroom_mailbox (id),
    -- JSON: the step.
    settings text COLLATE "C" NOT NULL,
    PRIMARY KEY (flow, step)
);

CREATE INDEX postroom_step_outbox ON postroom_step (outbox) WHERE outbox IS NOT NULL;

-- The standard outbox: one row or none.
CREATE TABLE postroom_standard (
    singleton bigint NOT NULL PRIMARY KEY CHECK (singleton = 1),
    outbox bigint NOT NULL REFERENCES postroom_mailbox (id)
);

-- What is paused: a row is a pause.
CREATE TABLE postroom_pause (
    -- system | contract | outbox
    scope text COLLATE "C" NOT NULL,
    -- Empty, the contract's id, or the outbox's number.
    subject text COLLATE "C" NOT NULL,
    paused_by text COLLATE "C" NOT NULL,
    paused_at bigint NOT NULL,
    PRIMARY KEY (scope, subject)
);

CREATE TABLE postroom_health (
    mailbox bigint NOT NULL PRIMARY KEY REFERENCES postroom_mailbox (id),
    last_success bigint,
    -- In a row.
    failures bigint NOT NULL,
    last_error text COLLATE "C",
    failed_at bigint,
    -- Not tried before.
    next_attempt bigint,
    -- Not tried before a person acts.
    suspended boolean NOT NULL,
    -- The worker that tries it after a failure, until next_attempt; null for nobody.
    prober uuid
);

-- Append-only.
CREATE TABLE postroom_audit (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    actor text COLLATE "C" NOT NULL,
    -- mailbox/7, contract/ACME, step/F/S, standard, pause/system ..
    subject text COLLATE "C" NOT NULL,
    -- add | save | remove | set
    action text COLLATE "C" NOT NULL,
    -- JSON: the changed fields with old and new values, never a secret.
    changes text COLLATE "C" NOT NULL
);

CREATE INDEX postroom_audit_subject ON postroom_audit (subject, number);
