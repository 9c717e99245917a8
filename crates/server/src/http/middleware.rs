//! What happens to every request before its handler, in this order: the path is made plain, the caller is
//! authenticated, counted and held against its access list, the body is read (bounded), and only then does a handler see
//! anything.

use crate::{
    App, ServerError,
    auth::{Credential, Principal, access_list, bearer, digest, session},
    http::{
        audit_log,
        bodies::{self, HeldBody},
        connections::Connection,
        render::{self, ApiError, Wishes},
    },
    rate_limits::{TOKENS_A_MINUTE, TooMany},
    store::ServiceAccount,
};
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts, uri::PathAndQuery},
    middleware::Next,
};
use limosa_model::{AgentId, Timestamp, protocol::SECRET_HEADER, wire::own::Outcome};
use serde_json::json;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Where agents report.
const AGENTS: &str = "/api/limosa/v1/agents/";

/// How long a request may take, its body included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// From where a request came, and where it reached us.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub address: IpAddr,
    /// Scheme and host as the client named them.
    pub base: String,
}

/// The request's target as the client wrote it: what digest authentication signs.
#[derive(Clone, Debug)]
struct Target(String);

/// Takes several slashes for one, and none at the end.
pub(crate) fn plain_path(mut request: Request) -> Request {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    let path = request.uri().path();
    if path.contains("//") || path.len() > 1 && path.ends_with('/') {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut uri = request.uri().clone().into_parts();
        uri.path_and_query = format!("/{}{query}", parts.join("/")).parse().ok();
        if let Ok(plain) = Uri::from_parts(uri) {
            *request.uri_mut() = plain;
        }
    }
    request.extensions_mut().insert(Target(target));
    request
}

/// Common to all answers, errors included.
pub(crate) async fn headers(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let (path, method, wishes) = (request.uri().path().to_owned(), request.method().clone(), wishes(request.uri()));
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = render::method_not_allowed(&response, &method, &path, wishes);
    }
    let fixed = [
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("x-permitted-cross-domain-policies", "none"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let is_api = path.starts_with("/api/") && path != "/api/openapi.json";
    if is_api {
        // What is answered there is one caller's, and has secrets at times.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if app.is_secure() {
        let lasting = HeaderValue::from_static("max-age=31536000; includeSubdomains;");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, lasting);
    }
    response
}

/// Lets authenticated requests through; their [`Principal`], [`Peer`] and body are extensions from here on.
pub(crate) async fn authenticate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let now = Timestamp::now();
    let (mut parts, body) = request.into_parts();
    let target = parts.extensions.get::<Target>().map_or_else(|| parts.uri.to_string(), |t| t.0.clone());
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    let address = peer.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let identified = identify(&app, &parts, &target, address, now);
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
    let (limit, left) = app.limits.request(&principal.name, parts.uri.path(), now);
    let admitted = match admit(&principal, parts.uri.path(), address, limit, left, now) {
        Ok(()) => read_body(&app, &principal, &parts, body).await,
        Err(refused) => {
            bodies::discard(body).await;
            Err(refused)
        }
    };
    if let Err(refused) = &admitted
        && refused.status == StatusCode::FORBIDDEN
        && parts.method != Method::GET
    {
        audit_log::audit(&app, &principal, address, parts.method.as_str(), parts.uri.path(), Outcome::Refused);
    }
    let mut response = match admitted {
        Ok(body) => {
            app.access_uses.count(&principal.name, &principal.access_list, address, now);
            let host =
                parts.uri.authority().map(|a| a.as_str()).or_else(|| parts.headers.get(header::HOST)?.to_str().ok());
            let scheme = if app.tls { "https" } else { "http" };
            let reached = || format!("{scheme}://{}", host.unwrap_or("localhost"));
            let base = app.public_url.clone().unwrap_or_else(reached);
            parts.extensions.insert(Peer { address, base });
            parts.extensions.insert(principal);
            parts.extensions.insert(body);
            next.run(Request::from_parts(parts, Body::empty())).await
        }
        Err(refused) => render::respond(Err(refused), None, wishes(&parts.uri)),
    };
    response.headers_mut().insert("ratelimit-limit", limit.into());
    response.headers_mut().insert("ratelimit-remaining", left.max(0).into());
    response
}

