-- What was taken of limits per minute and per day. Written with the claims and settlements that take and give back.

CREATE TABLE postroom_budget (
    -- outbox/7
    owner text COLLATE "C" NOT NULL PRIMARY KEY,
    -- JSON: messages of the last minute, [[second since 1970-01-01, how many], ..].
    minute text COLLATE "C" NOT NULL,
    -- JSON: recipients of the day in UTC, [[day since 1970-01-01, how many]].
    day text COLLATE "C" NOT NULL
);
