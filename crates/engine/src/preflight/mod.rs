//! Every reason not to start, seen without writing anything.

pub(crate) mod checks;
pub(crate) mod ownership;
