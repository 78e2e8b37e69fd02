//! What every adapter of a port must do, as suites that an adapter's own tests run: one case for each clause in the
//! documentation of the port. A case panics when the adapter breaks its clause.

mod incoming;
mod outgoing;

pub use incoming::{Abilities, IncomingPeer, OnServer, incoming};
pub use outgoing::{OutgoingPeer, Taken, outgoing};
