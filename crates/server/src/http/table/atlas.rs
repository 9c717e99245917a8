//! Operations of the Atlas Administration API.

use super::{GROUP_OWNER, GROUP_READER, MEMBER, OWNER, unset_what_is_empty};
use crate::{
    App,
    handlers::atlas::{
        account, api_keys, available_projects, clusters, link_tokens, live_migrations, oauth, service_accounts,
        surroundings, telemetry, validations,
    },
    http::{
        route::{Handler, Route},
        shape::Answer,
    },
};
use axum::{
    Router,
    http::{Method, StatusCode},
    routing::post,
};
use limosa_model::{
    ApiVersion,
    wire::{
        account::{
            Absent, AccessListEntry, AccessListRequest, ApiKeyUserDetails, AtlasOrganization, ClusterDescription,
            CreateApiKey, CreateGroup, CreateGroupApiKey, CreateServiceAccount, CreateServiceAccountSecret, Group,
            GroupIpAddresses, GroupRoleAssignment, GroupSettings, OrganizationSettings, ServiceAccount,
            ServiceAccountSecret, SystemStatus, UpdateApiKey, UpdateGroupApiKey, UpdateServiceAccount,
        },
        live_migration::{
            LiveImportAvailableProject, LiveImportValidation, LiveMigrationRequest, LiveMigrationRequest20240530,
            LiveMigrationResponse, TargetOrg, TargetOrgRequest,
        },
    },
};
use std::sync::Arc;

const V1: &[ApiVersion] = &[ApiVersion::V2023_01_01];
const V1_AND_DROP: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2024_05_30];
const CLUSTERS: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2023_02_01, ApiVersion::V2024_08_05];
const SERVICE_ACCOUNTS: &[ApiVersion] = &[ApiVersion::V2024_08_05];
const USERS: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2025_02_19];

const MIGRATIONS: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations";
const MIGRATION: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}";
const CUTOVER: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover";
const VALIDATE: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations/validate";
const VALIDATION: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations/validate/{validationId}";
const LINK: &str = "/api/atlas/v2/orgs/{orgId}/liveMigrations/linkTokens";
const PROJECTS: &str = "/api/atlas/v2/orgs/{orgId}/liveMigrations/availableProjects";
const KEYS: &str = "/api/atlas/v2/orgs/{orgId}/apiKeys";
const KEY: &str = "/api/atlas/v2/orgs/{orgId}/apiKeys/{apiUserId}";
const GROUP_KEYS: &str = "/api/atlas/v2/groups/{groupId}/apiKeys";
const GROUP_KEY: &str = "/api/atlas/v2/groups/{groupId}/apiKeys/{apiUserId}";
const ACCESS: &str = "/api/atlas/v2/orgs/{orgId}/apiKeys/{apiUserId}/accessList";
const ACCESS_ENTRY: &str = "/api/atlas/v2/orgs/{orgId}/apiKeys/{apiUserId}/accessList/{ipAddress}";
const ACCOUNTS: &str = "/api/atlas/v2/orgs/{orgId}/serviceAccounts";
const ACCOUNT: &str = "/api/atlas/v2/orgs/{orgId}/serviceAccounts/{clientId}";
const SECRETS: &str = "/api/atlas/v2/orgs/{orgId}/serviceAccounts/{clientId}/secrets";
const SECRET: &str = "/api/atlas/v2/orgs/{orgId}/serviceAccounts/{clientId}/secrets/{secretId}";

/// All of them.
pub(super) fn routes() -> impl Iterator<Item = Route> {
    let migrations = migrations().into_iter().map(|route| route.tag("Cloud Migration Service"));
    migrations.chain(administration()).chain(surroundings()).chain(keys())
}

/// Bearer tokens: their callers prove by a body who they are.
pub(crate) fn tokens() -> Router<Arc<App>> {
    Router::new().route("/api/oauth/token", post(oauth::token)).route("/api/oauth/revoke", post(oauth::revoke))
}