/// Whether a known caller may ask for `path` now, from there.
fn admit(
    principal: &Principal,
    path: &str,
    address: IpAddr,
    limit: u32,
    left: i64,
    now: Timestamp,
) -> Result<(), ApiError> {
    if left < 0 {
        let detail = format!("Resource {path} is limited to {limit} requests every minute.");
        return Err(ApiError::rate_limited(detail, &[path], &TooMany::at(now)));
    }
    if !access_list::admits(&principal.access_list, address) {
        let address = address.to_string();
        let detail = format!("IP address {address} is not allowed to access this resource.");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "IP_ADDRESS_NOT_ON_ACCESS_LIST", detail, &[&address]));
    }
    Ok(())
}

/// The body of a known caller; a large one only of an agent that reports of a migration which it holds.
async fn read_body(app: &App, principal: &Principal, parts: &Parts, body: Body) -> Result<HeldBody, ApiError> {
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
pub(crate) async fn read_sign_in(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match app.bodies.read_sign_in(body).await {
        // What it holds is given back when the answer is there.
        Ok(held) => next.run(Request::from_parts(parts, Body::from(held.bytes.clone()))).await,
        Err(not_read) => render::respond(Err(not_read.error(bodies::SIGN_IN_BYTES)), None, Wishes::default()),
    }
}

fn identify(
    app: &App,
    parts: &Parts,
    target: &str,
    address: IpAddr,
    now: Timestamp,
) -> Result<Principal, Box<Response<Body>>> {
    let (headers, method) = (&parts.headers, parts.method.as_str());
    // A client must not take it for wrong credentials that they can't be looked up.
    let broken = |error: ServerError| Box::new(render::respond(Err(error.into()), None, Wishes::default()));
    let challenge = |stale| digest::challenge(&app.nonces.issue(now), stale);
    let ask = |stale| Box::new(render::unauthorized(&challenge(stale)));
    let wrong = |challenge: &str| Box::new(wrong_credentials(app, address, challenge, now));
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
        let caller = session::caller(app, headers, now).map(|(principal, _)| principal);
        return match caller {
            Some(principal) if method == "GET" || session::is_own(app, headers, &parts.uri) => Ok(principal),
            Some(principal) => {
                audit_log::audit(app, &principal, address, method, parts.uri.path(), Outcome::Refused);
                let detail = "A session may change something from the page itself only.";
                let error = ApiError::new(StatusCode::FORBIDDEN, "CROSS_SITE_REQUEST", detail, &[]);
                Err(Box::new(render::respond(Err(error), None, Wishes::default())))
            }
            // A browser would answer a digest challenge with a dialog of its own.
            None if headers.contains_key(session::OWN) => Err(Box::new(render::unauthorized("Session"))),
            None => Err(ask(false)),
        };
    };
    if let Some(token) = given.strip_prefix("Bearer ") {
        let hash = bearer::hash(token.trim());
        let account = app.store.token(&hash, now).map_err(broken)?;
        let principal = account.map(|account| account.principal(Credential::Token(hash)));
        return principal.ok_or_else(|| wrong("Bearer error=\"invalid_token\""));
    }
    digest::check(app, given, method, target, now).map_err(|refused| match refused {
        digest::Refused::Wrong => wrong(&challenge(false)),
        digest::Refused::Stale => ask(true),
        digest::Refused::Unknown(error) => broken(error),
    })
}

/// The answer to wrong credentials: `challenge`, until there were too many of them from `address`. Good ones from there are
/// let in all the same, so that nobody locks out who sits behind the same proxy.
fn wrong_credentials(app: &App, address: IpAddr, challenge: &str, now: Timestamp) -> Response<Body> {
    let Err(too_many) = app.limits.wrong_credentials(address, now) else { return render::unauthorized(challenge) };
    let detail = format!("Too many requests with wrong credentials came from {address}: fix them, then try again.");
    let error = ApiError::rate_limited(detail, &[&address.to_string()], &too_many);
    render::respond(Err(error), None, Wishes::default())
}

