-- What the ledger keeps beside a mail's key: when and under which claim it was finished, by which retention counts and a host's
-- commit is verified; what a mail is recognised by without its bytes; and how far a folder was read.

-- When its first mail was accounted for: what arrived before is what the baseline decided on. Null where an earlier release did.
ALTER TABLE postroom_ledger_place ADD COLUMN first_at INTEGER;
-- When it was last read to its end; null while it never was.
ALTER TABLE postroom_ledger_place ADD COLUMN whole_at INTEGER;
-- Not null while it is read anew, because it was renumbered or a person said so: mail that arrived before this is historic where
-- the ledger does not know it.
ALTER TABLE postroom_ledger_place ADD COLUMN rescan_at INTEGER;

UPDATE postroom_ledger_place SET whole_at = seen_at;

-- When its state became final: retention counts from here.
ALTER TABLE postroom_ledger_mail ADD COLUMN finished_at INTEGER;
-- The claim under which that was.
ALTER TABLE postroom_ledger_mail ADD COLUMN finished_by BLOB CHECK (length(finished_by) = 16);
-- SHA-256 of Message-ID and date; null without a Message-ID.
ALTER TABLE postroom_ledger_mail ADD COLUMN hint BLOB CHECK (length(hint) = 32);
-- When all but its key was removed.
ALTER TABLE postroom_ledger_mail ADD COLUMN bare_at INTEGER;

UPDATE postroom_ledger_mail SET finished_at = stored_at
    WHERE sha256 IS NOT NULL AND state IN ('handled', 'ignored', 'dead');

CREATE INDEX postroom_ledger_mail_hint ON postroom_ledger_mail (mailbox, folder, hint) WHERE hint IS NOT NULL;
CREATE INDEX postroom_ledger_mail_contract ON postroom_ledger_mail (contract, id) WHERE contract IS NOT NULL;
-- What retention looks for; mail without a contract stands under the empty one.
CREATE INDEX postroom_ledger_mail_raw ON postroom_ledger_mail (coalesce(contract, ''), finished_at)
    WHERE body IS NOT NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored');
CREATE INDEX postroom_ledger_mail_done ON postroom_ledger_mail (coalesce(contract, ''), finished_at)
    WHERE bare_at IS NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored');
CREATE INDEX postroom_ledger_mail_dead ON postroom_ledger_mail (coalesce(contract, ''), finished_at)
    WHERE bare_at IS NULL AND finished_at IS NOT NULL AND state = 'dead';

-- What was forgotten of a contract: only its numbers are left.
CREATE TABLE postroom_forgotten (
    contract TEXT NOT NULL PRIMARY KEY,
    -- Mails that were removed from the queue.
    sent INTEGER NOT NULL,
    -- Mails of the ledger of which only the key was left.
    received INTEGER NOT NULL,
    -- When the first and the last was.
    begun_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
