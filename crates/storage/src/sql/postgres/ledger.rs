//! The ledger: intake for fetchers, work for handlers, desk for people, and the rows that work and desk change.

pub(super) mod desk;
pub(super) mod host;
pub(super) mod intake;
pub(super) mod recognise;
pub(super) mod retention;
pub(super) mod row;
pub(super) mod work;
