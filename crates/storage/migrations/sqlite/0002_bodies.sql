-- Contents of mail, in pieces of at most 256 KiB.

CREATE TABLE postroom_body (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- When staging began; null once a mail refers to it. What stays staged is swept away.
    staged_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX postroom_body_staged ON postroom_body (staged_at) WHERE staged_at IS NOT NULL;

CREATE TABLE postroom_body_piece (
    body BLOB NOT NULL REFERENCES postroom_body (id),
    -- From 0.
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (body, number)
) STRICT;
