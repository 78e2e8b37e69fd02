-- Whether its server was told to keep a mail where it lies (marked as read), once it was told. Not set for what was to be deleted or moved, nor
-- for what an earlier release told: a mail with the bytes of such a one is another mail.
ALTER TABLE postroom_ledger_mail ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
