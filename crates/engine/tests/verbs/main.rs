//! The verbs over the in-memory store and transports: what a host sees of sending and receiving, with every fault that can
//! be told without a network. Real servers and the SQL stores are elsewhere.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod automatic;
mod dating;
mod failing;
mod fixture;
mod governing;
mod hostile;
mod moving;
mod operating;
mod receiving;
mod registry;
mod renumbering;
mod sending;
mod town;
mod watching;
mod withholding;
