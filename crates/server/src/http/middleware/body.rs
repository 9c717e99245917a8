//! The request's body, read within what all bodies may take together.

use crate::{
    App,
    auth::Principal,
    http::{
        bodies::{self, HeldBody},
        render::{self, ApiError, Wishes},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{Response, request::Parts},
    middleware::Next,
};
use limosa_model::{AgentId, protocol::SECRET_HEADER};
use std::sync::Arc;

/// Where agents report.
const AGENTS: &str = "/api/limosa/v1/agents/";

/// Reads the body of a known caller; it is the extension [`HeldBody`] from here on.
pub(crate) async fn hold(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    match read(&app, &principal, &parts, body).await {
        Ok(held) => {
            parts.extensions.insert(held);
            next.run(Request::from_parts(parts, Body::empty())).await
        }
        Err(not_read) => render::respond(Err(not_read), None, Wishes::of(&parts.uri)),
    }
}

/// A large body only of an agent that reports of a migration which it holds.
async fn read(app: &App, principal: &Principal, parts: &Parts, body: Body) -> Result<HeldBody, ApiError> {
    let most = match is_report_of_holder(app, principal, parts)? {
        true => bodies::REPORT_BYTES,
        false => bodies::CLIENT_BODY_BYTES,
    };
    app.bodies.read(body, most).await.map_err(|not_read| not_read.error(most))
}

/// Whether it is a report of the agent that holds the migration: what proves that is its secret.
fn is_report_of_holder(app: &App, principal: &Principal, parts: &Parts) -> Result<bool, ApiError> {
    let secret = parts.headers.get(SECRET_HEADER).and_then(|value| value.to_str().ok());
    let Some(rest) = parts.uri.path().strip_prefix(AGENTS).filter(|_| principal.is_link) else { return Ok(false) };
    let mut parts = rest.split('/');
    let (Some(agent), Some("migrations"), Some(migration), Some("report"), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(false);
    };
    let (Ok(agent), Ok(migration)) = (agent.parse::<AgentId>(), migration.parse()) else { return Ok(false) };
    let held = app.store.migration_of(principal.org_id, migration)?.and_then(|migration| migration.lease);
    let known = app.store.agent(principal.org_id, agent)?;
    let is_own = known.is_some_and(|known| known.is_proven_by(secret));
    Ok(held.is_some_and(|lease| lease.agent == agent) && is_own)
}

/// Reads the body of a request that proves by it who sends it: small, and within what all of these may take together.
pub(crate) async fn hold_sign_in(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match app.bodies.read_sign_in(body).await {
        // What it holds is given back when the answer is there.
        Ok(held) => next.run(Request::from_parts(parts, Body::from(held.bytes.clone()))).await,
        Err(not_read) => render::respond(Err(not_read.error(bodies::SIGN_IN_BYTES)), None, Wishes::default()),
    }
}
