//! How agents join.

use super::wrong_secret;
use crate::{
    auth::bearer,
    handlers::reply,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::work::LEASE_SECONDS,
    store::Agent,
};
use axum::http::StatusCode;
use limosa_model::{GroupId, Migration, Timestamp, protocol};

/// How often agents come.
const HEARTBEAT_SECONDS: u64 = 2;

pub(crate) fn join(call: &Call) -> Result<Reply, ApiError> {
    let join: protocol::Join = call.parse()?;
    let (org, now) = (call.principal.org_id, Timestamp::now());
    let secret = join.secret.as_ref().ok_or_else(|| too_old(&join))?;
    admit(call, &join, secret.expose(), now)?;
    let secret_hash = bearer::hash(secret.expose());
    let name = &join.group_name;
    call.app.store.create_group(GroupId::generate(), org, name, &Default::default(), now)?;
    let group = call.app.store.group_by_name(org, name)?.ok_or_else(|| ApiError::resource(name))?;
    let group_id = group.id;
    let agent = Agent {
        id: join.agent_id,
        group_id,
        host_name: join.host_name,
        deployments: join.deployments,
        seen_at: now,
        version: join.agent_version,
        secret_hash: Some(secret_hash),
    };
    call.app.store.put_agent(org, &agent)?;
    let lease_seconds = LEASE_SECONDS as u64;
    Ok(reply(&protocol::Joined { group_id, heartbeat_seconds: HEARTBEAT_SECONDS, lease_seconds }))
}

fn too_old(join: &protocol::Join) -> ApiError {
    let (host, version) = (&join.host_name, &join.agent_version);
    let detail = format!(
        "The agent on {host} is of version {version}, which has no secret of its own. Install the server's version {} \
         there and start it again; it joins and continues automatically.",
        env!("CARGO_PKG_VERSION")
    );
    ApiError::new(StatusCode::FORBIDDEN, "AGENT_TOO_OLD", detail, &[host, version])
}

/// Whether who joins is the agent with that id: the first join binds the secret to it. An id of a version before is bound
/// to none; as long as it holds a migration nobody takes it over, since the id alone proves nothing.
fn admit(call: &Call, join: &protocol::Join, secret: &str, now: Timestamp) -> Result<(), ApiError> {
    let (org, id) = (call.principal.org_id, join.agent_id);
    let known = call.app.store.agent(org, id)?;
    if call.principal.is_replaced && known.as_ref().is_none_or(|agent| agent.secret_hash.is_none()) {
        let detail = "The link token was replaced by another one: start the agent with that.";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "LINK_TOKEN_REPLACED", detail, &[]));
    }
    match known {
        Some(agent) if agent.secret_hash.is_some() => match agent.is_proven_by(Some(secret)) {
            true => Ok(()),
            false => Err(wrong_secret(id)),
        },
        // Of another organization.
        None if call.app.store.has_agent(id)? => Err(wrong_secret(id)),
        _ => {
            let active = call.app.store.active_of_org(org)?;
            let holds = |m: &&Migration| m.lease.as_ref().is_some_and(|lease| lease.agent == id && lease.until > now);
            let Some(held) = active.iter().find(holds) else { return Ok(()) };
            let (id, held) = (id.to_string(), held.id.to_string());
            let detail = format!(
                "Agent {id} holds live migration {held} and joined before agents had secrets. Its lease ends within \
                 {LEASE_SECONDS} seconds: join again then."
            );
            Err(ApiError::conflict("AGENT_LEASE_RUNS", detail, &[&id, &held]))
        }
    }
}
