-- What was taken of limits per minute and per day. Written with the claims and settlements that take and give back.

CREATE TABLE IF NOT EXISTS postroom_budget (
    -- outbox/7
    owner VARCHAR(100) NOT NULL PRIMARY KEY,
    -- JSON: messages of the last minute, [[second since 1970-01-01, how many], ..].
    minute MEDIUMTEXT NOT NULL,
    -- JSON: recipients of the day in UTC, [[day since 1970-01-01, how many]].
    day MEDIUMTEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
