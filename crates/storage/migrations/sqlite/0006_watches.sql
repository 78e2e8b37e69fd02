-- Who reads which inbox. A lease lasts as long as its watcher is alive: one row is renewed, however many inboxes it reads.

CREATE TABLE postroom_watcher (
    -- A running worker.
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- Until when it is alive, unless it says so again.
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A row is made when an inbox is first taken. Of a mailbox that is gone one may stay: its number is not given again.
CREATE TABLE postroom_watch (
    mailbox INTEGER NOT NULL PRIMARY KEY,
    -- Who has the lease; null for nobody.
    watcher BLOB CHECK (length(watcher) = 16),
    -- Grows with each lease.
    fence INTEGER NOT NULL,
    -- Not taken before; null for at once.
    due_at INTEGER,
    -- idle | poll: how news is waited for; null as long as that is not known.
    way TEXT,
    -- When ledger and server were last found to agree.
    read_at INTEGER
) STRICT;

CREATE INDEX postroom_watcher_until ON postroom_watcher (until);
CREATE INDEX postroom_watch_watcher ON postroom_watch (watcher) WHERE watcher IS NOT NULL;
CREATE INDEX postroom_mailbox_usable ON postroom_mailbox (kind, status, id);
