//! Every route, once: its path, versions, roles, bodies and handler. The API document and the router are both made of
//! this table.

use crate::{
    auth::Principal,
    handlers::{
        account, agents, audit, clusters, cutover, events, jobs, keys, link_tokens, live_migrations, reports,
        service_accounts, surroundings, validations,
    },
    http::{
        route::{Handler, Route},
        shape::{Answer, Shape},
    },
};
use axum::http::{Method, StatusCode};
use limosa_model::{
    ApiVersion, Limits,
    cutover::{CutoverOptions, Rehearsal},
    protocol,
    report::MigrationReport,
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
        own::{
            AuditEntry, CancelRequest, Changes, Empty, ExtendRequest, MigrationDetail, MigrationEvent,
            MigrationRequest, MigrationSample, MigrationValidation, RegisterCluster, RegisteredCluster, ResumeRequest,
            RotateLinkToken,
        },
    },
};
use std::sync::OnceLock;

pub(crate) const V1: &[ApiVersion] = &[ApiVersion::V2023_01_01];
const V1_AND_DROP: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2024_05_30];
const CLUSTERS: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2023_02_01, ApiVersion::V2024_08_05];
const SERVICE_ACCOUNTS: &[ApiVersion] = &[ApiVersion::V2024_08_05];
const USERS: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2025_02_19];

const JOBS: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations";
const JOB: &str = "/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}";
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
const OWN_CLUSTERS: &str = "/api/limosa/v1/groups/{groupId}/clusters";
const OWN_CLUSTER: &str = "/api/limosa/v1/groups/{groupId}/clusters/{clusterName}";
const OWN_JOBS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations";
const OWN_JOB: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}";
const OWN_VALIDATE: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/validate";
const OWN_VALIDATION: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/validate/{validationId}";
const OWN_EVENTS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/events";
const OWN_HISTORY: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/history";
const OWN_PAUSE: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/pause";
const OWN_RESUME: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/resume";
const OWN_CANCEL: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cancel";
const OWN_OPTIONS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover/options";
const OWN_REHEARSAL: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover/rehearsal";
const OWN_REPORT: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/report";
const OWN_ABORT: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover/abort";
const OWN_EXTEND: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/extend";
const OWN_LIMITS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/limits";
const SECRETS: &str = "/api/atlas/v2/orgs/{orgId}/serviceAccounts/{clientId}/secrets";
const SECRET: &str = "/api/atlas/v2/orgs/{orgId}/serviceAccounts/{clientId}/secrets/{secretId}";
const OWN_LINK: &str = "/api/limosa/v1/orgs/{orgId}/linkToken";
const OWN_LINK_ROTATE: &str = "/api/limosa/v1/orgs/{orgId}/linkToken/rotate";
const AUDIT: &str = "/api/limosa/v1/orgs/{orgId}/audit";

const OWNER: &str = "Organization Owner";
const MEMBER: &str = "Organization Member";
const GROUP_OWNER: &str = "Project Owner";
const GROUP_READER: &str = "Project Read Only";

/// All operations.
pub(crate) fn routes() -> &'static [Route] {
    static ROUTES: OnceLock<Vec<Route>> = OnceLock::new();
    ROUTES.get_or_init(|| {
        [migrations(), around(), surroundings(), keys(), own(), agents()].into_iter().flatten().collect()
    })
}

