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

/// An address or a block from which a key works: one of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(min_properties = 1, max_properties = 1)]
pub struct AccessListEntry {
    /// A block.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = CidrBlock, required = false)]
    pub cidr_block: Option<String>,
    /// An address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = IpAddress, required = false)]
    pub ip_address: Option<String>,
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
    /// None.
    #[schema(value_type = Vec<Object>)]
    pub tags: Vec<serde_json::Value>,
    /// Never: there are no alerts.
    pub with_default_alerts_settings: bool,
}

/// A group to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateGroup {
    /// Its name, which no other group of the organization has.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// Its organization.
    #[schema(pattern = "^([a-f0-9]{24})$")]
    pub org_id: String,
    /// Accepted and without effect.
    pub region_usage_restrictions: Option<String>,
    /// Accepted and without effect.
    #[schema(value_type = Option<Vec<Object>>)]
    pub tags: Option<Vec<serde_json::Value>>,
    /// Accepted and without effect.
    pub with_default_alerts_settings: Option<bool>,
}

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
    /// Not known: the control plane never connects to it.
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
pub struct ConnectionStrings {
    /// The standard one.
    pub standard: String,
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
    /// Only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
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