/// What Atlas's clients report of themselves, known or not.
pub(crate) fn telemetry() -> Router<Arc<App>> {
    Router::new()
        .route("/api/private/v1.0/telemetry/events", post(telemetry::ignore))
        .route("/api/private/unauth/telemetry/events", post(telemetry::ignore))
}

/// The Cloud Migration Service.
fn migrations() -> Vec<Route> {
    vec![
        Route::new(Method::POST, MIGRATIONS, "createGroupLiveMigration", live_migrations::create)
            .summary("Create a migration")
            .versions(V1_AND_DROP)
            .role(OWNER)
            .body_since::<LiveMigrationRequest>(ApiVersion::V2023_01_01)
            .body_since::<LiveMigrationRequest20240530>(ApiVersion::V2024_05_30)
            .normalize(unset_what_is_empty)
            .responds(Answer::one::<LiveMigrationResponse>(StatusCode::CREATED)),
        Route::new(Method::GET, MIGRATION, "getGroupLiveMigration", live_migrations::get)
            .summary("Return one migration")
            .versions(V1)
            .role(MEMBER)
            .responds(Answer::one::<LiveMigrationResponse>(StatusCode::OK)),
        Route::new(Method::PUT, CUTOVER, "cutoverGroupLiveMigration", live_migrations::cut_over)
            .summary("Cut over to the destination")
            .versions(V1)
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::ACCEPTED)),
        Route::new(Method::POST, VALIDATE, "validateGroupLiveMigrations", validations::create)
            .summary("Ask whether a migration could start")
            .versions(V1_AND_DROP)
            .role(OWNER)
            .body_since::<LiveMigrationRequest>(ApiVersion::V2023_01_01)
            .body_since::<LiveMigrationRequest20240530>(ApiVersion::V2024_05_30)
            .normalize(unset_what_is_empty)
            .responds(Answer::one::<LiveImportValidation>(StatusCode::OK)),
        Route::new(Method::GET, VALIDATION, "getGroupLiveMigrationValidateStatus", validations::get)
            .summary("Return one validation")
            .versions(V1)
            .role(OWNER)
            .responds(Answer::one::<LiveImportValidation>(StatusCode::OK)),
        Route::new(Method::POST, LINK, "createOrgLiveMigrationLinkToken", link_tokens::create)
            .summary("Create the organization's link token")
            .versions(V1)
            .role(OWNER)
            .body::<TargetOrgRequest>()
            .responds(Answer::one::<TargetOrg>(StatusCode::CREATED)),
        Route::new(Method::DELETE, LINK, "deleteOrgLiveMigrationLinkTokens", link_tokens::delete)
            .summary("Revoke the organization's link token")
            .versions(V1)
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, PROJECTS, "listOrgLiveMigrationAvailableProjects", available_projects::list)
            .summary("Return what agents announce")
            .versions(V1)
            .role(OWNER)
            .responds(Answer::array::<LiveImportAvailableProject>(StatusCode::OK)),
    ]
}

