-- Automatic mail by correspondent, and addresses that get no more mail.

-- A mail that counts against a correspondent's budget, for a day. Written with the submission.
CREATE TABLE IF NOT EXISTS postroom_answer (
    -- A hash of contract and correspondent.
    account CHAR(32) NOT NULL,
    mail BINARY(16) NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (account, mail),
    KEY postroom_answer_at (at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_suppression (
    contract VARCHAR(200) NOT NULL,
    -- In lower case.
    address VARCHAR(254) NOT NULL,
    -- bounce, complaint, operator, allowed
    cause VARCHAR(20) NOT NULL,
    detail TEXT NOT NULL,
    -- The sent mail that bounced; it may be gone.
    mail BINARY(16),
    added_at BIGINT NOT NULL,
    -- Null for never.
    expires_at BIGINT,
    PRIMARY KEY (contract, address),
    KEY postroom_suppression_expires_at (expires_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
