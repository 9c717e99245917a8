//! Who sent a request: a digest, a bearer token or a session says so.

use super::paths::Target;
use crate::{
    App, ServerError,
    auth::{Credential, Principal, bearer, digest, session},
    http::{
        audit_log, bodies,
        connections::Connection,
        render::{self, ApiError, RenderOptions},
    },
};
use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{Method, Response, StatusCode, header, request::Parts},
    middleware::Next,
};
use limosa_model::{Timestamp, wire::own::Outcome};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The caller, or the answer to who isn't known.
type Identified = Result<Principal, Box<Response<Body>>>;

/// From where a request came, and where it reached us.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub address: IpAddr,
    /// Scheme and host as the client named them.
    pub base: String,
}

/// Lets authenticated requests through; their [`Principal`] and [`Peer`] are extensions from here on.
pub(crate) async fn require(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    let address = peer.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let (mut parts, identified) = if is_anonymous(&parts) {
        let answer = stranger(&app, &parts, Timestamp::now());
        (parts, Err(answer))
    } else {
        let identify = move |app: &Arc<App>| {
            let identified = identify(app, &parts, address, Timestamp::now());
            (parts, identified)
        };
        app.blocking(identify).await
    };
    let principal = match identified {
        Ok(principal) => principal,
        Err(response) => {
            bodies::discard(body).await;
            return *response;
        }
    };
    if let Some(connection) = parts.extensions.get::<Arc<Connection>>() {
        connection.trust();
    }
    let base = app.public_url.clone().unwrap_or_else(|| reached(&app, &parts));
    parts.extensions.insert(Peer { address, base });
    parts.extensions.insert(principal);
    next.run(Request::from_parts(parts, body)).await
}

/// Scheme and host that the client named.
fn reached(app: &App, parts: &Parts) -> String {
    let named = || parts.headers.get(header::HOST)?.to_str().ok();
    let host = parts.uri.authority().map(|authority| authority.as_str()).or_else(named);
    format!("{}://{}", if app.tls { "https" } else { "http" }, host.unwrap_or("localhost"))
}

/// Who nobody knows: no header says who it is.
fn is_anonymous(parts: &Parts) -> bool {
    !parts.headers.contains_key(header::AUTHORIZATION) && !parts.headers.contains_key(header::COOKIE)
}

/// Looks up who sent it.
fn identify(app: &App, parts: &Parts, address: IpAddr, now: Timestamp) -> Identified {
    let Some(given) = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
        return by_session(app, parts, address, now);
    };
    if let Some(token) = given.strip_prefix("Bearer ") {
        let hash = bearer::hash(token.trim());
        let account = app.store.token(&hash, now).map_err(broken)?;
        let principal = account.map(|account| account.principal(Credential::Token(hash)));
        return principal.ok_or_else(|| wrong_credentials(app, address, "Bearer error=\"invalid_token\"", now));
    }
    let target = parts.extensions.get::<Target>().map_or_else(|| parts.uri.to_string(), |target| target.0.clone());
    digest::check(app, given, parts.method.as_str(), &target, now).map_err(|refused| match refused {
        digest::DigestError::Wrong => wrong_credentials(app, address, &challenge(app, false, now), now),
        digest::DigestError::Stale => Box::new(render::unauthorized(&challenge(app, true, now))),
        digest::DigestError::Unknown(error) => broken(error),
    })
}

/// The caller behind the session's cookie. What changes something must come from the page.
fn by_session(app: &App, parts: &Parts, address: IpAddr, now: Timestamp) -> Identified {
    let (headers, method) = (&parts.headers, &parts.method);
    match session::caller(app, headers, now).map(|(principal, _)| principal) {
        Some(principal) if method == Method::GET || session::is_own(app, headers, &parts.uri) => Ok(principal),
        Some(principal) => {
            audit_log::audit(app, &principal, address, method.as_str(), parts.uri.path(), Outcome::Refused);
            let detail = "A session may change something from the page itself only.";
            let error = ApiError::new(StatusCode::FORBIDDEN, "CROSS_SITE_REQUEST", detail, &[]);
            Err(Box::new(render::respond(Err(error), None, RenderOptions::default())))
        }
        None => Err(stranger(app, parts, now)),
    }
}

/// The answer to who shows no credentials.
fn stranger(app: &App, parts: &Parts, now: Timestamp) -> Box<Response<Body>> {
    // A browser would answer a digest challenge with a dialog of its own.
    let is_page = parts.headers.contains_key(session::OWN);
    let asked = if is_page { "Session".to_owned() } else { challenge(app, false, now) };
    Box::new(render::unauthorized(&asked))
}

fn challenge(app: &App, stale: bool, now: Timestamp) -> String {
    digest::challenge(&app.nonces.issue(now), stale)
}

/// The answer where credentials can't be looked up: a client must not take it for wrong ones.
fn broken(error: ServerError) -> Box<Response<Body>> {
    Box::new(render::respond(Err(error.into()), None, RenderOptions::default()))
}

/// The answer to wrong credentials: `challenge`, until there were too many of them from `address`. Good ones from there are
/// let in all the same, so that nobody locks out who sits behind the same proxy.
fn wrong_credentials(app: &App, address: IpAddr, challenge: &str, now: Timestamp) -> Box<Response<Body>> {
    let Err(too_many) = app.limits.wrong_credentials(address, now) else {
        return Box::new(render::unauthorized(challenge));
    };
    let detail = format!("Too many requests with wrong credentials came from {address}: fix them, then try again.");
    let error = ApiError::rate_limited(detail, &[&address.to_string()], &too_many);
    Box::new(render::respond(Err(error), None, RenderOptions::default()))
}
