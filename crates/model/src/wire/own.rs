//! Bodies of what Atlas's API lacks.

use super::live_migration::{Destination, HostName, LiveMigrationRequest20240530, Source, ValidationStatus};
use crate::{Finding, GroupId, Limits, MigrationId, PhaseKind, Progress, Status, ValidationId, history::HistoryEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A destination to register. URIs are kept encrypted and never shown again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisterCluster {
    /// The name by which migrations ask for it.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// How agents reach it: `PUBLIC`.
    #[schema(pattern = "^mongodb(\\+srv)?://.+", write_only)]
    pub uri: String,
    /// How agents reach it with `VPC_PEERING`.
    #[schema(pattern = "^mongodb(\\+srv)?://.+", write_only)]
    pub vpc_peering_uri: Option<String>,
    /// How agents reach it with `PRIVATE_LINK`.
    #[serde(default)]
    #[schema(write_only, required = false)]
    pub private_links: Vec<PrivateLink>,
}

/// A private link to a destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateLink {
    /// What `privateLinkId` names.
    #[schema(min_length = 1)]
    pub private_link_id: String,
    /// How agents reach it.
    #[schema(pattern = "^mongodb(\\+srv)?://.+", write_only)]
    pub uri: String,
}

/// A registered destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegisteredCluster {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What to migrate: as Atlas's API asks for it, and which namespaces of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationRequest {
    /// What is written.
    pub destination: Destination,
    /// Drop what the destination holds under the namespaces to be migrated, before the copy.
    #[serde(default)]
    #[schema(write_only, default = false, required = false)]
    pub drop_destination_data: bool,
    /// Never these: `db.*` or `db.collection`. Wins over `includeNamespaces`.
    #[serde(default)]
    #[schema(required = false, max_items = 1000)]
    pub exclude_namespaces: Vec<String>,
    /// Only these, if any: `db.*` or `db.collection`. The agent's own options bound what can be chosen.
    #[serde(default)]
    #[schema(required = false, max_items = 1000)]
    pub include_namespaces: Vec<String>,
    /// The one host whose agent is to run it.
    #[schema(value_type = Vec<HostName>, min_items = 1, max_items = 1)]
    pub migration_hosts: Vec<String>,
    /// Migrations that write the same namespaces to the destination: they stop, and this one takes their place. By id, as
    /// the error `DESTINATION_IN_USE` names them.
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = false, max_items = 100)]
    pub replace_migrations: Vec<MigrationId>,
    /// What is read.
    pub source: Source,
}

impl From<MigrationRequest> for LiveMigrationRequest20240530 {
    fn from(request: MigrationRequest) -> Self {
        Self {
            id: None,
            destination: request.destination,
            drop_destination_data: request.drop_destination_data,
            links: Vec::new(),
            migration_hosts: request.migration_hosts,
            sharding: None,
            source: request.source,
        }
    }
}

/// Whether a migration could start, and all that was found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationValidation {
    /// Why there are no findings, where that isn't for the better.
    pub error_message: Option<String>,
    /// What the agent found, what stands in the way first.
    pub findings: Vec<Finding>,
    /// The destination's group.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$")]
    pub group_id: GroupId,
    /// Its id.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$")]
    pub id: ValidationId,
    /// How far it is.
    pub status: ValidationStatus,
}

