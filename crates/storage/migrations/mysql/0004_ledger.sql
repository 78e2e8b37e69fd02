-- The ledger of received mail. It is the cursor: a mail is accounted for when its key stands here. Folders and keys of servers are
-- bytes: as text they would be too long for an index.

-- The folders that were seen, one row for each epoch (UIDVALIDITY).
CREATE TABLE IF NOT EXISTS postroom_ledger_place (
    mailbox BIGINT NOT NULL,
    -- UTF-8; empty for POP3.
    folder VARBINARY(1000) NOT NULL,
    -- 0 for POP3.
    epoch BIGINT NOT NULL,
    -- Mails up to this UID are all accounted for.
    frontier BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (mailbox, folder, epoch)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_ledger_mail (
    -- The order of storing.
    number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    -- UUID version 7: sorts by the time of storing.
    id BINARY(16) NOT NULL,
    mailbox BIGINT NOT NULL,
    folder VARBINARY(1000) NOT NULL,
    epoch BIGINT NOT NULL,
    -- UTF-8: uid:7, uidl:abc, content:HEX:1
    remote_key VARBINARY(1100) NOT NULL,
    -- Of its bytes; null for what the baseline left out, which was never fetched and has no timeline.
    sha256 BINARY(32),
    size BIGINT NOT NULL,
    -- At its server, where that is known.
    arrived BIGINT,
    stored_at BIGINT NOT NULL,
    -- stored | triage | quarantined | handled | ignored | dead
    state VARCHAR(20) NOT NULL,
    contract VARCHAR(200),
    -- JSON: why this contract or none.
    reasons MEDIUMTEXT NOT NULL,
    record VARCHAR(200),
    message_id MEDIUMTEXT,
    sender MEDIUMTEXT NOT NULL,
    subject MEDIUMTEXT NOT NULL,
    -- Calls of the handler.
    attempts BIGINT NOT NULL,
    -- When its server is to be told what to do with it; null when there is nothing to tell.
    settle_at BIGINT,
    -- When it was told.
    settled_at BIGINT,
    -- Null once retention removed the bytes.
    body BINARY(16),
    -- When its server is to be told; null once it was.
    telling_at BIGINT AS (CASE WHEN settled_at IS NULL THEN settle_at END) STORED,
    UNIQUE KEY postroom_ledger_mail_id (id),
    UNIQUE KEY postroom_ledger_mail_key (mailbox, folder, epoch, remote_key),
    KEY postroom_ledger_mail_content (mailbox, folder, sha256, number),
    KEY postroom_ledger_mail_telling (mailbox, folder, epoch, telling_at),
    KEY postroom_ledger_mail_state (state, id),
    KEY postroom_ledger_mail_mailbox (mailbox, id),
    KEY postroom_ledger_mail_unhandled (mailbox, state, id),
    KEY postroom_ledger_mail_body (body),
    CONSTRAINT postroom_ledger_mail_body FOREIGN KEY (body) REFERENCES postroom_body (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Mail that waits for a handler: a row leaves when its state is no longer stored, and comes back with a route or replay.
CREATE TABLE IF NOT EXISTS postroom_ledger_open (
    -- That of the mail.
    number BIGINT NOT NULL PRIMARY KEY,
    mail BINARY(16) NOT NULL,
    mailbox BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    -- The claim, who has it, and until when; all null while nobody has it.
    claim BINARY(16),
    worker BINARY(16),
    lease_until BIGINT,
    -- Null while somebody has it.
    waiting_at BIGINT AS (CASE WHEN claim IS NULL THEN due_at END) STORED,
    UNIQUE KEY postroom_ledger_open_mail (mail),
    KEY postroom_ledger_open_order (mailbox, number, due_at, lease_until),
    KEY postroom_ledger_open_due (waiting_at),
    KEY postroom_ledger_open_lease (mailbox, lease_until, worker),
    KEY postroom_ledger_open_leases (lease_until, worker),
    CONSTRAINT postroom_ledger_open_mail FOREIGN KEY (mail) REFERENCES postroom_ledger_mail (id),
    CHECK ((claim IS NULL) = (worker IS NULL) AND (claim IS NULL) = (lease_until IS NULL))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
