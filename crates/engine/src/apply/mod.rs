//! Applies change events to the destination.

pub(crate) mod adopt;
pub(crate) mod coalesce;
pub(crate) mod ddl;
pub(crate) mod delta;
pub(crate) mod lanes;
mod refetch;
pub(crate) mod registry;
pub(crate) mod series;
pub(crate) mod shape;
pub(crate) mod statements;
pub(crate) mod trouble;
pub(crate) mod window;
pub(crate) mod writer;
