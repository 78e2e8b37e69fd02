//! Working transports that keep everything in memory, for the tests of hosts: no port is opened, every failure can be
//! ordered.

mod failing;
mod incoming;
mod outgoing;

pub use incoming::{Kept, MemoryIncoming};
pub use outgoing::{Carried, MemoryOutgoing};
