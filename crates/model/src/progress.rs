//! How far a migration is: counted by the engine, reported by the agent, shown by everything else.

use serde::{Deserialize, Serialize};

/// Counters since the migration began; they never go back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Collections and time-series bucket collections to copy.
    pub collections_total: u64,
    /// Of these, copied whole.
    pub collections_copied: u64,
    /// Documents to copy, as the source estimates.
    pub documents_total: u64,
    /// Documents copied.
    pub documents_copied: u64,
    /// Bytes to copy, uncompressed, as the source estimates.
    pub bytes_total: u64,
    /// Bytes copied, uncompressed.
    pub bytes_copied: u64,
    /// Secondary indexes to build.
    pub indexes_total: u64,
    /// Of these, built.
    pub indexes_built: u64,
    /// Change events applied.
    pub events_applied: u64,
    /// Documents read again from the source because their change event was not enough.
    pub documents_refetched: u64,
    /// Documents that the verifier compared.
    pub documents_verified: u64,
    /// Documents that the verifier found different and repaired.
    pub documents_repaired: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Seconds between the source's newest write and the newest applied one; absent before change replication.
    pub lag_seconds: Option<i64>,
    /// The application's write pause at cutover, milliseconds; absent before.
    pub write_pause_millis: Option<i64>,
}
