-- The sending queue. What is frozen of a mail stands in postroom_queue_mail; what changes while it is unfinished stands in
-- the narrow postroom_queue_open, so that no index of a worker grows with the number of finished mails.

CREATE TABLE IF NOT EXISTS postroom_queue_mail (
    -- UUID version 7: sorts by the time of submission.
    id BINARY(16) NOT NULL PRIMARY KEY,
    contract VARCHAR(200) NOT NULL,
    flow VARCHAR(200),
    step VARCHAR(200),
    outbox BIGINT NOT NULL,
    -- The outbox's revision at submission: an explanation, not a condition.
    outbox_revision BIGINT NOT NULL,
    -- Name and address.
    sender TEXT NOT NULL,
    -- Null for the null path.
    return_path TEXT,
    -- JSON: why this outbox and sender.
    reasons TEXT NOT NULL,
    subject MEDIUMTEXT NOT NULL,
    -- With angle brackets.
    message_id VARCHAR(2000) NOT NULL,
    -- Submitted as raw bytes.
    raw BOOLEAN NOT NULL,
    record VARCHAR(200),
    -- The received mail that it answers.
    in_reply_to BINARY(16),
    -- 0 high, 1 normal, 2 low
    priority BIGINT NOT NULL CHECK (priority IN (0, 1, 2)),
    on_doubt VARCHAR(10) NOT NULL CHECK (on_doubt IN ('hold', 'resend')),
    created_at BIGINT NOT NULL,
    -- Null once retention removed the content.
    body BINARY(16),
    size BIGINT NOT NULL,
    -- The state of a finished mail, the attempts that it took, and its expiry. While a mail is unfinished its state is null
    -- here and postroom_queue_open has all three.
    state VARCHAR(10),
    attempts BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- When its state became final: retention counts from here.
    finished_at BIGINT,
    -- What retention looks for, each null in all other rows: contents and rows of what was sent or taken back, rows of what failed.
    content_of VARCHAR(200)
        AS (CASE WHEN body IS NOT NULL AND state IN ('accepted', 'bounced', 'cancelled') THEN contract END) STORED,
    done_of VARCHAR(200) AS (CASE WHEN state IN ('accepted', 'bounced', 'cancelled') THEN contract END) STORED,
    failed_of VARCHAR(200) AS (CASE WHEN state IN ('refused', 'expired', 'dead') THEN contract END) STORED,
    KEY postroom_queue_mail_message_id (message_id(250)),
    KEY postroom_queue_mail_contract (contract, id),
    KEY postroom_queue_mail_state (state, id),
    KEY postroom_queue_mail_content (content_of, finished_at),
    KEY postroom_queue_mail_done (done_of, finished_at),
    KEY postroom_queue_mail_failed (failed_of, finished_at),
    KEY postroom_queue_mail_body (body),
    CONSTRAINT postroom_queue_mail_body FOREIGN KEY (body) REFERENCES postroom_body (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Unfinished mail: a row leaves when every recipient's state is final, and comes back with a retry.
CREATE TABLE IF NOT EXISTS postroom_queue_open (
    mail BINARY(16) NOT NULL PRIMARY KEY,
    outbox BIGINT NOT NULL,
    contract VARCHAR(200) NOT NULL,
    priority BIGINT NOT NULL,
    -- The least finished state of the recipients.
    state VARCHAR(10) NOT NULL,
    -- Its contract is paused. A copy of postroom_pause, so that no worker walks over a paused contract's backlog.
    paused BOOLEAN NOT NULL,
    due_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- Attempts that were spent.
    attempts BIGINT NOT NULL,
    -- The claim, who has it, and until when; all null while nobody has it.
    claim BINARY(16),
    worker BINARY(16),
    lease_until BIGINT,
    -- When a worker may claim it; null while none may.
    waiting_at BIGINT AS (CASE WHEN claim IS NULL AND state = 'queued' AND NOT paused THEN due_at END) STORED,
    -- When it comes to be due, whether its contract is paused or not; null while it does not wait.
    queued_at BIGINT AS (CASE WHEN claim IS NULL AND state = 'queued' THEN due_at END) STORED,
    -- When it expires; null while it can't.
    expiring_at BIGINT AS (CASE WHEN claim IS NULL AND state IN ('queued', 'held') THEN expires_at END) STORED,
    -- What a worker may claim, in the order of claiming within a line.
    KEY postroom_queue_open_waiting (outbox, priority, contract, waiting_at, mail, expires_at),
    KEY postroom_queue_open_due (queued_at),
    KEY postroom_queue_open_expiry (expiring_at),
    KEY postroom_queue_open_lease (lease_until, worker),
    -- What a person looks for in a backlog.
    KEY postroom_queue_open_state (state, mail),
    KEY postroom_queue_open_contract (contract, mail),
    CONSTRAINT postroom_queue_open_mail FOREIGN KEY (mail) REFERENCES postroom_queue_mail (id),
    CHECK ((claim IS NULL) = (worker IS NULL) AND (claim IS NULL) = (lease_until IS NULL))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- One row for each line: the mail of one contract and priority at one outbox. A line that was served goes behind those that are
-- ready, so that contracts take turns whatever the depth of their backlogs. Rows stay when their mail is gone: their number is that
-- of the contracts, not of the mails. It follows from the other tables, as a lane does.
CREATE TABLE IF NOT EXISTS postroom_queue_line (
    outbox BIGINT NOT NULL,
    contract VARCHAR(200) NOT NULL,
    priority BIGINT NOT NULL,
    -- When its first claimable mail is due; null when no mail can be claimed.
    due_at BIGINT,
    -- When a mail of it was claimed last.
    served_at BIGINT NOT NULL,
    -- Orders the lines that were served in the same millisecond: the number of the bell that told of it.
    turn BIGINT NOT NULL,
    -- Since when it waits; null with due_at.
    ready_at BIGINT AS (CASE WHEN due_at IS NOT NULL THEN GREATEST(due_at, served_at) END) STORED,
    PRIMARY KEY (outbox, contract, priority),
    -- The lines of an outbox and priority, in the order of their turns.
    KEY postroom_queue_line_ready (outbox, priority, ready_at, turn, contract)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- One row for each outbox that has had mail: when its first line is ready, and whether the outbox may be tried, so
-- that finding work costs the same with ten outboxes and with ten thousand. It follows from the other tables as they were
-- when the last row of postroom_queue_bell about the outbox was taken away.
CREATE TABLE IF NOT EXISTS postroom_queue_lane (
    outbox BIGINT NOT NULL PRIMARY KEY,
    -- When its first line is ready; null when no mail can be claimed.
    due_at BIGINT,
    -- Not tried before; a copy of postroom_health.next_attempt.
    retry_at BIGINT,
    -- Not active, paused, or suspended.
    blocked BOOLEAN NOT NULL,
    -- It has a limit per minute or per day.
    limited BOOLEAN NOT NULL,
    -- The limit that it waits for, and until when; both null while it does not wait. Written by claims.
    spent_limit VARCHAR(50),
    spent_until BIGINT,
    -- Null while it is blocked.
    open_at BIGINT AS (CASE WHEN NOT blocked THEN due_at END) STORED,
    -- Null while it has no mail.
    spent_at BIGINT AS (CASE WHEN due_at IS NOT NULL THEN spent_until END) STORED,
    tried_at BIGINT AS (CASE WHEN due_at IS NOT NULL THEN retry_at END) STORED,
    KEY postroom_queue_lane_due (open_at, outbox),
    KEY postroom_queue_lane_spent (spent_at),
    KEY postroom_queue_lane_retry (tried_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- Whoever changes what lines and lanes follow from adds a row here in the same transaction; whoever looks for work takes the rows
-- away and brings their lines and lanes up to date. Rows are only added, so no transaction, however long, waits for another here, and one
-- that is not yet committed is not forgotten by those who do not see it. A host that writes mail by itself adds a row, too.
CREATE TABLE IF NOT EXISTS postroom_queue_bell (
    number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    outbox BIGINT NOT NULL,
    -- The line; null when it concerns the whole outbox.
    contract VARCHAR(200),
    priority BIGINT,
    -- When mail was submitted to the line.
    submitted_at BIGINT,
    -- When mail was claimed from the line.
    served_at BIGINT,
    CHECK ((contract IS NULL) = (priority IS NULL))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_queue_recipient (
    mail BINARY(16) NOT NULL,
    -- From 0, in the order of the mail.
    place BIGINT NOT NULL,
    address TEXT NOT NULL,
    role VARCHAR(5) NOT NULL CHECK (role IN ('to', 'cc', 'bcc')),
    state VARCHAR(10) NOT NULL CHECK (state IN ('queued', 'held', 'claimed', 'crossing', 'accepted', 'bounced',
        'refused', 'expired', 'cancelled', 'dead', 'in-doubt')),
    -- While it is in doubt: the claim that left the doubt.
    doubted_by BINARY(16),
    PRIMARY KEY (mail, place),
    CONSTRAINT postroom_queue_recipient_mail FOREIGN KEY (mail) REFERENCES postroom_queue_mail (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- What happened to mail of queue and ledger and to mailboxes, in the transaction that did it. Append-only; the timeline of a
-- mail is its events, and they leave with it.
CREATE TABLE IF NOT EXISTS postroom_event (
    -- The order of writing. It is drawn before the commit, so it is not the order in which events are read.
    place BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    -- The order of reading: given by whoever reads first, after the commit, and never again. Null until then.
    number BIGINT,
    at BIGINT NOT NULL,
    noun VARCHAR(10) NOT NULL CHECK (noun IN ('queue', 'ledger', 'mailbox')),
    -- Null when it is about a mailbox.
    mail BINARY(16) CHECK ((noun = 'mailbox') = (mail IS NULL)),
    -- Null when it is about a mail.
    mailbox BIGINT CHECK ((noun = 'mailbox') = (mailbox IS NOT NULL)),
    -- The place in a mail of the queue; null when it concerns all.
    recipient BIGINT,
    what VARCHAR(50) NOT NULL,
    -- Null when nothing changed.
    state VARCHAR(20),
    detail LONGTEXT NOT NULL,
    -- Null when no person did it.
    actor VARCHAR(255),
    -- Null when it is about a mail.
    mailbox_at BIGINT AS (CASE WHEN mail IS NULL THEN at END) STORED,
    KEY postroom_event_number (number, place),
    KEY postroom_event_mail (mail, place),
    KEY postroom_event_mailbox (mailbox_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- The hosts' idempotency keys. They leave with their mail.
CREATE TABLE IF NOT EXISTS postroom_queue_key (
    contract VARCHAR(200) NOT NULL,
    idempotency_key VARCHAR(200) NOT NULL,
    mail BINARY(16) NOT NULL,
    -- JSON: a hash of each field of the submission.
    fingerprint MEDIUMTEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (contract, idempotency_key),
    KEY postroom_queue_key_mail (mail)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- How many mails a contract submitted on a day (UTC): the sum of its rows. There are several for a day, so that transactions
-- of one contract that are open at the same time do not wait for each other.
CREATE TABLE IF NOT EXISTS postroom_queue_tally (
    contract VARCHAR(200) NOT NULL,
    -- Days since 1970-01-01.
    day BIGINT NOT NULL,
    -- That of the connection which counts.
    slot BIGINT NOT NULL,
    submitted BIGINT NOT NULL,
    PRIMARY KEY (contract, day, slot),
    KEY postroom_queue_tally_day (day)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
