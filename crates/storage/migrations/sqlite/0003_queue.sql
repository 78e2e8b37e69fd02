-- The sending queue. What is frozen of a mail stands in postroom_queue_mail; what changes while it is unfinished stands in
-- the narrow postroom_queue_open, so that no index of a worker grows with the number of finished mails.

CREATE TABLE postroom_queue_mail (
    -- UUID version 7: sorts by the time of submission.
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    contract TEXT NOT NULL,
    flow TEXT,
    step TEXT,
    outbox INTEGER NOT NULL,
    -- The outbox's revision at submission: an explanation, not a condition.
    outbox_revision INTEGER NOT NULL,
    -- Name and address.
    sender TEXT NOT NULL,
    -- Null for the null path.
    return_path TEXT,
    -- JSON: why this outbox and sender.
    reasons TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- With angle brackets.
    message_id TEXT NOT NULL,
    -- 1: submitted as raw bytes.
    raw INTEGER NOT NULL,
    record TEXT,
    -- The received mail that it answers.
    in_reply_to BLOB,
    -- 0 high, 1 normal, 2 low
    priority INTEGER NOT NULL CHECK (priority IN (0, 1, 2)),
    on_doubt TEXT NOT NULL CHECK (on_doubt IN ('hold', 'resend')),
    created_at INTEGER NOT NULL,
    -- Null once retention removed the content.
    body BLOB REFERENCES postroom_body (id),
    size INTEGER NOT NULL,
    -- The state of a finished mail, the attempts that it took, and its expiry. While a mail is unfinished its state is null
    -- here and postroom_queue_open has all three.
    state TEXT,
    attempts INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- When its state became final: retention counts from here.
    finished_at INTEGER
) STRICT;

CREATE INDEX postroom_queue_mail_message_id ON postroom_queue_mail (message_id);
CREATE INDEX postroom_queue_mail_contract ON postroom_queue_mail (contract, id);
CREATE INDEX postroom_queue_mail_state ON postroom_queue_mail (state, id) WHERE state IS NOT NULL;
-- What retention looks for: contents and rows of what was sent or taken back, rows of what failed.
CREATE INDEX postroom_queue_mail_content ON postroom_queue_mail (contract, finished_at)
    WHERE body IS NOT NULL AND state IN ('accepted', 'bounced', 'cancelled');
CREATE INDEX postroom_queue_mail_done ON postroom_queue_mail (contract, finished_at)
    WHERE state IN ('accepted', 'bounced', 'cancelled');
CREATE INDEX postroom_queue_mail_failed ON postroom_queue_mail (contract, finished_at)
    WHERE state IN ('refused', 'expired', 'dead');
CREATE INDEX postroom_queue_mail_body ON postroom_queue_mail (body) WHERE body IS NOT NULL;

-- Unfinished mail: a row leaves when every recipient's state is final, and comes back with a retry.
CREATE TABLE postroom_queue_open (
    mail BLOB NOT NULL PRIMARY KEY REFERENCES postroom_queue_mail (id),
    outbox INTEGER NOT NULL,
    contract TEXT NOT NULL,
    priority INTEGER NOT NULL,
    -- The least finished state of the recipients.
    state TEXT NOT NULL,
    -- 1: its contract is paused. A copy of postroom_pause, so that no worker walks over a paused contract's backlog.
    paused INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Attempts that were spent.
    attempts INTEGER NOT NULL,
    -- The claim, who has it, and until when; all null while nobody has it.
    claim BLOB,
    worker BLOB,
    lease_until INTEGER,
    CHECK ((claim IS NULL) = (worker IS NULL) AND (claim IS NULL) = (lease_until IS NULL))
) STRICT, WITHOUT ROWID;

-- What a worker may claim, in the order of claiming within a line.
CREATE INDEX postroom_queue_open_waiting
    ON postroom_queue_open (outbox, paused, priority, contract, due_at, mail, expires_at)
    WHERE claim IS NULL AND state = 'queued';
CREATE INDEX postroom_queue_open_due ON postroom_queue_open (due_at) WHERE claim IS NULL AND state = 'queued';
CREATE INDEX postroom_queue_open_expiry ON postroom_queue_open (expires_at)
    WHERE claim IS NULL AND state IN ('queued', 'held');
CREATE INDEX postroom_queue_open_lease ON postroom_queue_open (lease_until, worker) WHERE claim IS NOT NULL;
-- What a person looks for in a backlog.
CREATE INDEX postroom_queue_open_held ON postroom_queue_open (mail) WHERE state = 'held';
CREATE INDEX postroom_queue_open_doubt ON postroom_queue_open (mail) WHERE state = 'in-doubt';
CREATE INDEX postroom_queue_open_contract ON postroom_queue_open (contract, mail);
CREATE INDEX postroom_queue_open_outbox ON postroom_queue_open (outbox);

