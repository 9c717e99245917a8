//! `/api/atlas/v2/orgs/{orgId}/liveMigrations/linkTokens`: how agents get in.

use super::{org, owner};
use crate::{
    auth,
    render::{ApiError, Reply},
    router::Call,
    store::ApiKey,
};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    owner(call)?;
    let mut body = call.object()?;
    if body.remove("accessListIps").is_some_and(|ips| !ips.is_null() && !ips.as_array().is_some_and(Vec::is_empty)) {
        return Err(ApiError::bad(
            "INVALID_ATTRIBUTE",
            "Invalid attribute accessListIps specified: access lists are not supported yet.",
            &["accessListIps"],
        ));
    }
    if let Some(unknown) = body.keys().next() {
        return Err(ApiError::invalid(unknown));
    }
    let (public_key, private_key) = (auth::new_public_key(), auth::new_private_key());
    let key = ApiKey { is_owner: false, ..ApiKey::owner(org, &public_key, &private_key) };
    if !call.app.store.create_link(&key)? {
        let detail = "The organization is linked already; delete its link token before creating another.";
        return Err(ApiError::conflict("ATLAS_ORG_ALREADY_LINKED", detail, &[]));
    }
    let name = call.app.store.org_name(org)?.unwrap_or_default();
    let token =
        json!({"orgId": org, "orgName": name, "privateApiKey": private_key.expose(), "publicApiKey": public_key});
    Ok(Reply::with(StatusCode::CREATED, Some(json!({"linkToken": STANDARD.encode(token.to_string())}))))
}

pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let org = org(call)?;
    owner(call)?;
    let active = call.app.store.active_of_org(org)?;
    if !active.is_empty() {
        let groups: Vec<String> = active.iter().map(|m| m.group_id.to_string()).collect();
        let groups = groups.join(", ");
        let detail = format!(
            "Cannot delete organization link while there is active migration in following project ids: {groups}."
        );
        return Err(ApiError::conflict("CANNOT_DELETE_ORG_ACTIVE_LIVE_MIGRATION_ATLAS_ORG_LINK", detail, &[&groups]));
    }
    if call.app.store.delete_link(org)? {
        return Ok(Reply::with(StatusCode::NO_CONTENT, None));
    }
    let mut error =
        ApiError::not_found("UNEXPECTED_ERROR", "Could not find the requested external organization link.", &[]);
    error.parameters = None;
    Err(error)
}
