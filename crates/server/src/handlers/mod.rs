//! The handlers, one file a resource.

pub(crate) mod account;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod clusters;
pub(crate) mod cutover;
pub(crate) mod events;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod link_tokens;
pub(crate) mod live_migrations;
pub(crate) mod oauth;
pub(crate) mod reports;
pub(crate) mod service_accounts;
pub(crate) mod surroundings;
pub(crate) mod telemetry;
pub(crate) mod validations;

use crate::{
    auth::roles::denied,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::Group,
};
use limosa_model::{GroupId, Migration, MigrationId, OrgId, wire::live_migration::Link};

/// The link to `path` itself, as Atlas gives one with each resource.
fn self_link(call: &Call, path: &str) -> Vec<Link> {
    vec![Link { href: format!("{}{path}", call.base), rel: "self".to_owned() }]
}

/// A body of one of the documented types.
fn reply<T: serde::Serialize + ?Sized>(body: &T) -> Reply {
    Reply::ok(serde_json::to_value(body).unwrap_or_default())
}

/// The path's group, if the caller's organization has it.
fn group(call: &Call) -> Result<Group, ApiError> {
    let text = call.param("groupId");
    let invalid =
        || ApiError::not_found("INVALID_GROUP_ID", format!("An invalid group ID {text} was specified."), &[text]);
    let id: GroupId = text.parse().map_err(|_| invalid())?;
    match call.app.store.group(id)? {
        None => Err(ApiError::not_found("GROUP_NOT_FOUND", format!("No group with ID {text} exists."), &[text])),
        Some(group) if group.org_id != call.principal.org_id => Err(denied("NOT_IN_GROUP")),
        Some(group) => Ok(group),
    }
}

/// The path's organization, if it is the caller's.
fn org(call: &Call) -> Result<OrgId, ApiError> {
    let text = call.param("orgId");
    let invalid =
        || ApiError::not_found("INVALID_ORG_ID", format!("An invalid organization ID {text} was specified."), &[text]);
    let org: OrgId = text.parse().map_err(|_| invalid())?;
    match call.app.store.org_name(org)? {
        None => Err(ApiError::not_found("ORG_NOT_FOUND", format!("No organization with ID {text} exists."), &[text])),
        Some(_) if org != call.principal.org_id => Err(denied("USER_UNAUTHORIZED")),
        Some(_) => Ok(org),
    }
}

/// The path's organization; the caller must own it.
fn owned_org(call: &Call) -> Result<OrgId, ApiError> {
    let org = org(call)?;
    call.principal.owns_org()?;
    Ok(org)
}

/// The path's migration, if it is the path's group's and the caller may read it.
fn migration(call: &Call) -> Result<Migration, ApiError> {
    let group = group(call)?;
    call.principal.reads_migrations(group.id)?;
    let text = call.param("liveMigrationId");
    let found = match text.parse::<MigrationId>() {
        Ok(id) => call.app.store.migration(id)?,
        Err(_) => None,
    };
    found.filter(|m| m.group_id == group.id).ok_or_else(|| ApiError::resource(text))
}

fn no_cluster(name: &str, group: GroupId) -> ApiError {
    let group = group.to_string();
    let detail = format!("No cluster named {name} exists in group {group}.");
    ApiError::not_found("CLUSTER_NOT_FOUND", detail, &[name, &group])
}
