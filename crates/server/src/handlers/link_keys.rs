//! Keys of agents, and the link tokens that are made of them.

use crate::{
    auth,
    handlers::reply,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::{Allowed, ApiKey},
};
use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use limosa_model::{OrgId, Secret, wire::live_migration::TargetOrg};
use serde_json::json;

pub(super) fn new_key(org: OrgId, access_list: Vec<Allowed>) -> (ApiKey, Secret) {
    let (public_key, private_key) = (auth::new_public_key(), auth::new_private_key());
    let key = ApiKey::new(org, &public_key, &private_key, "live migration link", Vec::new());
    (ApiKey { is_link: true, access_list, ..key }, private_key)
}

pub(super) fn shown(call: &Call, key: &ApiKey, private_key: &Secret) -> Result<Reply, ApiError> {
    let name = call.app.store.org_name(key.org_id)?.unwrap_or_default();
    let token = json!({
        "orgId": key.org_id, "orgName": name, "privateApiKey": private_key.expose(), "publicApiKey": key.public_key,
    });
    let link_token = STANDARD.encode(token.to_string());
    Ok(Reply { status: StatusCode::CREATED, ..reply(&TargetOrg { link_token }) })
}

pub(super) fn not_linked() -> ApiError {
    let detail = "Could not find the requested external organization link.";
    ApiError { parameters: None, ..ApiError::not_found("UNEXPECTED_ERROR", detail, &[]) }
}
