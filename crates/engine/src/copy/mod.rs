//! The initial copy: planned as ranges of `_id`, carried out by a few workers.

pub(crate) mod plan;
pub(crate) mod recopy;
pub(crate) mod slot;
pub(crate) mod worker;
