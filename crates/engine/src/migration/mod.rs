//! The whole life of one migration. [`pipeline`] reads from the top: it connects, takes the destination, copies, follows
//! the source and cuts over. [`supervisor`] runs it, again where it failed and its cause can be fixed.

pub(crate) mod bootstrap;
pub(crate) mod cleanup;
pub(crate) mod follow;
pub(crate) mod initial_copy;
pub(crate) mod load_monitor;
pub(crate) mod meter;
pub(crate) mod pipeline;
pub(crate) mod supervisor;
