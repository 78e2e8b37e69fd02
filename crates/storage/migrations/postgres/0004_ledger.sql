-- The ledger of received mail. It is the cursor: a mail is accounted for when its key stands here.

-- The folders that were seen, one row for each epoch (UIDVALIDITY).
CREATE TABLE postroom_ledger_place (
    mailbox bigint NOT NULL,
    -- Empty for POP3.
    folder text COLLATE "C" NOT NULL,
    -- 0 for POP3.
    epoch bigint NOT NULL,
    -- Mails up to this UID are all accounted for.
    frontier bigint NOT NULL,
    seen_at bigint NOT NULL,
    PRIMARY KEY (mailbox, folder, epoch)
);

CREATE TABLE postroom_ledger_mail (
    -- The order of storing.
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- UUID version 7: sorts by the time of storing.
    id uuid NOT NULL UNIQUE,
    mailbox bigint NOT NULL,
    folder text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    -- uid:7, uidl:abc, content:HEX:1
    remote_key text COLLATE "C" NOT NULL,
    -- Of its bytes; null for what the baseline left out, which was never fetched and has no timeline.
    sha256 bytea CHECK (length(sha256) = 32),
    size bigint NOT NULL,
    -- At its server, where that is known.
    arrived bigint,
    stored_at bigint NOT NULL,
    -- stored | triage | quarantined | handled | ignored | dead
    state text COLLATE "C" NOT NULL,
    contract text COLLATE "C",
    -- JSON: why this contract or none.
    reasons text COLLATE "C" NOT NULL,
    record text COLLATE "C",
    message_id text COLLATE "C",
    sender text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    -- Calls of the handler.
    attempts bigint NOT NULL,
    -- When its server is to be told what to do with it; null when there is nothing to tell.
    settle_at bigint,
    -- When it was told.
    settled_at bigint,
    -- Null once retention removed the bytes.
    body uuid REFERENCES postroom_body (id),
    UNIQUE (mailbox, folder, epoch, remote_key)
);

CREATE INDEX postroom_ledger_mail_content ON postroom_ledger_mail (mailbox, folder, sha256, number)
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
    number bigint NOT NULL PRIMARY KEY,
    mail uuid NOT NULL UNIQUE REFERENCES postroom_ledger_mail (id),
    mailbox bigint NOT NULL,
    due_at bigint NOT NULL,
    -- The claim, who has it, and until when; all null while nobody has it.
    claim uuid,
    worker uuid,
    lease_until bigint,
    CHECK ((claim IS NULL) = (worker IS NULL) AND (claim IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 70);

CREATE INDEX postroom_ledger_open_order ON postroom_ledger_open (mailbox, number, due_at, lease_until);
CREATE INDEX postroom_ledger_open_due ON postroom_ledger_open (due_at) WHERE claim IS NULL;
CREATE INDEX postroom_ledger_open_lease ON postroom_ledger_open (mailbox, lease_until, worker) WHERE claim IS NOT NULL;