/// The Cloud Migration Service.
fn migrations() -> Vec<Route> {
    vec![
        Route::new(Method::POST, JOBS, "createGroupLiveMigration", live_migrations::create)
            .about("Create a migration")
            .versions(V1_AND_DROP)
            .role(OWNER)
            .takes_from::<LiveMigrationRequest>(ApiVersion::V2023_01_01)
            .takes_from::<LiveMigrationRequest20240530>(ApiVersion::V2024_05_30)
            .gives(Answer::one::<LiveMigrationResponse>(StatusCode::CREATED)),
        Route::new(Method::GET, JOB, "getGroupLiveMigration", live_migrations::get)
            .about("Return one migration")
            .versions(V1)
            .role(MEMBER)
            .gives(Answer::one::<LiveMigrationResponse>(StatusCode::OK)),
        Route::new(Method::PUT, CUTOVER, "cutoverGroupLiveMigration", live_migrations::cut_over)
            .about("Cut over to the destination")
            .versions(V1)
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::ACCEPTED)),
        Route::new(Method::POST, VALIDATE, "validateGroupLiveMigrations", validations::create)
            .about("Ask whether a migration could start")
            .versions(V1_AND_DROP)
            .role(OWNER)
            .takes_from::<LiveMigrationRequest>(ApiVersion::V2023_01_01)
            .takes_from::<LiveMigrationRequest20240530>(ApiVersion::V2024_05_30)
            .gives(Answer::one::<LiveImportValidation>(StatusCode::OK)),
        Route::new(Method::GET, VALIDATION, "getGroupLiveMigrationValidateStatus", validations::get)
            .about("Return one validation")
            .versions(V1)
            .role(OWNER)
            .gives(Answer::one::<LiveImportValidation>(StatusCode::OK)),
        Route::new(Method::POST, LINK, "createOrgLiveMigrationLinkToken", link_tokens::create)
            .about("Create the organization's link token")
            .versions(V1)
            .role(OWNER)
            .takes_body::<TargetOrgRequest>()
            .gives(Answer::one::<TargetOrg>(StatusCode::CREATED)),
        Route::new(Method::DELETE, LINK, "deleteOrgLiveMigrationLinkTokens", link_tokens::delete)
            .about("Revoke the organization's link token")
            .versions(V1)
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, PROJECTS, "listOrgLiveMigrationAvailableProjects", agents::available_projects)
            .about("Return what agents announce")
            .versions(V1)
            .role(OWNER)
            .gives(Answer::array::<LiveImportAvailableProject>(StatusCode::OK)),
    ]
}

