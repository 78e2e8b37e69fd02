-- Automatic mail by correspondent, and addresses that get no more mail.

-- A mail that counts against a correspondent's budget, for a day. Written with the submission.
CREATE TABLE postroom_answer (
    -- A hash of contract and correspondent.
    account text COLLATE "C" NOT NULL,
    mail uuid NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (account, mail)
);

CREATE INDEX postroom_answer_at ON postroom_answer (at);

CREATE TABLE postroom_suppression (
    contract text COLLATE "C" NOT NULL,
    -- In lower case.
    address text COLLATE "C" NOT NULL,
    -- bounce, complaint, operator, allowed
    cause text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    -- The sent mail that bounced; it may be gone.
    mail uuid,
    added_at bigint NOT NULL,
    -- Null for never.
    expires_at bigint,
    PRIMARY KEY (contract, address)
);

CREATE INDEX postroom_suppression_expires_at ON postroom_suppression (expires_at) WHERE expires_at IS NOT NULL;
