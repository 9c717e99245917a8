//! Every reason not to start, seen without writing anything.

mod access;
mod capacity;
pub(crate) mod checks;
mod collections;
mod indexes;
pub(crate) mod ownership;
mod versions;