/// What clients ask for around a migration.
fn around() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/api/atlas/v2", "getSystemStatus", account::who_am_i)
            .about("Return who asks")
            .versions(V1)
            .gives(Answer::one::<SystemStatus>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/orgs", "listOrgs", account::orgs)
            .about("Return the caller's organization")
            .versions(V1)
            .role(MEMBER)
            .query(&["name"])
            .gives(Answer::page::<AtlasOrganization>()),
        Route::new(Method::GET, "/api/atlas/v2/orgs/{orgId}", "getOrg", account::org)
            .about("Return one organization")
            .versions(V1)
            .role(MEMBER)
            .gives(Answer::one::<AtlasOrganization>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/groups", "listGroups", account::groups)
            .about("Return the groups that the caller may read")
            .versions(V1)
            .role(GROUP_READER)
            .gives(Answer::page::<Group>()),
        Route::new(Method::POST, "/api/atlas/v2/groups", "createGroup", account::create_group)
            .about("Create a group")
            .versions(V1)
            .role("Organization Project Creator")
            .takes_body::<CreateGroup>()
            .query(&["projectOwnerId"])
            .gives(Answer::one::<Group>(StatusCode::CREATED)),
        Route::new(Method::GET, "/api/atlas/v2/orgs/{orgId}/groups", "getOrgGroups", account::org_groups)
            .about("Return the organization's groups")
            .versions(V1)
            .role(MEMBER)
            .query(&["name"])
            .gives(Answer::page::<Group>()),
        Route::new(Method::GET, "/api/atlas/v2/groups/{groupId}", "getGroup", account::group)
            .about("Return one group")
            .versions(V1)
            .role(GROUP_READER)
            .gives(Answer::one::<Group>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/groups/byName/{groupName}", "getGroupByName", account::group_by_name)
            .about("Return one group by its name")
            .versions(V1)
            .role(GROUP_READER)
            .gives(Answer::one::<Group>(StatusCode::OK)),
        Route::new(Method::GET, "/api/atlas/v2/groups/{groupId}/clusters", "listGroupClusters", clusters::described)
            .about("Return the group's destinations as clusters")
            .versions(CLUSTERS)
            .role(GROUP_READER)
            .gives(Answer::page::<ClusterDescription>()),
        Route::new(
            Method::GET,
            "/api/atlas/v2/groups/{groupId}/clusters/{clusterName}",
            "getGroupCluster",
            clusters::describe,
        )
        .about("Return one destination as a cluster")
        .versions(CLUSTERS)
        .role(GROUP_READER)
        .gives(Answer::one::<ClusterDescription>(StatusCode::OK)),
    ]
}

/// What Terraform's data sources and the command line read of groups and organizations.
fn surroundings() -> Vec<Route> {
    let get = |path, operation, handler: Handler, about| {
        Route::new(Method::GET, path, operation, handler).about(about).versions(V1)
    };
    vec![
        get("/api/atlas/v2/groups/{groupId}/teams", "listGroupTeams", surroundings::none_in_group, "Return no teams")
            .role(GROUP_READER)
            .gives(Answer::page::<Absent>()),
        get("/api/atlas/v2/groups/{groupId}/users", "listGroupUsers", surroundings::none_in_group, "Return no users")
            .versions(USERS)
            .role(GROUP_READER)
            .gives(Answer::page::<Absent>()),
        get("/api/atlas/v2/groups/{groupId}/limits", "listGroupLimits", surroundings::limits, "Return no limits")
            .role(GROUP_READER)
            .gives(Answer::array::<Absent>(StatusCode::OK)),
        get(
            "/api/atlas/v2/groups/{groupId}/settings",
            "getGroupSettings",
            surroundings::group_settings,
            "Return the group's settings",
        )
        .role(GROUP_READER)
        .gives(Answer::one::<GroupSettings>(StatusCode::OK)),
        get(
            "/api/atlas/v2/groups/{groupId}/ipAddresses",
            "getGroupIpAddresses",
            surroundings::ip_addresses,
            "Return the group's addresses",
        )
        .role(GROUP_READER)
        .gives(Answer::one::<GroupIpAddresses>(StatusCode::OK)),
        get("/api/atlas/v2/orgs/{orgId}/users", "listOrgUsers", surroundings::none_in_org, "Return no users")
            .versions(USERS)
            .role(MEMBER)
            .gives(Answer::page::<Absent>()),
        get(
            "/api/atlas/v2/orgs/{orgId}/settings",
            "getOrgSettings",
            surroundings::org_settings,
            "Return the organization's settings",
        )
        .role(MEMBER)
        .gives(Answer::one::<OrganizationSettings>(StatusCode::OK)),
    ]
}

/// Keys and service accounts.
fn keys() -> Vec<Route> {
    vec![
        Route::new(Method::GET, KEYS, "listOrgApiKeys", keys::list)
            .about("Return the organization's API keys")
            .versions(V1)
            .role(MEMBER)
            .gives(Answer::page::<ApiKeyUserDetails>()),
        Route::new(Method::POST, KEYS, "createOrgApiKey", keys::create)
            .about("Create an API key")
            .versions(V1)
            .role(OWNER)
            .takes_body::<CreateApiKey>()
            .gives(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::GET, KEY, "getOrgApiKey", keys::get)
            .about("Return one API key")
            .versions(V1)
            .role(MEMBER)
            .gives(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::PATCH, KEY, "updateOrgApiKey", keys::update)
            .about("Change an API key's description or roles in the organization")
            .versions(V1)
            .role(OWNER)
            .takes_body::<UpdateApiKey>()
            .gives(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::DELETE, KEY, "deleteOrgApiKey", keys::delete)
            .about("Revoke an API key")
            .versions(V1)
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, GROUP_KEYS, "listGroupApiKeys", keys::list_of_group)
            .about("Return the API keys that have a role in the group")
            .versions(V1)
            .role(GROUP_READER)
            .gives(Answer::page::<ApiKeyUserDetails>()),
        Route::new(Method::POST, GROUP_KEYS, "createGroupApiKey", keys::create_in_group)
            .about("Create an API key for the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .takes_body::<CreateGroupApiKey>()
            .gives(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::POST, GROUP_KEY, "addGroupApiKey", keys::assign_in_group)
            .about("Give an API key of the organization roles in the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .takes_list::<GroupRoleAssignment>()
            .gives(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::PATCH, GROUP_KEY, "updateGroupApiKey", keys::update_in_group)
            .about("Change an API key's description or roles in the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .takes_body::<UpdateGroupApiKey>()
            .gives(Answer::one::<ApiKeyUserDetails>(StatusCode::OK)),
        Route::new(Method::DELETE, GROUP_KEY, "removeGroupApiKey", keys::remove_from_group)
            .about("Take an API key out of the group")
            .versions(V1)
            .role(GROUP_OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, ACCESS, "listOrgAccessEntries", keys::access_list)
            .about("Return from where an API key works")
            .versions(V1)
            .role(MEMBER)
            .gives(Answer::page::<AccessListEntry>()),
        Route::new(Method::POST, ACCESS, "createOrgAccessEntry", keys::add_access)
            .about("Add to the addresses from which an API key works")
            .versions(V1)
            .role(OWNER)
            .takes_list::<AccessListRequest>()
            .gives(Answer::page::<AccessListEntry>()),
        Route::new(Method::DELETE, ACCESS_ENTRY, "deleteOrgAccessEntry", keys::remove_access)
            .about("Remove one of the addresses from which an API key works")
            .versions(V1)
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, ACCOUNTS, "listOrgServiceAccounts", service_accounts::list)
            .about("Return the organization's service accounts")
            .versions(SERVICE_ACCOUNTS)
            .role(MEMBER)
            .gives(Answer::page::<ServiceAccount>()),
        Route::new(Method::POST, ACCOUNTS, "createOrgServiceAccount", service_accounts::create)
            .about("Create a service account")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .takes_body::<CreateServiceAccount>()
            .gives(Answer::one::<ServiceAccount>(StatusCode::CREATED)),
        Route::new(Method::GET, ACCOUNT, "getOrgServiceAccount", service_accounts::get)
            .about("Return one service account")
            .versions(SERVICE_ACCOUNTS)
            .role(MEMBER)
            .gives(Answer::one::<ServiceAccount>(StatusCode::OK)),
        Route::new(Method::PATCH, ACCOUNT, "updateOrgServiceAccount", service_accounts::update)
            .about("Change a service account's name, description or roles")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .takes_body::<UpdateServiceAccount>()
            .gives(Answer::one::<ServiceAccount>(StatusCode::OK)),
        Route::new(Method::POST, SECRETS, "createOrgServiceAccountSecret", service_accounts::create_secret)
            .about("Create another secret; those before it end within a week")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .takes_body::<CreateServiceAccountSecret>()
            .gives(Answer::one::<ServiceAccountSecret>(StatusCode::CREATED)),
        Route::new(Method::DELETE, SECRET, "deleteOrgServiceAccountSecret", service_accounts::delete_secret)
            .about("Revoke a secret and the tokens that it was exchanged for")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::DELETE, ACCOUNT, "deleteOrgServiceAccount", service_accounts::delete)
            .about("Revoke a service account and its tokens")
            .versions(SERVICE_ACCOUNTS)
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
    ]
}

/// What Atlas's API lacks.
fn own() -> Vec<Route> {
    let steer = |path, operation, handler: Handler| {
        Route::new(Method::POST, path, operation, handler)
            .role(GROUP_OWNER)
            .gives(Answer::one::<MigrationDetail>(StatusCode::OK))
    };
    vec![
        Route::new(Method::GET, OWN_CLUSTERS, "listClusters", clusters::list)
            .about("Return the registered destinations")
            .role(GROUP_READER)
            .gives(Answer::page::<RegisteredCluster>()),
        Route::new(Method::POST, OWN_CLUSTERS, "registerCluster", clusters::register)
            .about("Register a destination, or change its URIs")
            .role(OWNER)
            .takes_body::<RegisterCluster>()
            .gives(Answer::one::<RegisteredCluster>(StatusCode::CREATED)),
        Route::new(Method::DELETE, OWN_CLUSTER, "deleteCluster", clusters::delete)
            .about("Forget a destination")
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, OWN_JOBS, "listLiveMigrations", jobs::list)
            .about("Return the group's migrations, newest first")
            .role(MEMBER)
            .query(&["phase", "status"])
            .gives(Answer::page::<MigrationDetail>()),
        Route::new(Method::POST, OWN_JOBS, "createLiveMigration", jobs::create)
            .about("Create a migration of chosen namespaces")
            .role(OWNER)
            .takes_body::<MigrationRequest>()
            .gives(Answer::one::<MigrationDetail>(StatusCode::CREATED)),
        Route::new(Method::POST, OWN_VALIDATE, "validateLiveMigration", validations::create_own)
            .about("Ask whether a migration of chosen namespaces could start")
            .role(OWNER)
            .takes_body::<MigrationRequest>()
            .gives(Answer::one::<MigrationValidation>(StatusCode::OK)),
        Route::new(Method::GET, OWN_VALIDATION, "getLiveMigrationValidation", validations::get_own)
            .about("Return one validation with all its findings")
            .role(OWNER)
            .gives(Answer::one::<MigrationValidation>(StatusCode::OK)),
        Route::new(Method::GET, OWN_JOB, "getLiveMigration", jobs::describe)
            .about("Return one migration in full")
            .role(MEMBER)
            .gives(Answer::one::<MigrationDetail>(StatusCode::OK)),
        Route {
            stream: Some(events::stream),
            ..Route::new(Method::GET, OWN_EVENTS, "listLiveMigrationEvents", events::list)
                .about("Return what happened to a migration, or follow it as text/event-stream")
                .role(MEMBER)
                .gives(Answer::page::<MigrationEvent>())
        },
        Route {
            stream: Some(events::stream_changes),
            ..Route::new(Method::GET, "/api/limosa/v1/changes", "getChanges", events::changes)
                .about("Return how often migrations were changed, or be woken by it as text/event-stream")
                .gives(Answer::one::<Changes>(StatusCode::OK))
        },
        Route::new(Method::GET, OWN_HISTORY, "listLiveMigrationHistory", jobs::history)
            .about("Return how far a migration was over time, oldest first")
            .role(MEMBER)
            .gives(Answer::array::<MigrationSample>(StatusCode::OK)),
        steer(OWN_PAUSE, "pauseLiveMigration", jobs::pause).about("Stop, to continue later").may_take::<Empty>(),
        steer(OWN_RESUME, "resumeLiveMigration", jobs::resume)
            .about("Continue after a pause or a failure")
            .may_take::<ResumeRequest>(),
        steer(OWN_CANCEL, "cancelLiveMigration", jobs::cancel).about("Give up").may_take::<CancelRequest>(),
        steer(OWN_EXTEND, "extendLiveMigration", jobs::extend)
            .about("Give more time for the cutover")
            .may_take::<ExtendRequest>(),
        steer(OWN_ABORT, "abortLiveMigrationCutover", jobs::abort_cutover)
            .about("End the cutover under way: back to ready")
            .may_take::<Empty>(),
        Route::new(Method::GET, OWN_OPTIONS, "getLiveMigrationCutoverOptions", cutover::options)
            .about("Return how it will be cut over")
            .role(MEMBER)
            .gives(Answer::one::<CutoverOptions>(StatusCode::OK)),
        Route::new(Method::PUT, OWN_OPTIONS, "setLiveMigrationCutoverOptions", cutover::choose)
            .about("Say how it will be cut over")
            .role(GROUP_OWNER)
            .takes_body::<CutoverOptions>()
            .gives(Answer::one::<CutoverOptions>(StatusCode::OK)),
        Route::new(Method::POST, OWN_REHEARSAL, "rehearseLiveMigrationCutover", cutover::rehearse)
            .about("Ask what a cutover would do and how long it would take; nothing is changed")
            .role(GROUP_OWNER)
            .may_take::<Empty>()
            .gives(Answer::one::<Rehearsal>(StatusCode::ACCEPTED)),
        Route::new(Method::GET, OWN_REHEARSAL, "getLiveMigrationCutoverRehearsal", cutover::rehearsal)
            .about("Return the newest rehearsal of the cutover")
            .role(MEMBER)
            .gives(Answer::one::<Rehearsal>(StatusCode::OK)),
        Route::new(Method::GET, OWN_REPORT, "getLiveMigrationReport", reports::get)
            .about("Return the report of a migration that is over")
            .role(MEMBER)
            .gives(Answer::one::<MigrationReport>(StatusCode::OK)),
        steer(OWN_LIMITS, "limitLiveMigration", jobs::limit)
            .about("Change how much it may take of its clusters; what is left out is as by default")
            .takes_body::<Limits>(),
        Route::new(Method::POST, OWN_LINK_ROTATE, "rotateLinkToken", link_tokens::rotate)
            .about("Replace the organization's link token, also while migrations run")
            .role(OWNER)
            .may_take::<RotateLinkToken>()
            .gives(Answer::one::<TargetOrg>(StatusCode::CREATED)),
        Route::new(Method::DELETE, OWN_LINK, "revokeLinkToken", link_tokens::revoke)
            .about("Revoke the organization's link token at once, also while migrations run")
            .role(OWNER)
            .gives(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, AUDIT, "listAudit", audit::list)
            .about("Return who did what, newest first")
            .role(OWNER)
            .gives(Answer::page::<AuditEntry>()),
    ]
}

