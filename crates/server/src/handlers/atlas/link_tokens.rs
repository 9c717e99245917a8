//! `/api/atlas/v2/orgs/{orgId}/liveMigrations/linkTokens`: how agents get in.

use crate::{
    auth::access_list,
    handlers::{
        link_keys::{new_key, not_linked, shown},
        owned_org,
    },
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::Allowed,
};
use axum::http::StatusCode;
use limosa_model::{Timestamp, wire::live_migration::TargetOrgRequest};

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
