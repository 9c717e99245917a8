//! Bodies of the Cloud Migration Service. Their schemas are what the API document shows and what requests are held
//! against; keys are in alphabetical order, as on the wire.

use super::address::AddressOrBlock;
use crate::{GroupId, Migration, Status, Timestamp, ValidationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One migration job as every client reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveMigrationResponse {
    /// The migration's id.
    #[serde(rename = "_id")]
    #[schema(pattern = "^([a-f0-9]{24})$", read_only, required = false)]
    pub id: String,
    /// Seconds behind the source while replicating; null otherwise, and whenever that isn't known.
    #[schema(read_only)]
    pub lag_time_seconds: Option<i64>,
    /// The one host that runs it.
    #[schema(read_only, required = false)]
    pub migration_hosts: Vec<String>,
    /// Whether the cutover would be accepted.
    #[schema(read_only, required = false)]
    pub ready_for_cutover: bool,
    /// The phase, projected.
    #[schema(read_only)]
    pub status: Option<Status>,
}

impl LiveMigrationResponse {
    /// What is known of it at `now`.
    pub fn at(m: &Migration, now: Timestamp) -> Self {
        Self {
            id: m.id.to_string(),
            lag_time_seconds: m.lag_time_seconds(now),
            migration_hosts: vec![m.migration_host.clone()],
            ready_for_cutover: m.ready_for_cutover(now),
            status: Some(m.phase.kind().into()),
        }
    }
}

/// What to migrate, as of 2023-01-01.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveMigrationRequest {
    /// Ignored.
    #[serde(rename = "_id", default)]
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$", read_only, required = false)]
    pub id: Option<String>,
    /// What is written.
    pub destination: Destination,
    /// Drop what the destination holds before the copy.
    #[schema(write_only)]
    pub drop_enabled: bool,
    /// The one host whose agent is to run it.
    #[schema(min_items = 1, max_items = 1)]
    pub migration_hosts: Vec<String>,
    /// For sharded destinations.
    pub sharding: Option<ShardingRequest>,
    /// What is read.
    pub source: Source,
}

/// What to migrate, as of 2024-05-30.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveMigrationRequest20240530 {
    /// Ignored.
    #[serde(rename = "_id", default)]
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$", read_only, required = false)]
    pub id: Option<String>,
    /// What is written.
    pub destination: Destination,
    /// Drop what the destination holds before the copy.
    #[serde(default)]
    #[schema(write_only, default = false)]
    pub drop_destination_data: bool,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub links: Vec<Link>,
    /// The one host whose agent is to run it.
    #[schema(value_type = Vec<HostName>, min_items = 1, max_items = 1)]
    pub migration_hosts: Vec<String>,
    /// For sharded destinations.
    pub sharding: Option<ShardingRequest>,
    /// What is read.
    pub source: Source,
}

/// A host's name.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, min_length = 1)]
pub struct HostName(pub String);

/// The cluster to write.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Its name in the group.
    #[schema(min_length = 1)]
    pub cluster_name: String,
    /// The group: that of the path.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$")]
    pub group_id: GroupId,
    /// Which of its connection strings to use.
    pub hostname_schema_type: HostnameSchemaType,
    /// Which private link, with `PRIVATE_LINK`.
    pub private_link_id: Option<String>,
}

/// Which of a destination's connection strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HostnameSchemaType {
    /// The standard one.
    #[default]
    Public,
    /// The one with `privateLinkId`.
    PrivateLink,
    /// The private one.
    VpcPeering,
}

/// The deployment to read.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A file with certificate authorities on the migration host.
    pub ca_certificate_path: Option<String>,
    /// The name under which an agent announced it.
    #[schema(min_length = 1)]
    pub cluster_name: String,
    /// The group whose agent announced it.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$")]
    pub group_id: GroupId,
    /// Use the credentials that the agent was configured with.
    pub managed_authentication: bool,
    /// Without managed authentication.
    #[schema(write_only)]
    pub password: Option<String>,
    /// Connect with TLS.
    pub ssl: bool,
    /// Without managed authentication.
    #[schema(write_only)]
    pub username: Option<String>,
}

