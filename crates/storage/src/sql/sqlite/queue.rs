//! The queue: intake for submissions, also within a host's own transaction, work for dispatchers, desk for people, and the rows that work and desk change.

pub(super) mod claim;
pub(super) mod desk;
pub(super) mod doubt;
mod host;
pub(super) mod insert;
pub(super) mod intake;
pub(super) mod report;
pub(super) mod reroute;
pub(super) mod retention;
pub(super) mod row;
mod together;
pub(super) mod work;
