//! Applying change events to the destination, batch by batch, each divided over the workers.

pub(crate) mod batch;
pub(crate) mod ddl;
pub(crate) mod late_writes;
pub(crate) mod progress;
pub(crate) mod refetch;
pub(crate) mod replicator;
pub(crate) mod resync;
pub(crate) mod worker_pool;
pub(crate) mod writer;
