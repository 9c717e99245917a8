//! The initial copy: planned as ranges of `_id`, carried out by a few workers.

pub(crate) mod batch_writer;
pub(crate) mod in_place;
pub(crate) mod plan;
pub(crate) mod worker;
