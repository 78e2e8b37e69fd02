-- When and under which claim a received mail was finished: retention counts from the time, and a host's commit is verified by the
-- claim. Of what is old only the key stays.

-- When its state became final; null while it is not, and for what the baseline left out.
ALTER TABLE postroom_ledger_mail ADD COLUMN finished_at bigint;
-- The claim under which that was; null where a person or a rule did it.
ALTER TABLE postroom_ledger_mail ADD COLUMN finished_by uuid;
-- When all but its key was removed.
ALTER TABLE postroom_ledger_mail ADD COLUMN bare_at bigint;

UPDATE postroom_ledger_mail SET finished_at = stored_at
    WHERE sha256 IS NOT NULL AND state IN ('handled', 'ignored', 'dead');

-- What retention looks for; mail without a contract stands under the empty one.
CREATE INDEX postroom_ledger_mail_raw ON postroom_ledger_mail (coalesce(contract, ''), finished_at)
    WHERE body IS NOT NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored');
CREATE INDEX postroom_ledger_mail_done ON postroom_ledger_mail (coalesce(contract, ''), finished_at)
    WHERE bare_at IS NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored');
CREATE INDEX postroom_ledger_mail_dead ON postroom_ledger_mail (coalesce(contract, ''), finished_at)
    WHERE bare_at IS NULL AND finished_at IS NOT NULL AND state = 'dead';
