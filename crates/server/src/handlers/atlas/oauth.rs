//! Bearer tokens for service accounts, in OAuth's words: its errors have their own form.

use crate::{
    App,
    auth::{bearer, digest::REALM},
    rate_limits::{RateLimitExceeded, TOKENS_A_MINUTE},
    store::ServiceAccount,
};
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use limosa_model::Timestamp;
use serde_json::{Value, json};
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

/// `POST /api/oauth/token`: client credentials for a bearer token.
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    app.blocking(move |app| exchange(app, peer, &headers, &body)).await
}

fn exchange(app: &App, peer: SocketAddr, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
    let now = Timestamp::now();
    let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    match form.get("grant_type").map(String::as_str) {
        None => return refuse(StatusCode::BAD_REQUEST, "invalid_request", "grant_type is missing."),
        Some("client_credentials") => {}
        Some(_) => {
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Only client_credentials is supported.");
        }
    }
    let Some((account, secret)) = client(app, headers, &form, now) else { return wrong_client(app, peer, now) };
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
    let granted = json!({"access_token": token.expose(), "expires_in": life, "token_type": "Bearer"});
    answer(StatusCode::OK, &granted)
}

/// `POST /api/oauth/revoke`.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    app.blocking(move |app| forget(app, peer, &headers, &body)).await
}

fn forget(app: &App, peer: SocketAddr, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
    let now = Timestamp::now();
    let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let Some((account, _)) = client(app, headers, &form, now) else { return wrong_client(app, peer, now) };
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
    if let Err(too_many) = app.limits.wrong_credentials(peer.ip().to_canonical(), now) {
        return refuse_for_now("Too many requests with wrong credentials came from this address.", &too_many);
    }
    let mut answer = refuse(StatusCode::UNAUTHORIZED, "invalid_client", "The client credentials are not valid.");
    if let Ok(challenge) = HeaderValue::from_str(&format!("Basic realm=\"{REALM}\"")) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

fn refuse_for_now(description: &str, too_many: &RateLimitExceeded) -> Response<Body> {
    let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, "rate_limited", description);
    answer.headers_mut().insert(header::RETRY_AFTER, too_many.retry_after_seconds.into());
    answer
}

fn refuse(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    answer(status, &json!({"error": error, "error_description": description}))
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
