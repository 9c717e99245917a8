//! The handlers: a folder for each API, a file for each resource. What several of them need is here and in the files next
//! to this one.

pub(crate) mod agent;
pub(crate) mod atlas;
pub(crate) mod limosa;
mod link_keys;
mod new_migration;

use crate::{
    auth::roles::denied,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::migrations::{self, NewMigration, NotChanged, NotCreated},
    store::{Cluster, Group, Validation},
};
use limosa_model::{
    GroupId, Migration, MigrationId, OrgId, Timestamp,
    transition::{Event, IllegalTransition},
    wire::live_migration::Link,
};

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

/// A group's cluster.
fn cluster(call: &Call, group: GroupId, name: &str) -> Result<Cluster, ApiError> {
    call.app.store.cluster(group, name)?.ok_or_else(|| no_cluster(name, group))
}

/// The path's validation, if it is the path's group's.
fn validation(call: &Call) -> Result<Validation, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let id = call.param("validationId");
    let found = call.app.store.validation(id)?.filter(|v| v.group_id == group.id);
    found.ok_or_else(|| ApiError::resource(id))
}

fn unreadable_validation(validation: &Validation) -> ApiError {
    crate::ServerError::Corrupt(format!("validation {}", validation.id)).into()
}

/// Creates the migration that was asked for.
fn created(call: &Call, group: GroupId, wanted: NewMigration) -> Result<Migration, ApiError> {
    let name = wanted.destination.cluster_name.clone();
    let created = migrations::create(&call.app.store, call.principal.org_id, group, wanted, Timestamp::now());
    created.map_err(|error| match error {
        NotCreated::InUse(active) => {
            let detail =
                format!("Cluster {name} is already the destination of live migration {active}, which is not over.");
            ApiError::conflict("DESTINATION_CLUSTER_ALREADY_MIGRATING", detail, &[&name, &active.to_string()])
        }
        NotCreated::Store(error) => error.into(),
    })
}

/// Changes a migration as its operator wants it.
fn change(call: &Call, migration: &Migration, event: Event) -> Result<Migration, ApiError> {
    let changed = migrations::apply(&call.app.store, migration.id, event, Timestamp::now());
    changed.map_err(|error| refused(migration, error))
}

/// A request that the migration's phase doesn't allow, or worse.
fn refused(migration: &Migration, error: NotChanged) -> ApiError {
    let id = migration.id.to_string();
    match error {
        NotChanged::Illegal(why @ IllegalTransition::HostSilent { .. }) => {
            ApiError::conflict("LIVE_MIGRATION_HOST_SILENT", format!("Live migration {id}: {why}."), &[&id])
        }
        NotChanged::Illegal(why) => {
            ApiError::conflict("LIVE_MIGRATION_NOT_READY", format!("Live migration {id}: {why}."), &[&id])
        }
        NotChanged::Unknown => ApiError::resource(&id),
        NotChanged::Store(error) => error.into(),
    }
}
