//! Organizations, groups, keys: what clients ask for around a migration.

use super::{
    address::{CidrBlock, IpAddress},
    live_migration::Link,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoleName {
    /// Everything in the organization and all its groups.
    OrgOwner,
    /// Read the organization, and the migrations in it.
    OrgMember,
    /// Read the organization and all its groups.
    OrgReadOnly,
    /// Create groups.
    OrgGroupCreator,
    /// Everything in one group that is not the organization owner's alone.
    GroupOwner,
    /// Read one group.
    GroupReadOnly,
}

/// A role in an organization: a [`RoleName`] that can be given with no more said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrgRoleName {
    /// See [`RoleName::OrgOwner`].
    OrgOwner,
    /// See [`RoleName::OrgMember`].
    OrgMember,
    /// See [`RoleName::OrgReadOnly`].
    OrgReadOnly,
    /// See [`RoleName::OrgGroupCreator`].
    OrgGroupCreator,
}

impl From<OrgRoleName> for RoleName {
    fn from(name: OrgRoleName) -> Self {
        match name {
            OrgRoleName::OrgOwner => Self::OrgOwner,
            OrgRoleName::OrgMember => Self::OrgMember,
            OrgRoleName::OrgReadOnly => Self::OrgReadOnly,
            OrgRoleName::OrgGroupCreator => Self::OrgGroupCreator,
        }
    }
}

/// A role in the group that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GroupRoleName {
    /// See [`RoleName::GroupOwner`].
    GroupOwner,
    /// See [`RoleName::GroupReadOnly`].
    GroupReadOnly,
}

impl From<GroupRoleName> for RoleName {
    fn from(name: GroupRoleName) -> Self {
        match name {
            GroupRoleName::GroupOwner => Self::GroupOwner,
            GroupRoleName::GroupReadOnly => Self::GroupReadOnly,
        }
    }
}

/// A role and where it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// The group, for a group role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// The organization, for an organization role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// The role.
    pub role_name: RoleName,
}

/// Who asks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemStatus {
    /// The caller's key; null for a service account.
    pub api_key: Option<CallerKey>,
    /// The program.
    pub app_name: String,
    /// Its version.
    pub build: String,
    /// Related addresses.
    pub links: Vec<Link>,
    /// Whether requests are slowed down.
    pub throttling: bool,
}

/// The caller's own key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallerKey {
    /// From where it works; empty is everywhere.
    pub access_list: Vec<AccessListEntry>,
    /// Its id.
    pub id: String,
    /// Its public half.
    pub public_key: String,
    /// Its roles.
    pub roles: Vec<Role>,
}

/// An address or a block from which a key works: one of both. Clients may send back what they read.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(min_properties = 1, max_properties = 1)]
pub struct AccessListRequest {
    /// A block.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = CidrBlock, required = false)]
    pub cidr_block: Option<String>,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub count: i64,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub created: String,
    /// An address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = IpAddress, required = false)]
    pub ip_address: Option<String>,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub last_used: String,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub last_used_address: String,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub links: Vec<Link>,
}

/// An address or a block from which a key works, as clients read it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessListEntry {
    /// The block; an address is one of its own, as `10.0.0.1/32`.
    pub cidr_block: String,
    /// How many requests it let in since the server's start.
    pub count: i64,
    /// When it was added, ISO 8601 in UTC; absent for entries of versions that didn't keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub created: Option<String>,
    /// The address, where the entry is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub ip_address: Option<String>,
    /// When it last let a request in; absent if it hasn't since the server's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub last_used: Option<String>,
    /// From which address that request came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub last_used_address: Option<String>,
    /// Related addresses.
    pub links: Vec<Link>,
}

/// An organization.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AtlasOrganization {
    /// Its id.
    pub id: String,
    /// Never.
    pub is_deleted: bool,
    /// Related addresses.
    pub links: Vec<Link>,
    /// Its name.
    pub name: String,
    /// Always.
    pub skip_default_alerts_settings: bool,
}

