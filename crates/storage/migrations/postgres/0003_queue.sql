-- The sending queue. What is frozen of a mail stands in postroom_queue_mail; what changes while it is unfinished stands in
-- the narrow postroom_queue_open, so that no index of a worker grows with the number of finished mails.
--
-- What a mail consists of is written by one statement, and removed by one transaction that has locked postroom_queue_mail. Foreign
-- keys between its rows would find nothing that these do not rule out, and are a query and a lock for each row: a fifth of the time
-- that the server spends on a mail.

CREATE TABLE postroom_queue_mail (
    -- UUID version 7: sorts by the time of submission.
    id uuid NOT NULL PRIMARY KEY,
    contract text COLLATE "C" NOT NULL,
    flow text COLLATE "C",
    step text COLLATE "C",
    outbox bigint NOT NULL,
    -- The outbox's revision at submission: an explanation, not a condition.
    outbox_revision bigint NOT NULL,
    -- Name and address.
    sender text COLLATE "C" NOT NULL,
    -- Null for the null path.
    return_path text COLLATE "C",
    -- JSON: why this outbox and sender.
    reasons text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    -- With angle brackets.
    message_id text COLLATE "C" NOT NULL,
    -- Submitted as raw bytes.
    raw boolean NOT NULL,
    record text COLLATE "C",
    -- The received mail that it answers.
    in_reply_to uuid,
    -- 0 high, 1 normal, 2 low
    priority bigint NOT NULL CHECK (priority IN (0, 1, 2)),
    on_doubt text COLLATE "C" NOT NULL CHECK (on_doubt IN ('hold', 'resend')),
    created_at bigint NOT NULL,
    -- A postroom_body; null once retention removed the content.
    body uuid,
    size bigint NOT NULL,
    -- The state of a finished mail, the attempts that it took, and its expiry. While a mail is unfinished its state is null
    -- here and postroom_queue_open has all three.
    state text COLLATE "C",
    attempts bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- When its state became final: retention counts from here.
    finished_at bigint
);

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
    mail uuid NOT NULL PRIMARY KEY,
    outbox bigint NOT NULL,
    contract text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    -- The least finished state of the recipients.
    state text COLLATE "C" NOT NULL,
    -- Its contract is paused. A copy of postroom_pause, so that no worker walks over a paused contract's backlog.
    paused boolean NOT NULL,
    due_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- Attempts that were spent.
    attempts bigint NOT NULL,
    -- The claim, who has it, and until when; all null while nobody has it.
    claim uuid,
    worker uuid,
    lease_until bigint,
    CHECK ((claim IS NULL) = (worker IS NULL) AND (claim IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- What a worker may claim, in the order of claiming within a line.
CREATE INDEX postroom_queue_open_waiting ON postroom_queue_open (outbox, priority, contract, due_at, mail, expires_at)
    WHERE claim IS NULL AND state = 'queued' AND NOT paused;
-- Only who looks for the next time says that it is greater than 0: nobody else is to walk over the mail of all outboxes here.
CREATE INDEX postroom_queue_open_due ON postroom_queue_open (due_at)
    WHERE claim IS NULL AND state = 'queued' AND due_at > 0;
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
-- of the contracts, not of the mails. It follows from the other tables, as a lane does.
CREATE TABLE postroom_queue_line (
    outbox bigint NOT NULL,
    contract text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    -- When its first claimable mail is due; null when no mail can be claimed.
    due_at bigint,
    -- When a mail of it was claimed last.
    served_at bigint NOT NULL,
    -- Orders the lines that were served in the same millisecond: the number of the bell that told of it.
    turn bigint NOT NULL,
    -- Since when it waits; null with due_at.
    ready_at bigint GENERATED ALWAYS AS (CASE WHEN due_at IS NOT NULL THEN greatest(due_at, served_at) END) STORED,
    PRIMARY KEY (outbox, contract, priority)
) WITH (fillfactor = 50);

-- The lines of an outbox and priority, in the order of their turns.
CREATE INDEX postroom_queue_line_ready ON postroom_queue_line (outbox, priority, ready_at, turn, contract)
    WHERE ready_at IS NOT NULL;

-- One row for each outbox that has had mail: when its first line is ready, and whether the outbox may be tried, so
-- that finding work costs the same with ten outboxes and with ten thousand. It follows from the other tables as they were
-- when the last row of postroom_queue_bell about the outbox was taken away.
CREATE TABLE postroom_queue_lane (
    outbox bigint NOT NULL PRIMARY KEY,
    -- When its first line is ready; null when no mail can be claimed.
    due_at bigint,
    -- Not tried before; a copy of postroom_health.next_attempt.
    retry_at bigint,
    -- Not active, paused, or suspended.
    blocked boolean NOT NULL,
    -- It has a limit per minute or per day.
    limited boolean NOT NULL,
    -- The limit that it waits for, and until when; both null while it does not wait. Written by claims.
    spent_limit text COLLATE "C",
    spent_until bigint
) WITH (fillfactor = 50);

CREATE INDEX postroom_queue_lane_due ON postroom_queue_lane (due_at, outbox) WHERE due_at IS NOT NULL AND NOT blocked;
CREATE INDEX postroom_queue_lane_spent ON postroom_queue_lane (spent_until)
    WHERE due_at IS NOT NULL AND spent_until IS NOT NULL;
CREATE INDEX postroom_queue_lane_retry ON postroom_queue_lane (retry_at)
    WHERE due_at IS NOT NULL AND retry_at IS NOT NULL;

-- Whoever changes what lines and lanes follow from adds a row here in the same transaction; whoever looks for work takes the rows
-- away and brings their lines and lanes up to date. Rows are only added, so no transaction, however long, waits for another here, and one
-- that is not yet committed is not forgotten by those who do not see it. A host that writes mail by itself adds a row, too.
CREATE TABLE postroom_queue_bell (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    outbox bigint NOT NULL,
    -- The line; null when it concerns the whole outbox.
    contract text COLLATE "C",
    priority bigint,
    -- When mail was submitted to the line.
    submitted_at bigint,
    -- When mail was claimed from the line.
    served_at bigint,
    CHECK ((contract IS NULL) = (priority IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE postroom_queue_recipient (
    mail uuid NOT NULL,
    -- From 0, in the order of the mail.
    place bigint NOT NULL,
    address text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL CHECK (role IN ('to', 'cc', 'bcc')),
    state text COLLATE "C" NOT NULL CHECK (state IN ('queued', 'held', 'claimed', 'crossing', 'accepted', 'bounced',
        'refused', 'expired', 'cancelled', 'dead', 'in-doubt')),
    -- While it is in doubt: the claim that left the doubt.
    doubted_by uuid,
    PRIMARY KEY (mail, place)
) WITH (fillfactor = 70);

-- What happened to mail of queue and ledger and to mailboxes, in the transaction that did it. Append-only; the timeline of a
-- mail is its events, and they leave with it.
CREATE TABLE postroom_event (
    -- Never given again, also after pruning.
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    noun text COLLATE "C" NOT NULL CHECK (noun IN ('queue', 'ledger', 'mailbox')),
    -- Null when it is about a mailbox.
    mail uuid CHECK ((noun = 'mailbox') = (mail IS NULL)),
    -- Null when it is about a mail.
    mailbox bigint CHECK ((noun = 'mailbox') = (mailbox IS NOT NULL)),
    -- The place in a mail of the queue; null when it concerns all.
    recipient bigint,
    what text COLLATE "C" NOT NULL,
    -- Null when nothing changed.
    state text COLLATE "C",
    detail text COLLATE "C" NOT NULL,
    -- Null when no person did it.
    actor text COLLATE "C"
);

CREATE INDEX postroom_event_mail ON postroom_event (mail, number);
CREATE INDEX postroom_event_mailbox ON postroom_event (at) WHERE mail IS NULL;

-- The hosts' idempotency keys. They leave with their mail.
CREATE TABLE postroom_queue_key (
    contract text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    mail uuid NOT NULL,
    -- JSON: a hash of each field of the submission.
    fingerprint text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (contract, idempotency_key)
);

CREATE INDEX postroom_queue_key_mail ON postroom_queue_key (mail);

-- How many mails a contract submitted on a day (UTC): the sum of its rows. There are several for a day, so that transactions
-- of one contract that are open at the same time do not wait for each other.
CREATE TABLE postroom_queue_tally (
    contract text COLLATE "C" NOT NULL,
    -- Days since 1970-01-01.
    day bigint NOT NULL,
    -- That of the connection which counts.
    slot bigint NOT NULL,
    submitted bigint NOT NULL,
    PRIMARY KEY (contract, day, slot)
) WITH (fillfactor = 50);

CREATE INDEX postroom_queue_tally_day ON postroom_queue_tally (day);
