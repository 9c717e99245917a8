//! The request's body, read within what all bodies may take together.

use crate::{
    App, ServerError,
    auth::Principal,
    http::{
        bodies::{self, HeldBody},
        render::{self, ApiError, RenderOptions},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{Response, request::Parts},
    middleware::Next,
};
use limosa_model::{AgentId, MigrationId, Secret, protocol::SECRET_HEADER};
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
        Err(not_read) => render::respond(Err(not_read), None, RenderOptions::of(&parts.uri)),
    }
}

/// A large body only of an agent that reports of a migration which it holds.
async fn read(app: &Arc<App>, principal: &Principal, parts: &Parts, body: Body) -> Result<HeldBody, ApiError> {
    let most = match is_report_of_holder(app, principal, parts).await? {
        true => bodies::REPORT_BYTES,
        false => bodies::CLIENT_BODY_BYTES,
    };
    app.bodies.read(body, most).await.map_err(|not_read| not_read.error(most))
}

/// Whether it is a report of the agent that holds the migration: what proves that is its secret.
async fn is_report_of_holder(app: &Arc<App>, principal: &Principal, parts: &Parts) -> Result<bool, ServerError> {
    let Some((agent, migration)) = reported(parts.uri.path()).filter(|_| principal.is_link) else { return Ok(false) };
    let secret = parts.headers.get(SECRET_HEADER).and_then(|value| value.to_str().ok()).map(Secret::new);
    let org = principal.org_id;
    let proves = move |app: &Arc<App>| {
        let held = app.store.migration_of(org, migration)?.and_then(|migration| migration.lease);
        let known = app.store.agent(org, agent)?;
        let is_own = known.is_some_and(|known| known.is_proven_by(secret.as_ref().map(Secret::expose)));
        Ok(held.is_some_and(|lease| lease.agent == agent) && is_own)
    };
    app.blocking(proves).await
}

/// The agent and the migration in the path of a report.
fn reported(path: &str) -> Option<(AgentId, MigrationId)> {
    let (agent, rest) = path.strip_prefix(AGENTS)?.split_once("/migrations/")?;
    Some((agent.parse().ok()?, rest.strip_suffix("/report")?.parse().ok()?))
}

/// Reads the body of a request that proves by it who sends it: small, and within what all of these may take together.
pub(crate) async fn hold_sign_in(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match app.bodies.read_sign_in(body).await {
        // What it holds is given back when the answer is there.
        Ok(held) => next.run(Request::from_parts(parts, Body::from(held.bytes.clone()))).await,
        Err(not_read) => render::respond(Err(not_read.error(bodies::SIGN_IN_BYTES)), None, RenderOptions::default()),
    }
}