/// A group; Atlas's user interface says project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// How many destinations are registered in it.
    pub cluster_count: i64,
    /// When it was made.
    pub created: String,
    /// Its id.
    pub id: String,
    /// Related addresses.
    pub links: Vec<Link>,
    /// Its name.
    pub name: String,
    /// Its organization.
    pub org_id: String,
    /// As chosen at its creation; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_usage_restrictions: Option<RegionUsageRestrictions>,
    /// As given at its creation.
    pub tags: Vec<ResourceTag>,
    /// As said at its creation, and without effect: there are no alerts.
    pub with_default_alerts_settings: bool,
}

/// In which regions a group's clusters may be: kept, and without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RegionUsageRestrictions {
    /// Those of FedRAMP.
    CommercialFedrampRegionsOnly,
    /// Those of the government's cloud.
    GovRegionsOnly,
    /// All.
    None,
}

/// A key and a value that categorize a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceTag {
    /// The key.
    #[schema(min_length = 1, max_length = 255)]
    pub key: String,
    /// The value.
    #[schema(min_length = 1, max_length = 255)]
    pub value: String,
}

/// A group to make. The generated clients send a whole [`Group`]: what only the server sets is ignored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateGroup {
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub cluster_count: i64,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub created: String,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub id: String,
    /// Ignored.
    #[serde(default)]
    #[schema(read_only, required = false)]
    pub links: Vec<Link>,
    /// Its name, which no other group of the organization has.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// Its organization.
    #[schema(pattern = "^([a-f0-9]{24})$")]
    pub org_id: String,
    /// Kept and without effect.
    pub region_usage_restrictions: Option<RegionUsageRestrictions>,
    /// Kept and without effect.
    #[schema(max_items = 50)]
    pub tags: Option<Vec<ResourceTag>>,
    /// Kept and without effect.
    pub with_default_alerts_settings: Option<bool>,
}

/// A group's features, none of which there is here.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupSettings {
    /// Always false.
    pub is_collect_database_specifics_statistics_enabled: bool,
    /// Always false.
    pub is_data_explorer_enabled: bool,
    /// Always false.
    #[serde(rename = "isDataExplorerGenAIFeaturesEnabled")]
    pub is_data_explorer_gen_ai_features_enabled: bool,
    /// Always false.
    #[serde(rename = "isDataExplorerGenAISampleDocumentPassingEnabled")]
    pub is_data_explorer_gen_ai_sample_document_passing_enabled: bool,
    /// Always false.
    pub is_extended_storage_sizes_enabled: bool,
    /// Always false.
    pub is_performance_advisor_enabled: bool,
    /// Always false.
    pub is_realtime_performance_panel_enabled: bool,
    /// Always false.
    pub is_schema_advisor_enabled: bool,
}

/// Addresses of a group's clusters: those of destinations are their owners' and not known here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupIpAddresses {
    /// The group.
    pub group_id: String,
    /// By service.
    pub services: GroupServices,
}

/// Addresses by service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GroupServices {
    /// None.
    #[schema(value_type = Vec<Object>)]
    pub clusters: Vec<serde_json::Value>,
}

/// An organization's settings; none can be changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationSettings {
    /// Always false: a key without an access list works from everywhere.
    pub api_access_list_required: bool,
    /// Always false.
    #[serde(rename = "genAIFeaturesEnabled")]
    pub gen_ai_features_enabled: bool,
    /// The longest life of a service account's secret.
    pub max_service_account_secret_validity_in_hours: i32,
    /// Always false: there are keys and service accounts only.
    pub multi_factor_auth_required: bool,
    /// Always true: no vendor can reach this server.
    pub restrict_employee_access: bool,
}

/// A user, team or limit of a group: there are none.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Absent {}

