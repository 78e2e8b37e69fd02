-- How far back the baseline of the first contact goes, for mail whose server does not tell when it arrived. It counts as long as seen_at is
-- not later; null where nothing is left out by its date.
ALTER TABLE postroom_ledger_place ADD COLUMN baseline_at INTEGER;
