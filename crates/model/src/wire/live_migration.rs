//! Bodies of the Cloud Migration Service.

use crate::{Migration, Status};
use serde::{Deserialize, Serialize};

/// One migration job as every client reads it. Keys in alphabetical order, as on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveMigrationResponse {
    /// The migration's id.
    #[serde(rename = "_id")]
    #[schema(pattern = "^([a-f0-9]{24})$", read_only)]
    pub id: String,
    /// Seconds behind the source while replicating, else null.
    #[schema(read_only)]
    pub lag_time_seconds: Option<i64>,
    /// The one host that runs it.
    pub migration_hosts: Vec<String>,
    /// Whether the cutover would be accepted.
    #[schema(read_only)]
    pub ready_for_cutover: bool,
    /// The phase, projected.
    #[schema(read_only)]
    pub status: Status,
}

impl From<&Migration> for LiveMigrationResponse {
    fn from(m: &Migration) -> Self {
        Self {
            id: m.id.to_string(),
            lag_time_seconds: m.lag_time_seconds(),
            migration_hosts: vec![m.migration_host.clone()],
            ready_for_cutover: m.ready_for_cutover(),
            status: m.phase.kind().into(),
        }
    }
}
