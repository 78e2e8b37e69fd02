//! The form of a mail on the wire: bytes of a composition, and plain values of received bytes. The building and the
//! parsing crate are each named in one file below and nowhere else.

mod build;
mod charset;
mod encode;
mod file_name;
mod names;
mod parse;
mod raw;
mod readdress;
mod scan;

pub use build::{Composition, compose};
pub use parse::parse;
pub use raw::{RawFacts, check_raw};
pub use readdress::{Addressing, addressing, readdress};