/// A destination as Atlas's clients read a cluster.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterDescription {
    /// `REPLICASET`.
    pub cluster_type: String,
    /// Its addresses, without credentials.
    pub connection_strings: ConnectionStrings,
    /// Its group.
    pub group_id: String,
    /// Its id.
    pub id: String,
    /// Related addresses.
    pub links: Vec<Link>,
    /// As an agent saw it last; null until one has connected to it.
    #[serde(rename = "mongoDBVersion")]
    pub mongo_db_version: Option<String>,
    /// Its name.
    pub name: String,
    /// None.
    #[schema(value_type = Vec<Object>)]
    pub replication_specs: Vec<serde_json::Value>,
    /// `IDLE`.
    pub state_name: String,
}

/// A cluster's addresses.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStrings {
    /// With the members' addresses, and `replicaSet` once its name is known; absent where only a DNS seed list is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub standard: Option<String>,
    /// With a DNS seed list, where it was registered with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub standard_srv: Option<String>,
}

/// A key for digest authentication.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyUserDetails {
    /// What it is for.
    pub desc: String,
    /// Its id.
    pub id: String,
    /// Related addresses.
    pub links: Vec<Link>,
    /// Whole only in the answer that made it.
    pub private_key: String,
    /// Its public half.
    pub public_key: String,
    /// What it may do.
    pub roles: Vec<Role>,
}

/// A key to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 250)]
    pub desc: String,
    /// What it may do.
    #[schema(min_items = 1)]
    pub roles: Vec<OrgRoleName>,
}

/// A key to make that is for one group.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateGroupApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 250)]
    pub desc: String,
    /// What it may do in the group.
    #[schema(min_items = 1)]
    pub roles: Vec<GroupRoleName>,
}

/// What to change of a key. Roles that are given replace those that it has in the organization; those in groups stay.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpdateApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 250)]
    pub desc: Option<String>,
    /// What it may do.
    #[schema(min_items = 1)]
    pub roles: Option<Vec<OrgRoleName>>,
}

/// What to change of a group's key. Roles that are given replace those that it has in the group.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpdateGroupApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 250)]
    pub desc: Option<String>,
    /// What it may do in the group.
    #[schema(min_items = 1)]
    pub roles: Option<Vec<GroupRoleName>>,
}

/// What a key is to be allowed in a group.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GroupRoleAssignment {
    /// Instead of what it was allowed there.
    #[schema(min_items = 1)]
    pub roles: Vec<GroupRoleName>,
}

/// A service account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Its id: what the client authenticates as.
    pub client_id: String,
    /// When it was made.
    pub created_at: String,
    /// What it is for.
    pub description: String,
    /// Its name.
    pub name: String,
    /// Organization roles.
    pub roles: Vec<RoleName>,
    /// Its secrets.
    pub secrets: Vec<ServiceAccountSecret>,
}

/// A service account's secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountSecret {
    /// When it was made.
    pub created_at: String,
    /// Until when it is accepted.
    pub expires_at: String,
    /// Its id.
    pub id: String,
    /// When it was last exchanged for a token; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub last_used_at: Option<String>,
    /// What it is recognized by: its first and last characters. Absent for secrets of versions that didn't keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub masked_secret_value: Option<String>,
    /// Only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A secret to make. The account's others end within a week of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateServiceAccountSecret {
    /// How long it is accepted.
    #[schema(minimum = 8, maximum = 8760)]
    pub secret_expires_after_hours: i32,
}

/// What to change of a service account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpdateServiceAccount {
    /// What it is for.
    #[schema(min_length = 1, max_length = 250)]
    pub description: Option<String>,
    /// Its name.
    #[schema(min_length = 1, max_length = 64)]
    pub name: Option<String>,
    /// Organization roles, instead of those that it has.
    #[schema(min_items = 1)]
    pub roles: Option<Vec<OrgRoleName>>,
}

/// A service account to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateServiceAccount {
    /// What it is for.
    #[schema(min_length = 1, max_length = 250)]
    pub description: String,
    /// Its name.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// Organization roles.
    #[schema(min_items = 1)]
    pub roles: Vec<OrgRoleName>,
    /// How long its secret is accepted.
    #[schema(minimum = 8, maximum = 8760)]
    pub secret_expires_after_hours: i32,
}
