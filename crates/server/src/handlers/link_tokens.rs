//! `/api/atlas/v2/orgs/{orgId}/liveMigrations/linkTokens`: how agents get in.

use crate::{
    auth::{self, access_list},
    handlers::{owned_org, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::{Allowed, ApiKey},
};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use limosa_model::{
    OrgId, Secret, Timestamp,
    wire::{
        live_migration::{TargetOrg, TargetOrgRequest},
        own::RotateLinkToken,
    },
};
use serde_json::json;

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let TargetOrgRequest { access_list_ips } = call.parse()?;
    if !access_list_ips.iter().all(|entry| access_list::is_valid(entry)) {
        return Err(ApiError::invalid("accessListIps"));
    }
    let allowed = |entry| Allowed { entry, created_at: Some(Timestamp::now()) };
    let (key, private_key) = new_key(org, access_list_ips.into_iter().map(allowed).collect());
    if !call.app.store.create_link(&key)? {
        let detail = "The organization is linked already; delete its link token before creating another.";
        return Err(ApiError::conflict("ATLAS_ORG_ALREADY_LINKED", detail, &[]));
    }
    shown(call, &key, &private_key)
}

fn new_key(org: OrgId, access_list: Vec<Allowed>) -> (ApiKey, Secret) {
    let (public_key, private_key) = (auth::new_public_key(), auth::new_private_key());
    let key = ApiKey::new(org, &public_key, &private_key, "live migration link", Vec::new());
    (ApiKey { is_link: true, access_list, ..key }, private_key)
}

fn shown(call: &Call, key: &ApiKey, private_key: &Secret) -> Result<Reply, ApiError> {
    let name = call.app.store.org_name(key.org_id)?.unwrap_or_default();
    let token = json!({
        "orgId": key.org_id, "orgName": name, "privateApiKey": private_key.expose(), "publicApiKey": key.public_key,
    });
    let link_token = STANDARD.encode(token.to_string());
    Ok(Reply { status: StatusCode::CREATED, ..reply(&TargetOrg { link_token }) })
}

/// Another token in the place of the one that there is, also while migrations run. Agents that have joined continue with the
/// one before for the time given.
pub(crate) fn rotate(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let RotateLinkToken { grace_seconds } = call.parse()?;
    let before = call.app.store.link(org)?.ok_or_else(not_linked)?;
    let (key, private_key) = new_key(org, before.access_list);
    let now = Timestamp::now();
    call.app.store.replace_link(&key, now.plus_seconds(grace_seconds), now)?;
    shown(call, &key, &private_key)
}

/// Revokes the token at once, whatever runs: agents are shut out, and their migrations wait for others.
pub(crate) fn revoke(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    if call.app.store.delete_link(org)? { Ok(Reply::with(StatusCode::NO_CONTENT, None)) } else { Err(not_linked()) }
}

fn not_linked() -> ApiError {
    let detail = "Could not find the requested external organization link.";
    ApiError { parameters: None, ..ApiError::not_found("UNEXPECTED_ERROR", detail, &[]) }
}

pub(crate) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let active = call.app.store.active_of_org(org)?;
    if !active.is_empty() {
        let mut groups: Vec<String> = active.iter().map(|m| m.group_id.to_string()).collect();
        groups.sort();
        groups.dedup();
        let groups = groups.join(", ");
        let detail = format!(
            "Cannot delete organization link while there is active migration in following project ids: {groups}."
        );
        return Err(ApiError::conflict("CANNOT_DELETE_ORG_ACTIVE_LIVE_MIGRATION_ATLAS_ORG_LINK", detail, &[&groups]));
    }
    if call.app.store.delete_link(org)? {
        return Ok(Reply::with(StatusCode::NO_CONTENT, None));
    }
    Err(not_linked())
}