/// Organizations, groups and clusters, as far as a migration needs them.
fn administration() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/api/atlas/v2", "getSystemStatus", account::who_am_i)
            .summary("Return who asks")
            .versions(V1)
            .responds(Answer::one::<SystemStatus>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/orgs", "listOrgs", account::orgs)
            .summary("Return the caller's organization")
            .versions(V1)
            .role(MEMBER)
            .query(&["name"])
            .responds(Answer::page::<AtlasOrganization>()),
        Route::new(Method::GET, "/api/atlas/v2/orgs/{orgId}", "getOrg", account::org)
            .summary("Return one organization")
            .versions(V1)
            .role(MEMBER)
            .responds(Answer::one::<AtlasOrganization>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/groups", "listGroups", account::groups)
            .summary("Return the groups that the caller may read")
            .versions(V1)
            .role(GROUP_READER)
            .responds(Answer::page::<Group>()),
        Route::new(Method::POST, "/api/atlas/v2/groups", "createGroup", account::create_group)
            .summary("Create a group")
            .versions(V1)
            .role("Organization Project Creator")
            .body::<CreateGroup>()
            .query(&["projectOwnerId"])
            .responds(Answer::one::<Group>(StatusCode::CREATED)),
        Route::new(Method::GET, "/api/atlas/v2/orgs/{orgId}/groups", "getOrgGroups", account::org_groups)
            .summary("Return the organization's groups")
            .versions(V1)
            .role(MEMBER)
            .query(&["name"])
            .responds(Answer::page::<Group>()),
        Route::new(Method::GET, "/api/atlas/v2/groups/{groupId}", "getGroup", account::group)
            .summary("Return one group")
            .versions(V1)
            .role(GROUP_READER)
            .responds(Answer::one::<Group>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/groups/byName/{groupName}", "getGroupByName", account::group_by_name)
            .summary("Return one group by its name")
            .versions(V1)
            .role(GROUP_READER)
            .responds(Answer::one::<Group>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/groups/{groupId}/clusters", "listGroupClusters", clusters::list)
            .summary("Return the group's destinations as clusters")
            .versions(CLUSTERS)
            .role(GROUP_READER)
            .responds(Answer::page::<ClusterDescription>()),
        Route::new(
            Method::GET,
            "/api/atlas/v2/groups/{groupId}/clusters/{clusterName}",
            "getGroupCluster",
            clusters::get,
        )
        .summary("Return one destination as a cluster")
        .versions(CLUSTERS)
        .role(GROUP_READER)
        .responds(Answer::one::<ClusterDescription>(StatusCode::OK)),
    ]
}

/// What else Terraform's data sources and the command line read of groups and organizations.
fn surroundings() -> Vec<Route> {
    let get = |path, operation, handler: Handler, about| {
        Route::new(Method::GET, path, operation, handler).summary(about).versions(V1)
    };
    vec![
        get("/api/atlas/v2/groups/{groupId}/teams", "listGroupTeams", surroundings::none_in_group, "Return no teams")
            .role(GROUP_READER)
            .responds(Answer::page::<Absent>()),
        get("/api/atlas/v2/groups/{groupId}/users", "listGroupUsers", surroundings::none_in_group, "Return no users")
            .versions(USERS)
            .role(GROUP_READER)
            .responds(Answer::page::<Absent>()),
        get("/api/atlas/v2/groups/{groupId}/limits", "listGroupLimits", surroundings::limits, "Return no limits")
            .role(GROUP_READER)
            .responds(Answer::array::<Absent>(StatusCode::OK)),
        get(
            "/api/atlas/v2/groups/{groupId}/settings",
            "getGroupSettings",
            surroundings::group_settings,
            "Return the group's settings",
        )
        .role(GROUP_READER)
        .responds(Answer::one::<GroupSettings>(StatusCode::OK)),
        get(
            "/api/atlas/v2/groups/{groupId}/ipAddresses",
            "getGroupIpAddresses",
            surroundings::ip_addresses,
            "Return the group's addresses",
        )
        .role(GROUP_READER)
        .responds(Answer::one::<GroupIpAddresses>(StatusCode::OK)),
        get("/api/atlas/v2/orgs/{orgId}/users", "listOrgUsers", surroundings::none_in_org, "Return no users")
            .versions(USERS)
            .role(MEMBER)
            .responds(Answer::page::<Absent>()),
        get(
            "/api/atlas/v2/orgs/{orgId}/settings",
            "getOrgSettings",
            surroundings::org_settings,
            "Return the organization's settings",
        )
        .role(MEMBER)
        .responds(Answer::one::<OrganizationSettings>(StatusCode::OK)),
    ]
}

/// Keys and service accounts.
fn keys() -> Vec<Route> {
    vec![
        Route::new(Method::GET, KEYS, "listOrgApiKeys", api_keys::list)
            .summary("Return the organization's API keys")
            .versions(V1)
            .role(MEMBER)
            .responds(Answer::page::<ApiKeyUserDetails>()),
        Route::new(Method::POST, KEYS, "createOrgApiKey", api_keys::create)
            .summary("Create an API key")
            .versions(V1)
            .role(OWNER)
            .body::<CreateApiKey>()
            .responds(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::GET, KEY, "getOrgApiKey", api_keys::get)
            .summary("Return one API key")
            .versions(V1)
            .role(MEMBER)
            .responds(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::PATCH, KEY, "updateOrgApiKey", api_keys::update)
            .summary("Change an API key's description or roles in the organization")
            .versions(V1)
            .role(OWNER)
            .body::<UpdateApiKey>()
            .responds(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::DELETE, KEY, "deleteOrgApiKey", api_keys::delete)
            .summary("Revoke an API key")
            .versions(V1)
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, GROUP_KEYS, "listGroupApiKeys", api_keys::list_of_group)
            .summary("Return the API keys that have a role in the group")
            .versions(V1)
            .role(GROUP_READER)
            .responds(Answer::page::<ApiKeyUserDetails>()),
        Route::new(Method::POST, GROUP_KEYS, "createGroupApiKey", api_keys::create_in_group)
            .summary("Create an API key for the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .body::<CreateGroupApiKey>()
            .responds(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::POST, GROUP_KEY, "addGroupApiKey", api_keys::assign_in_group)
            .summary("Give an API key of the organization roles in the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .body_list::<GroupRoleAssignment>()
            .responds(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::PATCH, GROUP_KEY, "updateGroupApiKey", api_keys::update_in_group)
            .summary("Change an API key's description or roles in the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .body::<UpdateGroupApiKey>()
            .responds(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::DELETE, GROUP_KEY, "removeGroupApiKey", api_keys::remove_from_group)
            .summary("Take an API key out of the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, ACCESS, "listOrgAccessEntries", api_keys::access_list)
            .summary("Return from where an API key works")
            .versions(V1)
            .role(MEMBER)
            .responds(Answer::page::<AccessListEntry>()),
        Route::new(Method::POST, ACCESS, "createOrgAccessEntry", api_keys::add_access)
            .summary("Add to the addresses from which an API key works")
            .versions(V1)
            .role(OWNER)
            .body_list::<AccessListRequest>()
            .responds(Answer::page::<AccessListEntry>()),
        Route::new(Method::DELETE, ACCESS_ENTRY, "deleteOrgAccessEntry", api_keys::remove_access)
            .summary("Remove one of the addresses from which an API key works")
            .versions(V1)
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, ACCOUNTS, "listOrgServiceAccounts", service_accounts::list)
            .summary("Return the organization's service accounts")
            .versions(SERVICE_ACCOUNTS)
            .role(MEMBER)
            .responds(Answer::page::<ServiceAccount>()),
        Route::new(Method::POST, ACCOUNTS, "createOrgServiceAccount", service_accounts::create)
            .summary("Create a service account")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .body::<CreateServiceAccount>()
            .responds(Answer::one::<ServiceAccount>(StatusCode::CREATED)),
        Route::new(Method::GET, ACCOUNT, "getOrgServiceAccount", service_accounts::get)
            .summary("Return one service account")
            .versions(SERVICE_ACCOUNTS)
            .role(MEMBER)
            .responds(Answer::one::<ServiceAccount>(StatusCode::OK)),
        Route::new(Method::PATCH, ACCOUNT, "updateOrgServiceAccount", service_accounts::update)
            .summary("Change a service account's name, description or roles")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .body::<UpdateServiceAccount>()
            .responds(Answer::one::<ServiceAccount>(StatusCode::OK)),
        Route::new(Method::POST, SECRETS, "createOrgServiceAccountSecret", service_accounts::create_secret)
            .summary("Create another secret; those before it end within a week")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .body::<CreateServiceAccountSecret>()
            .responds(Answer::one::<ServiceAccountSecret>(StatusCode::CREATED)),
        Route::new(Method::DELETE, SECRET, "deleteOrgServiceAccountSecret", service_accounts::delete_secret)
            .summary("Revoke a secret and the tokens that it was exchanged for")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::DELETE, ACCOUNT, "deleteOrgServiceAccount", service_accounts::delete)
            .summary("Revoke a service account and its tokens")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
    ]
}
