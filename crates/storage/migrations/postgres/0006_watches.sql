-- Who reads which inbox. A lease lasts as long as its watcher is alive: one row is renewed, however many inboxes it reads.

CREATE TABLE postroom_watcher (
    -- A running worker.
    id uuid NOT NULL PRIMARY KEY,
    -- Until when it is alive, unless it says so again.
    until bigint NOT NULL
);

-- A row is made when an inbox is first taken. Of a mailbox that is gone one may stay: its number is not given again.
CREATE TABLE postroom_watch (
    mailbox bigint NOT NULL PRIMARY KEY,
    -- Who has the lease; null for nobody.
    watcher uuid,
    -- Grows with each lease.
    fence bigint NOT NULL,
    -- Not taken before; null for at once.
    due_at bigint,
    -- idle | poll: how news is waited for; null as long as that is not known.
    way text COLLATE "C",
    -- When ledger and server were last found to agree.
    read_at bigint
);

CREATE INDEX postroom_watcher_until ON postroom_watcher (until);
CREATE INDEX postroom_watch_watcher ON postroom_watch (watcher) WHERE watcher IS NOT NULL;
CREATE INDEX postroom_mailbox_usable ON postroom_mailbox (kind, status, id);