-- One row for each line: the mail of one contract and priority at one outbox. A line that was served goes behind those that are
-- ready, so that contracts take turns whatever the depth of their backlogs. Rows stay when their mail is gone: their number is that
-- of the contracts, not of the mails.
CREATE TABLE postroom_queue_line (
    outbox INTEGER NOT NULL,
    contract TEXT NOT NULL,
    priority INTEGER NOT NULL,
    -- When its first claimable mail is due; null when no mail can be claimed.
    due_at INTEGER,
    -- When a mail of it was claimed last.
    served_at INTEGER NOT NULL DEFAULT 0,
    -- Orders the lines that were served in the same millisecond.
    turn INTEGER NOT NULL DEFAULT 0,
    -- Since when it waits; null with due_at.
    ready_at INTEGER AS (max(due_at, served_at)) STORED,
    PRIMARY KEY (outbox, contract, priority)
) STRICT, WITHOUT ROWID;

-- The lines of an outbox and priority, in the order of their turns.
CREATE INDEX postroom_queue_line_ready ON postroom_queue_line (outbox, priority, ready_at, turn, contract)
    WHERE ready_at IS NOT NULL;

-- One row for each outbox that has had mail: when its first line is ready, and whether the outbox may be tried. It
-- follows from the other tables and is kept with them in each transaction, so that finding work costs the same with ten
-- outboxes and with ten thousand.
CREATE TABLE postroom_queue_lane (
    outbox INTEGER NOT NULL PRIMARY KEY,
    -- When its first line is ready; null when no mail can be claimed.
    due_at INTEGER,
    -- Not tried before; a copy of postroom_health.next_attempt.
    retry_at INTEGER,
    -- 1: not active, paused, or suspended.
    blocked INTEGER NOT NULL,
    -- 1: it has a limit per minute or per day.
    limited INTEGER NOT NULL,
    -- The limit that it waits for, and until when; both null while it does not wait.
    spent_limit TEXT,
    spent_until INTEGER
) STRICT;

CREATE INDEX postroom_queue_lane_due ON postroom_queue_lane (blocked, due_at, retry_at) WHERE due_at IS NOT NULL;
CREATE INDEX postroom_queue_lane_spent ON postroom_queue_lane (spent_until)
    WHERE due_at IS NOT NULL AND spent_until IS NOT NULL;
CREATE INDEX postroom_queue_lane_retry ON postroom_queue_lane (retry_at) WHERE due_at IS NOT NULL AND retry_at IS NOT NULL;

CREATE TABLE postroom_queue_recipient (
    mail BLOB NOT NULL REFERENCES postroom_queue_mail (id),
    -- From 0, in the order of the mail.
    place INTEGER NOT NULL,
    address TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('to', 'cc', 'bcc')),
    state TEXT NOT NULL CHECK (state IN ('queued', 'held', 'claimed', 'crossing', 'accepted', 'bounced', 'refused', 'expired',
        'cancelled', 'dead', 'in-doubt')),
    -- While it is in doubt: the claim that left the doubt.
    doubted_by BLOB,
    PRIMARY KEY (mail, place)
) STRICT, WITHOUT ROWID;

-- What happened to mail of queue and ledger and to mailboxes, in the transaction that did it. Append-only; the timeline of a
-- mail is its events, and they leave with it.
CREATE TABLE postroom_event (
    -- Never given again, also after pruning.
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    noun TEXT NOT NULL CHECK (noun IN ('queue', 'ledger', 'mailbox')),
    -- Null when it is about a mailbox.
    mail BLOB CHECK ((noun = 'mailbox') = (mail IS NULL)),
    -- Null when it is about a mail.
    mailbox INTEGER CHECK ((noun = 'mailbox') = (mailbox IS NOT NULL)),
    -- The place in a mail of the queue; null when it concerns all.
    recipient INTEGER,
    what TEXT NOT NULL,
    -- Null when nothing changed.
    state TEXT,
    detail TEXT NOT NULL,
    -- Null when no person did it.
    actor TEXT
) STRICT;

CREATE INDEX postroom_event_mail ON postroom_event (mail, number);
CREATE INDEX postroom_event_mailbox ON postroom_event (at) WHERE mail IS NULL;

-- The hosts' idempotency keys. They leave with their mail.
CREATE TABLE postroom_queue_key (
    contract TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    mail BLOB NOT NULL,
    -- JSON: a hash of each field of the submission.
    fingerprint TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (contract, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX postroom_queue_key_mail ON postroom_queue_key (mail);

-- How many mails a contract submitted on a day (UTC).
CREATE TABLE postroom_queue_tally (
    contract TEXT NOT NULL,
    -- Days since 1970-01-01.
    day INTEGER NOT NULL,
    submitted INTEGER NOT NULL,
    PRIMARY KEY (contract, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX postroom_queue_tally_day ON postroom_queue_tally (day);
