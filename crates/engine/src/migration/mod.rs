//! The whole life of one migration. [`pipeline`] reads from the top: it connects, takes the destination, copies, follows
//! the source and cuts over.

pub(crate) mod cleanup;
pub(crate) mod follow;
pub(crate) mod initial_copy;
pub(crate) mod load_monitor;
pub(crate) mod meter;
pub(crate) mod pipeline;