/// `envelope` and `pretty` of the query.
pub(crate) fn wishes(uri: &Uri) -> Wishes {
    let has = |name: &str| query(uri).iter().any(|(n, v)| n == name && v == "true");
    Wishes { envelope: has("envelope"), pretty: has("pretty") }
}

/// The query's parameters.
pub(crate) fn query(uri: &Uri) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(n, v)| (n.into_owned(), v.into_owned())).collect()
}

/// What is left to say after a defect of ours: the panic itself is in the log.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    let detail = "Unexpected error.";
    let error = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "UNEXPECTED_ERROR", detail, &[]);
    render::respond(Err(error), None, Wishes::default())
}

/// A path that leads nowhere.
pub(crate) async fn unknown(request: Request) -> Response<Body> {
    render::respond(Err(ApiError::resource(request.uri().path())), None, wishes(request.uri()))
}

/// Atlas's clients report how they are used. Nothing of it is looked at or kept.
pub(crate) async fn telemetry() -> Response<Body> {
    json_response(StatusCode::OK, &json!({}))
}

/// `POST /api/oauth/token`: client credentials for a bearer token.
pub(crate) async fn oauth_token(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let now = Timestamp::now();
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    match form.get("grant_type").map(String::as_str) {
        None => return refuse(StatusCode::BAD_REQUEST, "invalid_request", "grant_type is missing."),
        Some("client_credentials") => {}
        Some(_) => {
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Only client_credentials is supported.");
        }
    }
    let Some((account, secret)) = client(&app, &headers, &form, now) else { return wrong_client(&app, peer, now) };
    if let Err(too_many) = app.limits.token(&account.client_id, now) {
        return refuse_for_now(&format!("A client may ask for {TOKENS_A_MINUTE} tokens a minute."), &too_many);
    }
    let token = bearer::new_token();
    if let Err(error) = app.store.create_token(&token, &account.client_id, &secret, now) {
        tracing::error!(%error, "a token could not be kept");
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Unexpected error.");
    }
    // It ends with its secret.
    let left = account.secret(&secret, now).map_or(0, |secret| secret.expires_at.seconds_since(now));
    let life = bearer::LIFE_SECONDS.min(left);
    let answer = json!({"access_token": token.expose(), "expires_in": life, "token_type": "Bearer"});
    json_response(StatusCode::OK, &answer)
}

/// `POST /api/oauth/revoke`.
pub(crate) async fn oauth_revoke(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let now = Timestamp::now();
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let Some((account, _)) = client(&app, &headers, &form, now) else { return wrong_client(&app, peer, now) };
    let Some(token) = form.get("token") else {
        return refuse(StatusCode::BAD_REQUEST, "invalid_request", "token is missing.");
    };
    if let Err(error) = app.store.delete_token(token, &account.client_id) {
        tracing::error!(%error, "a token could not be revoked");
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Unexpected error.");
    }
    Response::new(Body::empty())
}

/// The account, and which of its secrets was given.
fn client(
    app: &App,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
    now: Timestamp,
) -> Option<(ServiceAccount, String)> {
    let basic = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer::basic);
    let (id, secret) = basic.or_else(|| Some((form.get("client_id")?.clone(), form.get("client_secret")?.clone())))?;
    bearer::check(app, &id, &secret, now)
}

fn wrong_client(app: &App, peer: SocketAddr, now: Timestamp) -> Response<Body> {
    match app.limits.wrong_credentials(peer.ip().to_canonical(), now) {
        Ok(()) => {
            let mut answer =
                refuse(StatusCode::UNAUTHORIZED, "invalid_client", "The client credentials are not valid.");
            let asked = HeaderValue::from_static("Basic realm=\"MMS Public API\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, asked);
            answer
        }
        Err(too_many) => refuse_for_now("Too many requests with wrong credentials came from this address.", &too_many),
    }
}

fn refuse_for_now(description: &str, too_many: &TooMany) -> Response<Body> {
    let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, "rate_limited", description);
    answer.headers_mut().insert(header::RETRY_AFTER, too_many.retry_after_seconds.into());
    answer
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    json_response(status, &json!({"error": error, "error_description": description}))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
