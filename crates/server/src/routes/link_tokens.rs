//! `/api/atlas/v2/orgs/{orgId}/liveMigrations/linkTokens`: how agents get in.

use super::{owned_org, reply};
use crate::{
    auth::{self, access_list},
    call::Call,
    render::{ApiError, Reply},
    store::ApiKey,
};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use limosa_model::wire::live_migration::{TargetOrg, TargetOrgRequest};
use serde_json::json;

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let TargetOrgRequest { access_list_ips: access_list } = call.parse()?;
    if !access_list.iter().all(|entry| access_list::is_valid(entry)) {
        return Err(ApiError::invalid("accessListIps"));
    }
    let (public_key, private_key) = (auth::new_public_key(), auth::new_private_key());
    let key = ApiKey::new(org, &public_key, &private_key, "live migration link", Vec::new());
    if !call.app.store.create_link(&ApiKey { is_link: true, access_list, ..key })? {
        let detail = "The organization is linked already; delete its link token before creating another.";
        return Err(ApiError::conflict("ATLAS_ORG_ALREADY_LINKED", detail, &[]));
    }
    let name = call.app.store.org_name(org)?.unwrap_or_default();
    let token =
        json!({"orgId": org, "orgName": name, "privateApiKey": private_key.expose(), "publicApiKey": public_key});
    let link_token = STANDARD.encode(token.to_string());
    Ok(Reply { status: StatusCode::CREATED, ..reply(&TargetOrg { link_token }) })
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
    let detail = "Could not find the requested external organization link.";
    Err(ApiError { parameters: None, ..ApiError::not_found("UNEXPECTED_ERROR", detail, &[]) })
}
