//! Writing the destination: who may, where a migration's state is kept, which collection is whose image, definitions,
//! indexes, and the commands that changes become.

pub(crate) mod checkpoint;
pub(crate) mod claims;
pub(crate) mod coalesce;
pub(crate) mod collection_map;
pub(crate) mod definition;
pub(crate) mod delta;
pub(crate) mod document_shape;
pub(crate) mod expiry;
pub(crate) mod fenced_session;
pub(crate) mod fences;
pub(crate) mod index_upkeep;
pub(crate) mod indexes;
pub(crate) mod time_series;
pub(crate) mod views;
pub(crate) mod write_commands;
