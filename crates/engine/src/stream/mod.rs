//! Reading the source's change stream, and keeping what was read until it is applied.

pub(crate) mod event;
pub(crate) mod large;
pub(crate) mod reader;
pub(crate) mod spool;
pub(crate) mod unreadable;
