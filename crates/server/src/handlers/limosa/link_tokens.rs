//! `/api/limosa/v1/orgs/{orgId}/linkToken`: the link token replaced or revoked, also while migrations run.

use crate::{
    handlers::{
        link_keys::{new_key, not_linked, shown},
        owned_org,
    },
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
};
use axum::http::StatusCode;
use limosa_model::{Timestamp, wire::own::RotateLinkToken};

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
