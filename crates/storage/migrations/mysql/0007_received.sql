-- When and under which claim a received mail was finished: retention counts from the time, and a host's commit is verified by the
-- claim. Of what is old only the key stays.

-- finished_at: when its state became final; null while it is not, and for what the baseline left out. finished_by: the claim under which
-- that was; null where a person or a rule did it. bare_at: when all but its key was removed. What retention looks for stands in raw_of,
-- done_of and dead_of: the contract, or the empty text for mail without one.
ALTER TABLE postroom_ledger_mail
    ADD COLUMN IF NOT EXISTS finished_at BIGINT,
    ADD COLUMN IF NOT EXISTS finished_by BINARY(16),
    ADD COLUMN IF NOT EXISTS bare_at BIGINT,
    ADD COLUMN IF NOT EXISTS raw_of VARCHAR(200) AS (CASE WHEN body IS NOT NULL AND finished_at IS NOT NULL
        AND state IN ('handled', 'ignored') THEN COALESCE(contract, '') END) STORED,
    ADD COLUMN IF NOT EXISTS done_of VARCHAR(200) AS (CASE WHEN bare_at IS NULL AND finished_at IS NOT NULL
        AND state IN ('handled', 'ignored') THEN COALESCE(contract, '') END) STORED,
    ADD COLUMN IF NOT EXISTS dead_of VARCHAR(200) AS (CASE WHEN bare_at IS NULL AND finished_at IS NOT NULL
        AND state = 'dead' THEN COALESCE(contract, '') END) STORED;

UPDATE postroom_ledger_mail SET finished_at = stored_at
    WHERE finished_at IS NULL AND sha256 IS NOT NULL AND state IN ('handled', 'ignored', 'dead');

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_raw ON postroom_ledger_mail (raw_of, finished_at);

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_done ON postroom_ledger_mail (done_of, finished_at);

CREATE INDEX IF NOT EXISTS postroom_ledger_mail_dead ON postroom_ledger_mail (dead_of, finished_at);
