-- Automatic mail by correspondent, and addresses that get no more mail.

-- A mail that counts against a correspondent's budget, for a day. Written with the submission.
CREATE TABLE postroom_answer (
    -- A hash of contract and correspondent.
    account TEXT NOT NULL,
    mail BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (account, mail)
) STRICT, WITHOUT ROWID;

CREATE INDEX postroom_answer_at ON postroom_answer (at);

CREATE TABLE postroom_suppression (
    contract TEXT NOT NULL,
    -- In lower case.
    address TEXT NOT NULL,
    -- bounce, complaint, operator, allowed
    cause TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- The sent mail that bounced; it may be gone.
    mail BLOB,
    added_at INTEGER NOT NULL,
    -- Null for never.
    expires_at INTEGER,
    PRIMARY KEY (contract, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX postroom_suppression_expires_at ON postroom_suppression (expires_at) WHERE expires_at IS NOT NULL;
