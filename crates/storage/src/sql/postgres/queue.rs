//! The queue: intake for submissions, also within a host's own transaction, work for dispatchers, desk for people, and the rows that work and desk change.

pub(super) mod desk;
mod host;
pub(super) mod intake;
pub(super) mod row;
pub(super) mod work;
