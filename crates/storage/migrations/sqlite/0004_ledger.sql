-- The ledger of received mail. It is the cursor: a mail is accounted for when its key stands here.

-- The folders that were seen, one row for each epoch (UIDVALIDITY).
CREATE TABLE postroom_ledger_place (
    mailbox INTEGER NOT NULL,
    -- Empty for POP3.
    folder TEXT NOT NULL,
    -- 0 for POP3.
    epoch INTEGER NOT NULL,
    -- Mails up to this UID are all accounted for.
    frontier INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (mailbox, folder, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE postroom_ledger_mail (
    -- The order of storing.
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    -- UUID version 7: sorts by the time of storing.
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    mailbox INTEGER NOT NULL,
    folder TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    -- uid:7, uidl:abc, content:HEX:1
    remote_key TEXT NOT NULL,
    -- Of its bytes; null for what the baseline left out, which was never fetched and has no timeline.
    sha256 BLOB CHECK (length(sha256) = 32),
    size INTEGER NOT NULL,
    -- At its server, where that is known.
    arrived INTEGER,
    stored_at INTEGER NOT NULL,
    -- stored | triage | quarantined | handled | ignored | dead
    state TEXT NOT NULL,
    contract TEXT,
    -- JSON: why this contract or none.
    reasons TEXT NOT NULL,
    record TEXT,
    message_id TEXT,
    sender TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- Calls of the handler.
    attempts INTEGER NOT NULL,
    -- When its server is to be told what to do with it; null when there is nothing to tell.
    settle_at INTEGER,
    -- When it was told.
    settled_at INTEGER,
    -- Null once retention removed the bytes.
    body BLOB REFERENCES postroom_body (id),
    UNIQUE (mailbox, folder, epoch, remote_key)
) STRICT;

CREATE INDEX postroom_ledger_mail_content ON postroom_ledger_mail (mailbox, folder, sha256, epoch)
    WHERE sha256 IS NOT NULL;
CREATE INDEX postroom_ledger_mail_settle ON postroom_ledger_mail (mailbox, folder, epoch, settle_at)
    WHERE settle_at IS NOT NULL AND settled_at IS NULL;
CREATE INDEX postroom_ledger_mail_state ON postroom_ledger_mail (state, id);
CREATE INDEX postroom_ledger_mail_mailbox ON postroom_ledger_mail (mailbox, id);
CREATE INDEX postroom_ledger_mail_unhandled ON postroom_ledger_mail (mailbox)
    WHERE state IN ('stored', 'triage', 'quarantined');
CREATE INDEX postroom_ledger_mail_body ON postroom_ledger_mail (body) WHERE body IS NOT NULL;

-- Mail that waits for a handler: a row leaves when its state is no longer stored, and comes back with a route or replay.
CREATE TABLE postroom_ledger_open (
    -- That of the mail.
    number INTEGER NOT NULL PRIMARY KEY,
    mail BLOB NOT NULL UNIQUE REFERENCES postroom_ledger_mail (id),
    mailbox INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    -- The claim, who has it, and until when; all null while nobody has it.
    claim BLOB,
    worker BLOB,
    lease_until INTEGER,
    CHECK ((claim IS NULL) = (worker IS NULL) AND (claim IS NULL) = (lease_until IS NULL))
) STRICT;

CREATE INDEX postroom_ledger_open_order ON postroom_ledger_open (mailbox, number, due_at, lease_until);
CREATE INDEX postroom_ledger_open_due ON postroom_ledger_open (due_at) WHERE claim IS NULL;
CREATE INDEX postroom_ledger_open_lease ON postroom_ledger_open (mailbox, lease_until, worker) WHERE claim IS NOT NULL;
