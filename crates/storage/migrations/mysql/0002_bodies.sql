-- Contents of mail, in pieces of at most 256 KiB.

CREATE TABLE IF NOT EXISTS postroom_body (
    id BINARY(16) NOT NULL PRIMARY KEY,
    -- When staging began; null once a mail refers to it. What stays staged is swept away.
    staged_at BIGINT,
    KEY postroom_body_staged (staged_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS postroom_body_piece (
    body BINARY(16) NOT NULL,
    -- From 0.
    number BIGINT NOT NULL,
    content MEDIUMBLOB NOT NULL,
    PRIMARY KEY (body, number),
    CONSTRAINT postroom_body_piece_body FOREIGN KEY (body) REFERENCES postroom_body (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin;