/// How to shard the destination's collections.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardingRequest {
    /// Create the indexes that the keys need.
    #[schema(write_only)]
    pub create_supporting_indexes: bool,
    /// The collections.
    #[schema(write_only)]
    pub sharding_entries: Vec<ShardEntry>,
}

/// One collection to shard.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardEntry {
    /// Its name.
    #[schema(write_only)]
    pub collection: String,
    /// Its database.
    #[schema(write_only)]
    pub database: String,
    /// Its key.
    pub shard_collection: ShardKeys,
}

/// A shard key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShardKeys {
    /// Its fields.
    #[schema(value_type = Vec<Object>, write_only)]
    pub key: Vec<serde_json::Value>,
}

/// A relation to another address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// The address.
    #[schema(required = false)]
    pub href: String,
    /// How it is related.
    #[schema(required = false)]
    pub rel: String,
}

/// A validation, carried out by an agent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveImportValidation {
    /// Its id.
    #[serde(rename = "_id")]
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$", read_only, required = false)]
    pub id: ValidationId,
    /// Every finding, with `FAILED`.
    #[schema(read_only)]
    pub error_message: Option<String>,
    /// The destination's group.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$", read_only, required = false)]
    pub group_id: GroupId,
    /// The source's group.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$", required = false)]
    pub source_group_id: GroupId,
    /// How far it is.
    #[schema(read_only)]
    pub status: Option<ValidationStatus>,
}

/// How far a validation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ValidationStatus {
    /// Waits for an agent.
    Pending,
    /// Nothing stands in the way.
    Success,
    /// Something does.
    Failed,
}

/// A group and what its agents announce.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveImportAvailableProject {
    /// What can be read.
    pub deployments: Vec<AvailableClustersDeployment>,
    /// Which hosts can run a migration.
    pub migration_hosts: Vec<String>,
    /// The group's name.
    #[schema(min_length = 1, max_length = 64, read_only)]
    pub name: String,
    /// The group.
    #[schema(value_type = String, pattern = "^([a-f0-9]{24})$", read_only)]
    pub project_id: GroupId,
}

/// A deployment that an agent announced.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AvailableClustersDeployment {
    /// The agent's version.
    #[schema(read_only, required = false)]
    pub agent_version: String,
    /// The deployment's id.
    #[schema(pattern = "^([a-f0-9]{24})$", read_only, required = false)]
    pub cluster_id: String,
    /// Bytes of all user databases.
    #[schema(read_only, required = false)]
    pub db_size_bytes: i64,
    /// `6.0`.
    #[schema(read_only)]
    pub feature_compatibility_version: String,
    /// Whether the agent has credentials for it.
    #[schema(read_only)]
    pub managed: bool,
    /// `6.0.5`.
    #[serde(rename = "mongoDBVersion")]
    #[schema(read_only)]
    pub mongo_db_version: String,
    /// The agent's name for it.
    #[schema(read_only)]
    pub name: String,
    /// The oplog's size.
    #[serde(rename = "oplogSizeMB")]
    #[schema(read_only, required = false)]
    pub oplog_size_mb: i32,
    /// Whether it is a sharded cluster.
    #[schema(read_only)]
    pub sharded: bool,
    /// How many shards it has.
    #[schema(read_only, required = false)]
    pub shards_size: i32,
    /// Whether the agent connects with TLS.
    #[schema(read_only)]
    pub tls_enabled: bool,
}

/// From where agents may come.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetOrgRequest {
    /// Addresses and CIDR blocks; empty is everywhere.
    #[serde(default)]
    #[schema(value_type = Vec<AddressOrBlock>, required = false)]
    pub access_list_ips: Vec<String>,
}

/// What an agent joins with.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetOrg {
    /// Base64 of JSON; shown once.
    pub link_token: String,
}
