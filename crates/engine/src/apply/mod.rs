//! Applies change events to the destination.

pub(crate) mod coalesce;
pub(crate) mod ddl;
pub(crate) mod delta;
pub(crate) mod registry;
pub(crate) mod writer;