/// The agents' protocol; not part of the API document, since its two ends are ours.
fn agents() -> Vec<Route> {
    let protocol = |path, operation, handler: Handler| {
        let mut route = Route::new(Method::POST, path, operation, handler);
        (route.may, route.audited, route.documented) = (Principal::is_agent, false, false);
        route.role = "the link token's key";
        route
    };
    let any = |mut route: Route| {
        route.takes.push((ApiVersion::V2023_01_01, Shape::any()));
        route
    };
    let join = protocol("/api/limosa/v1/agents", "joinAgent", agents::join).takes_body::<protocol::Join>();
    vec![
        Route { audited: true, ..join },
        any(protocol("/api/limosa/v1/agents/{agentId}/heartbeat", "agentHeartbeat", agents::heartbeat)),
        any(protocol(
            "/api/limosa/v1/agents/{agentId}/migrations/{liveMigrationId}/report",
            "agentReport",
            agents::report,
        )),
        any(protocol(
            "/api/limosa/v1/agents/{agentId}/validations/{validationId}/report",
            "agentValidationReport",
            agents::report_validation,
        )),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fmt::Write, path::Path};

    const BEGIN: &str = "<!-- Made of the route table by a test of the server: LIMOSA_WRITE_DOCS=1. -->\n";
    const END: &str = "<!-- End of the route table. -->\n";

    /// Every operation with the weakest role that may ask for it.
    fn role_table() -> String {
        let mut table = "| operation | request | role |\n|---|---|---|\n".to_owned();
        let mut rows: Vec<&Route> = routes().iter().filter(|route| !route.operation.is_empty()).collect();
        rows.sort_by_key(|route| (route.role, route.operation));
        for route in rows {
            let role = if route.role.is_empty() { "any key" } else { route.role };
            let _ = writeln!(table, "| `{}` | `{} {}` | {role} |", route.operation, route.method, route.path);
        }
        table
    }

    #[test]
    fn the_documented_roles_are_those_of_the_route_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
        let page = std::fs::read_to_string(&file).expect("is there");
        let (before, rest) = page.split_once(BEGIN).expect("the table's beginning");
        let (known, after) = rest.split_once(END).expect("the table's end");
        if std::env::var_os("LIMOSA_WRITE_DOCS").is_some() {
            std::fs::write(&file, format!("{before}{BEGIN}{}{END}{after}", role_table())).expect("writes");
        } else {
            assert_eq!(known, role_table(), "run the test with LIMOSA_WRITE_DOCS=1");
        }
    }
}
