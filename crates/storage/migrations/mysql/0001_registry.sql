-- The registry: mailboxes, contracts, steps, their links, secrets, switches, health, audit.
--
-- In every table: times are milliseconds since 1970-01-01T00:00:00Z; text is UTF-8 and compared byte by byte, also the blanks at
-- its end (utf8mb4_nopad_bin); ids without a number are the 16 bytes of a UUID; JSON is text; a word is one of those that the manual lists
-- for its column. A statement ends with a semicolon at the end of its line, and may run twice.

-- The last number that was given, for numbers that are never given again.
CREATE TABLE IF NOT EXISTS postroom_sequence (
    name VARCHAR(50) NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

INSERT INTO postroom_sequence (name, last) VALUES ('mailbox', 0), ('event', 0) ON DUPLICATE KEY UPDATE last = last;

-- Rows that are there to be locked: the places of each scope. What is locked by a name of its own, say a contract, has the place that
-- its hash says.
CREATE TABLE IF NOT EXISTS postroom_lock (
    -- registry | health | switch | limits | budget | intake | handlers | bells | events
    scope VARCHAR(20) NOT NULL,
    place BIGINT NOT NULL,
    PRIMARY KEY (scope, place)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

INSERT INTO postroom_lock (scope, place)
    WITH RECURSIVE places (place) AS (SELECT 0 UNION ALL SELECT place + 1 FROM places WHERE place < 255)
    SELECT s.scope, p.place FROM places p JOIN (
        SELECT 'registry' AS scope, 1 AS places UNION ALL SELECT 'handlers', 1 UNION ALL SELECT 'bells', 1 UNION ALL
        SELECT 'health', 256 UNION ALL SELECT 'switch', 256 UNION ALL SELECT 'limits', 256 UNION ALL
        SELECT 'budget', 256 UNION ALL SELECT 'intake', 256) s ON p.place < s.places
    ON DUPLICATE KEY UPDATE place = p.place;

CREATE TABLE IF NOT EXISTS postroom_mailbox (
    -- Given by postroom_sequence, never again after a removal.
    id BIGINT NOT NULL PRIMARY KEY,
    -- inbox | outbox
    kind VARCHAR(10) NOT NULL,
    -- draft | active | disabled
    status VARCHAR(10) NOT NULL,
    -- Copies of settings.server and settings.description, to search and sort by.
    server VARCHAR(255) NOT NULL,
    description VARCHAR(255) NOT NULL,
    -- A copy of settings.companion of an outbox.
    companion BIGINT,
    -- Grows with each save.
    revision BIGINT NOT NULL,
    changed_by VARCHAR(255) NOT NULL,
    changed_at BIGINT NOT NULL,
    -- JSON: the form of the mailbox, without secrets.
    settings LONGTEXT NOT NULL,
    -- They hold all that a search filters and sorts by: settings are read for the rows of the page only.
    KEY postroom_mailbox_by_server (server, id, kind, status, description),
    KEY postroom_mailbox_by_id (id, server, kind, status, description),
    KEY postroom_mailbox_companion (companion),
    CONSTRAINT postroom_mailbox_companion FOREIGN KEY (companion) REFERENCES postroom_mailbox (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Sealed secrets. A ciphertext is bound to owner and field: moved to another row it does not open.
CREATE TABLE IF NOT EXISTS postroom_secret (
    -- mailbox/7, or a name of postroom's own
    owner VARCHAR(300) NOT NULL,
    field VARCHAR(300) NOT NULL,
    sealed LONGBLOB NOT NULL,
    PRIMARY KEY (owner, field)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_contract (
    -- The host's id, 1 to 200 bytes.
    id VARCHAR(200) NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    changed_by VARCHAR(255) NOT NULL,
    changed_at BIGINT NOT NULL,
    -- Copies of settings.limits; none is no limit.
    queued_limit BIGINT,
    per_day_limit BIGINT,
    -- JSON: the contract.
    settings LONGTEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- The mailboxes that a contract names: a copy of its settings to look links up from both ends.
CREATE TABLE IF NOT EXISTS postroom_contract_mailbox (
    contract VARCHAR(200) NOT NULL,
    -- outbox | allowed | inbox
    role VARCHAR(10) NOT NULL,
    mailbox BIGINT NOT NULL,
    PRIMARY KEY (contract, role, mailbox),
    KEY postroom_contract_mailbox_mailbox (mailbox, role, contract),
    CONSTRAINT postroom_contract_mailbox_contract FOREIGN KEY (contract) REFERENCES postroom_contract (id),
    CONSTRAINT postroom_contract_mailbox_mailbox FOREIGN KEY (mailbox) REFERENCES postroom_mailbox (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_step (
    flow VARCHAR(200) NOT NULL,
    step VARCHAR(200) NOT NULL,
    revision BIGINT NOT NULL,
    changed_by VARCHAR(255) NOT NULL,
    changed_at BIGINT NOT NULL,
    -- The outbox of a step whose setup is Specific.
    outbox BIGINT,
    -- JSON: the step.
    settings LONGTEXT NOT NULL,
    PRIMARY KEY (flow, step),
    KEY postroom_step_outbox (outbox, flow, step),
    CONSTRAINT postroom_step_outbox FOREIGN KEY (outbox) REFERENCES postroom_mailbox (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- The standard outbox: the row is always there, so that it can be locked.
CREATE TABLE IF NOT EXISTS postroom_standard (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    -- Null for none.
    outbox BIGINT,
    CONSTRAINT postroom_standard_outbox FOREIGN KEY (outbox) REFERENCES postroom_mailbox (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

INSERT INTO postroom_standard (singleton, outbox) VALUES (1, NULL) ON DUPLICATE KEY UPDATE singleton = 1;

-- What is paused: a row is a pause.
CREATE TABLE IF NOT EXISTS postroom_pause (
    -- system | contract | outbox
    scope VARCHAR(10) NOT NULL,
    -- Empty, the contract's id, or the outbox's number.
    subject VARCHAR(200) NOT NULL,
    paused_by VARCHAR(255) NOT NULL,
    paused_at BIGINT NOT NULL,
    PRIMARY KEY (scope, subject)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_health (
    mailbox BIGINT NOT NULL PRIMARY KEY,
    last_success BIGINT,
    -- In a row.
    failures BIGINT NOT NULL,
    last_error LONGTEXT,
    failed_at BIGINT,
    -- Not tried before.
    next_attempt BIGINT,
    -- Not tried before a person acts.
    suspended BOOLEAN NOT NULL,
    -- The worker that tries it after a failure, until next_attempt; null for nobody.
    prober BINARY(16),
    CONSTRAINT postroom_health_mailbox FOREIGN KEY (mailbox) REFERENCES postroom_mailbox (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Append-only.
CREATE TABLE IF NOT EXISTS postroom_audit (
    number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor VARCHAR(255) NOT NULL,
    -- mailbox/7, contract/ACME, step/F/S, standard, pause/system ..
    subject VARCHAR(500) NOT NULL,
    -- add | save | remove | set
    action VARCHAR(20) NOT NULL,
    -- JSON: the changed fields with old and new values, never a secret.
    changes LONGTEXT NOT NULL,
    KEY postroom_audit_subject (subject, number)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
