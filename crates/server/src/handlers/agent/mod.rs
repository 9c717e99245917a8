//! The agents' protocol.

pub(crate) mod heartbeat;
pub(crate) mod join;
pub(crate) mod report;

use crate::{
    http::{context::Call, render::ApiError},
    store::Agent,
};
use axum::http::StatusCode;
use limosa_model::{AgentId, protocol};

/// The path's agent, if the caller has its secret.
fn agent(call: &Call) -> Result<Agent, ApiError> {
    let text = call.param("agentId");
    let id = text.parse::<AgentId>().map_err(|_| ApiError::resource(text))?;
    let known = call.app.store.agent(call.principal.org_id, id)?.ok_or_else(|| ApiError::resource(text))?;
    let missing = |detail: String| ApiError::new(StatusCode::UNAUTHORIZED, "AGENT_SECRET_MISSING", detail, &[text]);
    if known.secret_hash.is_none() {
        let detail = format!(
            "Agent {text} joined before agents had secrets. It must join again: install the server's version {} on its \
             host and start it there.",
            env!("CARGO_PKG_VERSION")
        );
        return Err(missing(detail));
    }
    let Some(secret) = &call.agent_secret else {
        let header = protocol::SECRET_HEADER;
        return Err(missing(format!("The request lacks the secret with which agent {text} joined, in {header}.")));
    };
    if known.is_proven_by(Some(secret.expose())) { Ok(known) } else { Err(wrong_secret(known.id)) }
}

fn wrong_secret(id: AgentId) -> ApiError {
    let id = id.to_string();
    let detail = format!(
        "The secret is not the one with which agent {id} joined. On a copy of its data directory, delete agent.json: \
         the agent there then joins as another one."
    );
    ApiError::new(StatusCode::UNAUTHORIZED, "AGENT_SECRET_WRONG", detail, &[&id])
}