/// A migration in full.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationDetail {
    /// How often an agent took it up.
    pub attempts: i64,
    /// When it was created.
    pub created_at: String,
    /// What is written.
    pub destination: ClusterRef,
    /// Whether what the destination held under its namespaces was to be dropped before the copy.
    pub drop_destination_data: bool,
    /// The namespaces that it doesn't carry.
    pub exclude_namespaces: Vec<String>,
    /// Until when the cutover is possible.
    pub expires_at: Option<String>,
    /// Why it failed.
    pub failure: Option<FailureDetail>,
    /// Its group.
    pub group_id: String,
    /// Its id.
    pub id: String,
    /// The only namespaces that it carries; if there is none, all that its agent's options admit.
    pub include_namespaces: Vec<String>,
    /// Lag over time, oldest first.
    pub lag_history: Vec<LagSample>,
    /// Seconds behind the source while replicating; absent whenever that isn't known.
    pub lag_time_seconds: Option<i64>,
    /// How much it may take of its clusters.
    pub limits: Limits,
    /// The one host that runs it.
    pub migration_hosts: Vec<String>,
    /// Where it is.
    pub phase: PhaseKind,
    /// Since when.
    pub phase_since: String,
    /// How far.
    pub progress: Progress,
    /// Whether the cutover would be accepted.
    pub ready_for_cutover: bool,
    /// Whether it was cancelled and what was copied is still to be removed from the destination.
    pub removal_pending: bool,
    /// Seconds since its migration host was heard of last: it reports every second. After more than ten of them nothing is
    /// known of a migration that is under way, and nothing is ready. Absent before a host has taken it on.
    pub report_age_seconds: Option<i64>,
    /// The migration that this one reverses.
    pub reversal_of: Option<String>,
    /// What is read.
    pub source: ClusterRef,
    /// As Atlas's clients see it.
    pub status: Status,
}

/// One end of a migration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its name.
    pub cluster_name: String,
    /// Its group.
    pub group_id: String,
}

/// Why a migration failed, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FailureDetail {
    /// Its page in the documentation has this name.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// The lag at one time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagSample {
    /// Seconds behind the source.
    pub seconds: i64,
    /// When.
    pub time: String,
}

/// How far a migration was at one time. Ten seconds lie between two of the last hour, ten minutes between older ones.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSample {
    /// Bytes copied.
    pub bytes_copied: u64,
    /// Documents copied.
    pub documents_copied: u64,
    /// Change events applied.
    pub events_applied: u64,
    /// Seconds behind the source while replicating.
    pub lag_seconds: Option<i64>,
    /// Seconds until the source's oplog would no longer have reached back to where it was read.
    pub oplog_window_seconds: Option<i64>,
    /// Where it was.
    pub phase: PhaseKind,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// When.
    pub time: String,
}

/// What happened to a migration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MigrationEvent {
    /// The entry's number in the history of all migrations; later entries have higher numbers.
    pub id: i64,
    /// The group of events that it belongs to, such as `phase`, `failure` or `warning`.
    pub kind: String,
    /// What happened, as a sentence for people. Its words may change from version to version.
    pub message: String,
    /// When it happened, in RFC 3339.
    pub time: String,
    /// What happened, as an object: `event` names it, such as `phaseChanged`, and its other fields depend on that.
    /// Absent for some entries of versions that kept sentences alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<HistoryEvent>,
}

/// That something happened to migrations.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// How often any was changed since the server began; grows.
    pub count: u64,
}

/// How to cancel.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CancelRequest {
    /// Drop what was copied to the destination.
    #[schema(default = false, required = false)]
    pub drop_copied: bool,
}

/// How to continue.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResumeRequest {
    /// Make the copy again; what is equal on the destination stays, what differs is replaced.
    #[schema(default = false, required = false)]
    pub recopy: bool,
}

/// How much longer the cutover may wait.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ExtendRequest {
    /// From what it is now.
    #[schema(minimum = 1, maximum = 7_776_000, default = 86_400, required = false)]
    pub seconds: i64,
}

impl Default for ExtendRequest {
    fn default() -> Self {
        Self { seconds: 86_400 }
    }
}

/// Nothing to say.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Empty {}

/// Who did what, when and from where.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// The public key or client id.
    pub actor: String,
    /// From which address.
    pub address: String,
    /// Grows.
    pub id: i64,
    /// Which operation.
    pub operation: String,
    /// Whether it was done, or refused for want of a role, an address or a secret.
    pub outcome: Outcome,
    /// On what.
    pub target: String,
    /// When.
    pub time: String,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// The caller may not.
    Refused,
}

/// How to replace the organization's link token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RotateLinkToken {
    /// How long agents that have joined may continue with the token before, in seconds; 0 ends it at once. No other agent joins
    /// with it.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86_400, required = false)]
    pub grace_seconds: i64,
}

impl Default for RotateLinkToken {
    fn default() -> Self {
        Self { grace_seconds: 86_400 }
    }
}
