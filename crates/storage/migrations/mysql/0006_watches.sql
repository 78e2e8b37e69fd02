-- Who reads which inbox. A lease lasts as long as its watcher is alive: one row is renewed, however many inboxes it reads.

CREATE TABLE IF NOT EXISTS postroom_watcher (
    -- A running worker.
    id BINARY(16) NOT NULL PRIMARY KEY,
    -- Until when it is alive, unless it says so again.
    until BIGINT NOT NULL,
    KEY postroom_watcher_until (until)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

-- A row is made when an inbox is first taken. Of a mailbox that is gone one may stay: its number is not given again.
CREATE TABLE IF NOT EXISTS postroom_watch (
    mailbox BIGINT NOT NULL PRIMARY KEY,
    -- Who has the lease; null for nobody.
    watcher BINARY(16),
    -- Grows with each lease.
    fence BIGINT NOT NULL,
    -- Not taken before; null for at once.
    due_at BIGINT,
    -- idle | poll: how news is waited for; null as long as that is not known.
    way VARCHAR(10),
    -- When ledger and server were last found to agree.
    read_at BIGINT,
    KEY postroom_watch_watcher (watcher)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE INDEX IF NOT EXISTS postroom_mailbox_usable ON postroom_mailbox (kind, status, id);

-- Those who take inboxes come one after the other.
INSERT INTO postroom_lock (scope, place) VALUES ('watches', 0) ON DUPLICATE KEY UPDATE place = 0;
