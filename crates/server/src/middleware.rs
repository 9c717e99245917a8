//! What happens to every request before its handler, in this order: the body is read (bounded), the caller is
//! authenticated, counted, and only then does a handler see anything.

use crate::{
    App,
    auth::{Principal, bearer, digest},
    render::{self, ApiError, Wishes},
};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
    middleware::Next,
};
use limosa_model::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The largest body that is read; no request of this API needs more.
const BODY_BYTES: usize = 1024 * 1024;

/// Requests counted in windows of one minute.
#[derive(Default)]
pub(crate) struct RateLimits(Mutex<HashMap<Counted, (i64, u32)>>);

/// Who asked for which kind of resource.
type Counted = (String, &'static str);

impl RateLimits {
    /// Counts one; the limit and what is left, negative when it is passed.
    fn count(&self, caller: &str, path: &str, now: Timestamp) -> (u32, i64) {
        let (kind, limit) = match path {
            p if p.starts_with("/api/atlas/v2/orgs") => ("orgs", 500),
            p if p.starts_with("/api/limosa/v1/agents") => ("agents", 60_000),
            _ => ("groups", 1200),
        };
        let minute = now.0 / 60_000;
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|_, (window, _)| *window == minute);
        let (_, count) = windows.entry((caller.to_owned(), kind)).or_insert((minute, 0));
        *count += 1;
        (limit, i64::from(limit) - i64::from(*count))
    }
}

/// Common to all answers, errors included.
pub(crate) async fn headers(request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    let fixed = [
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("x-permitted-cross-domain-policies", "none"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Lets authenticated requests through; their [`Principal`] and body are extensions from here on.
pub(crate) async fn authenticate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let now = Timestamp::now();
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let body = axum::body::to_bytes(body, BODY_BYTES).await;
    let principal = match identify(&app, &parts.headers, parts.method.as_str(), &target, now) {
        Ok(principal) => principal,
        Err(response) => return *response,
    };
    let (limit, left) = app.limits.count(&principal.name, parts.uri.path(), now);
    let mut response = match body {
        _ if left < 0 => {
            let path = parts.uri.path();
            let mut error = ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                format!("Resource {path} is limited to {limit} requests every minute."),
                &[path],
            );
            error.retry_after = Some(60 - now.0 / 1000 % 60);
            render::respond(Err(error), None, wishes(&parts.uri))
        }
        Err(_) => {
            let detail = format!("The request body is larger than {BODY_BYTES} bytes.");
            let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "VALIDATION_ERROR", detail, &[]);
            render::respond(Err(error), None, wishes(&parts.uri))
        }
        Ok(body) => {
            parts.extensions.insert(principal);
            parts.extensions.insert(body);
            next.run(Request::from_parts(parts, Body::empty())).await
        }
    };
    response.headers_mut().insert("ratelimit-limit", limit.into());
    response.headers_mut().insert("ratelimit-remaining", left.max(0).into());
    response
}

fn identify(
    app: &App,
    headers: &HeaderMap,
    method: &str,
    target: &str,
    now: Timestamp,
) -> Result<Principal, Box<Response<Body>>> {
    let ask = |stale| Box::new(render::unauthorized(&digest::challenge(&app.nonces.issue(now), stale)));
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else { return Err(ask(false)) };
    if let Some(token) = given.strip_prefix("Bearer ") {
        return app
            .tokens
            .check(token.trim(), now)
            .ok_or_else(|| Box::new(render::unauthorized("Bearer error=\"invalid_token\"")));
    }
    digest::check(app, given, method, target, now).map_err(|refused| ask(refused == digest::Refused::Stale))
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

/// `POST /api/oauth/token`: client credentials for a bearer token.
pub(crate) async fn oauth_token(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let refuse = |status: StatusCode, error: &str, description: &str| {
        json_response(status, &serde_json::json!({"error": error, "error_description": description}))
    };
    match form.get("grant_type").map(String::as_str) {
        None => return refuse(StatusCode::BAD_REQUEST, "invalid_request", "grant_type is missing."),
        Some("client_credentials") => {}
        Some(_) => {
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Only client_credentials is supported.");
        }
    }
    let Some(principal) = client(&app, &headers, &form) else {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client", "The client credentials are not valid.");
    };
    let token = app.tokens.issue(principal, Timestamp::now());
    let answer =
        serde_json::json!({"access_token": token.expose(), "expires_in": bearer::LIFE_SECONDS, "token_type": "Bearer"});
    json_response(StatusCode::OK, &answer)
}

/// `POST /api/oauth/revoke`.
pub(crate) async fn oauth_revoke(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    if client(&app, &headers, &form).is_none() {
        let error = serde_json::json!({"error": "invalid_client", "error_description": "The client credentials are not valid."});
        return json_response(StatusCode::UNAUTHORIZED, &error);
    }
    form.get("token").into_iter().for_each(|token| app.tokens.revoke(token));
    Response::new(Body::empty())
}

fn client(app: &App, headers: &HeaderMap, form: &HashMap<String, String>) -> Option<Principal> {
    use subtle::ConstantTimeEq;
    let basic = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer::basic);
    let (id, secret) = basic.or_else(|| Some((form.get("client_id")?.clone(), form.get("client_secret")?.clone())))?;
    let known = app.store.service_account(&id).ok().flatten();
    let (org_id, hash) = known.map_or((None, bearer::hash("")), |(org, hash)| (Some(org), hash));
    let equal: bool = hash.as_bytes().ct_eq(bearer::hash(&secret).as_bytes()).into();
    org_id.filter(|_| equal).map(|org_id| Principal { org_id, name: id, is_owner: true })
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
