//! How far a migration is: counted by the engine, reported by the agent, shown by everything else.

use crate::ErrorCode;
use serde::{Deserialize, Serialize};

/// Counters since the migration began; those of a pass, of what waits and of the lag go back, the others never.
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
    /// Documents that the verifier compared in the pass that is under way.
    pub documents_verified: u64,
    /// Documents to compare in it, as the source estimates.
    pub documents_to_verify: u64,
    /// Passes that the verifier made over everything.
    pub verification_passes: u64,
    /// Documents that the verifier has to look at again.
    pub documents_dirty: u64,
    /// Documents that the verifier found different and repaired.
    pub documents_repaired: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// For how many seconds there has been a write of the source that isn't applied, by the newest write that its primary
    /// has, known to the majority or not; 0 while all of them are applied. Absent before change replication, and whenever
    /// it can't be measured.
    pub lag_seconds: Option<i64>,
    /// Change events a second that were read from the source lately; absent until known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub source_events_per_second: Option<u64>,
    /// Change events a second that were applied to the destination lately; absent until known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub applied_events_per_second: Option<u64>,
    /// Why the copy goes slower than it could: a cluster suffers; absent while none does.
    pub slowed_because: Option<String>,
    /// The application's write pause at cutover, milliseconds; absent before.
    pub write_pause_millis: Option<i64>,
    /// What has to be fixed before it continues automatically; absent while it does.
    pub waiting: Option<Waiting>,
    /// Seconds until the source's oplog no longer reaches back to where it is read, if reading stopped now; absent until
    /// it is known.
    pub oplog_window_seconds: Option<i64>,
    /// Indexes that the destination lacks although it follows the source: dropped since they refused a document, and
    /// built again soon, or refused by the destination; at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub missing_indexes: Vec<MissingIndex>,
    /// The copy of the largest namespaces, the largest first; at most [`NAMESPACES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub namespaces: Vec<NamespaceProgress>,
}

/// Why a migration stands still.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Waiting {
    /// Its page in the documentation has this name.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// What was seen.
    pub message: String,
}

/// An index that the destination lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MissingIndex {
    /// `db.collection`, as the destination calls it.
    pub namespace: String,
    /// The index's name.
    pub name: String,
    /// Why it is missing, in words.
    pub reason: String,
}

/// How many namespaces are listed one by one: a report goes out every second, and a cluster may have thousands.
pub const NAMESPACES: usize = 50;

/// How far one namespace's copy is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceProgress {
    /// `db.collection`.
    pub namespace: String,
    /// Documents to copy, as the source estimates.
    pub documents_total: u64,
    /// Documents copied.
    pub documents_copied: u64,
    /// Bytes to copy, uncompressed, as the source estimates.
    pub bytes_total: u64,
    /// Bytes copied, uncompressed.
    pub bytes_copied: u64,
}

impl Progress {
    /// Counts documents of `namespace` as copied.
    pub fn add_copied(&mut self, namespace: &str, documents: u64, bytes: u64) {
        self.documents_copied += documents;
        self.bytes_copied += bytes;
        if let Some(own) = self.namespaces.iter_mut().find(|own| own.namespace == namespace) {
            own.documents_copied += documents;
            own.bytes_copied += bytes;
        }
    }

    /// Subtracts it: they are copied again.
    pub fn take_copied(&mut self, namespace: &str, documents: u64, bytes: u64) {
        self.documents_copied = self.documents_copied.saturating_sub(documents);
        self.bytes_copied = self.bytes_copied.saturating_sub(bytes);
        if let Some(own) = self.namespaces.iter_mut().find(|own| own.namespace == namespace) {
            own.documents_copied = own.documents_copied.saturating_sub(documents);
            own.bytes_copied = own.bytes_copied.saturating_sub(bytes);
        }
    }

    /// Keeps the largest of `all`, the largest first.
    pub fn set_namespaces(&mut self, mut all: Vec<NamespaceProgress>) {
        all.sort_by(|a, b| b.bytes_total.cmp(&a.bytes_total).then_with(|| a.namespace.cmp(&b.namespace)));
        all.truncate(NAMESPACES);
        self.namespaces = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_largest_namespaces_are_told_and_all_are_counted() {
        let mut progress = Progress::default();
        let of = |n: u64| NamespaceProgress { namespace: format!("db.c{n}"), bytes_total: n, ..Default::default() };
        progress.set_namespaces((0..200).map(of).collect());
        assert_eq!((progress.namespaces.len(), progress.namespaces[0].namespace.as_str()), (NAMESPACES, "db.c199"));
        progress.add_copied("db.c199", 2, 20);
        progress.add_copied("db.c0", 1, 10);
        progress.take_copied("db.c199", 1, 5);
        assert_eq!((progress.documents_copied, progress.bytes_copied), (2, 25));
        assert_eq!((progress.namespaces[0].documents_copied, progress.namespaces[0].bytes_copied), (1, 15));
    }
}
