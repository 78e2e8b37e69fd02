//! x

mod fixture;
mod hosts;
