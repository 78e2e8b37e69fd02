-- Contents of mail, in pieces of at most 256 KiB.

CREATE TABLE postroom_body (
    id uuid NOT NULL PRIMARY KEY,
    -- When staging began; null once a mail refers to it. What stays staged is swept away.
    staged_at bigint
);

CREATE INDEX postroom_body_staged ON postroom_body (staged_at) WHERE staged_at IS NOT NULL;

CREATE TABLE postroom_body_piece (
    -- Of a postroom_body, which whoever adds a piece locks. No foreign key: see 0003_queue.sql.
    body uuid NOT NULL,
    -- From 0.
    number bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (body, number)
);

-- Mail is mostly encoded: to compress it again costs time and saves little.
ALTER TABLE postroom_body_piece ALTER COLUMN content SET STORAGE EXTERNAL;
