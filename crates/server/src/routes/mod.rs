//! The handlers, one file a resource.

pub(crate) mod agents;
pub(crate) mod extra;
pub(crate) mod link_tokens;
pub(crate) mod live_migrations;
pub(crate) mod validations;

use crate::{render::ApiError, router::Call};
use axum::http::StatusCode;
use limosa_model::{GroupId, Migration, MigrationId, OrgId};

/// The path's group, if the caller's organization has it.
pub(crate) fn group(call: &Call) -> Result<GroupId, ApiError> {
    let text = call.param("groupId");
    let invalid =
        || ApiError::not_found("INVALID_GROUP_ID", format!("An invalid group ID {text} was specified."), &[text]);
    let group: GroupId = text.parse().map_err(|_| invalid())?;
    match call.app.store.group(group)? {
        None => Err(ApiError::not_found("GROUP_NOT_FOUND", format!("No group with ID {text} exists."), &[text])),
        Some((org, _)) if org != call.principal.org_id => Err(denied("NOT_IN_GROUP")),
        Some(_) => Ok(group),
    }
}

/// The path's organization, if it is the caller's.
pub(crate) fn org(call: &Call) -> Result<OrgId, ApiError> {
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

/// A missing role is 401 here, as in Atlas.
fn denied(code: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, "Current user is not authorized to perform this action.", &[])
}

/// The caller must be an owner.
pub(crate) fn owner(call: &Call) -> Result<(), ApiError> {
    if call.principal.is_owner { Ok(()) } else { Err(denied("USER_UNAUTHORIZED")) }
}

/// The path's migration, if it is the path's group's.
pub(crate) fn migration(call: &Call) -> Result<Migration, ApiError> {
    let group = group(call)?;
    let text = call.param("liveMigrationId");
    let found = match text.parse::<MigrationId>() {
        Ok(id) => call.app.store.migration(id)?,
        Err(_) => None,
    };
    found.filter(|m| m.group_id == group).ok_or_else(|| ApiError::resource(text))
}
