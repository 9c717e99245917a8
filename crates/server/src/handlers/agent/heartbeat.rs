//! Heartbeats of agents.

use super::agent;
use crate::{
    handlers::reply,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::work,
};
use limosa_model::{Timestamp, protocol};

/// Takes the agent's news and hands out what waits for its host.
pub(crate) fn take(call: &Call) -> Result<Reply, ApiError> {
    let agent = agent(call)?;
    let beat: protocol::Heartbeat = call.parse()?;
    Ok(reply(&work::hand_out(&call.app.store, call.principal.org_id, agent, beat, Timestamp::now())?))
}
