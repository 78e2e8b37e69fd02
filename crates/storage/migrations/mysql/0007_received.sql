-- What the ledger keeps beside a mail's key: when and under which claim it was finished, by which retention counts and a host's
-- commit is verified; what a mail is recognised by without its bytes; and how far a folder was read.

-- first_at: when its first mail was accounted for: what arrived before is what the baseline decided on. Null where an earlier
-- release did. whole_at: when it was last read to its end; null while it never was. rescan_at: not null while it is read anew,
-- because it was renumbered or a person said so: mail that arrived before this is historic where the ledger does not know it.
ALTER TABLE postroom_ledger_place
    ADD COLUMN IF NOT EXISTS first_at BIGINT,
    ADD COLUMN IF NOT EXISTS whole_at BIGINT,
    ADD COLUMN IF NOT EXISTS rescan_at BIGINT;

UPDATE postroom_ledger_place SET whole_at = seen_at WHERE whole_at IS NULL;

-- finished_at: when its state became final: retention counts from here. finished_by: the claim under which that was. hint: SHA-256
-- of Message-ID and date; null without a Message-ID. bare_at: when all but its key was removed. What retention looks for stands in
-- raw_of, done_of, dead_of: the contract, or the empty text for mail without one.
ALTER TABLE postroom_ledger_mail
    ADD COLUMN IF NOT EXISTS finished_at BIGINT,
    ADD COLUMN IF NOT EXISTS finished_by BINARY(16),
    ADD COLUMN IF NOT EXISTS hint BINARY(32),
    ADD COLUMN IF NOT EXISTS bare_at BIGINT,
    ADD COLUMN IF NOT EXISTS raw_of VARCHAR(200) AS (CASE WHEN body IS NOT NULL AND finished_at IS NOT NULL
        AND state IN ('handled', 'ignored') THEN COALESCE(contract, '') END) STORED,
    ADD COLUMN IF NOT EXISTS done_of VARCHAR(200) AS (CASE WHEN bare_at IS NULL AND finished_at IS NOT NULL
        AND state IN ('handled', 'ignored') THEN COALESCE(contract, '') END) STORED,
    ADD COLUMN IF NOT EXISTS dead_of VARCHAR(200) AS (CASE WHEN bare_at IS NULL AND finished_at IS NOT NULL
        AND state = 'dead' THEN COALESCE(contract, '') END) STORED;

UPDATE postroom_ledger_mail SET finished_at = stored_at
    WHERE finished_at IS NULL AND sha256 IS NOT NULL AND state IN ('handled', 'ignored', 'dead');

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_hint ON postroom_ledger_mail (mailbox, folder, hint);

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_contract ON postroom_ledger_mail (contract, id);

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_raw ON postroom_ledger_mail (raw_of, finished_at);

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_done ON postroom_ledger_mail (done_of, finished_at);

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_dead ON postroom_ledger_mail (dead_of, finished_at);

-- What was forgotten of a contract: only its numbers are left. sent: mails that were removed from the queue. received: mails of the
-- ledger of which only the key was left. begun_at, last_at: when the first and the last was.
CREATE TABLE IF NOT EXISTS postroom_forgotten (
    contract VARCHAR(200) NOT NULL PRIMARY KEY,
    sent BIGINT NOT NULL,
    received BIGINT NOT NULL,
    begun_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
