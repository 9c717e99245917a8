//! `/api/limosa/v1/session`: in, out, and who is in.

use crate::{
    App,
    auth::{Principal, access_list, session},
    http::{
        audit_log,
        render::{self, ApiError, Reply},
    },
};
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
};
use limosa_model::{Secret, Timestamp, wire::own::Outcome};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

const SESSION: &str = "/api/limosa/v1/session";

/// What the sign-in form sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// A public key or a client id.
    name: String,
    /// The private key or the client's secret.
    secret: Secret,
}

fn shown(principal: &Principal, until: Timestamp) -> Value {
    json!({
        "name": principal.name,
        "orgId": principal.org_id.to_string(),
        "roles": principal.roles,
        "expiresAt": until.rfc3339(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn error(status: StatusCode, code: &'static str, detail: &str) -> Response<Body> {
    render::respond(Err(ApiError::new(status, code, detail, &[])), None, render::RenderOptions::default())
}

fn set_cookie(mut response: Response<Body>, cookie: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET`: the caller, and until when the session lasts.
pub(super) async fn read(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    match app.blocking(move |app| session::caller(app, &headers, Timestamp::now())).await {
        Some((principal, until)) => {
            render::respond(Ok(Reply::ok(shown(&principal, until))), None, render::RenderOptions::default())
        }
        None => render::unauthorized("Session"),
    }
}

/// `POST`: a session for a key or a service account.
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if !session::is_own(&app, &headers, &uri) {
        return error(StatusCode::FORBIDDEN, "CROSS_SITE_REQUEST", "This request must come from the page itself.");
    }
    app.blocking(move |app| open(app, peer.ip().to_canonical(), &body)).await
}

fn open(app: &App, address: IpAddr, body: &Bytes) -> Response<Body> {
    let now = Timestamp::now();
    let Ok(Credentials { name, secret }) = serde_json::from_slice(body) else {
        return error(StatusCode::BAD_REQUEST, "MALFORMED_JSON", "Received JSON is malformed.");
    };
    let Some((principal, secret)) = session::check(app, name.trim(), secret.expose().trim(), now) else {
        // Only what is wrong is counted: nobody locks out who sits behind the same proxy.
        if let Err(too_many) = app.limits.wrong_sign_in(name.trim(), address, now) {
            let detail = "Too many wrong attempts to sign in; wait a minute, then try again.";
            let error = ApiError::rate_limited(detail, &[], &too_many);
            return render::respond(Err(error), None, render::RenderOptions::default());
        }
        return error(
            StatusCode::UNAUTHORIZED,
            "WRONG_CREDENTIALS",
            "There is no such key or service account, or its secret is another one.",
        );
    };
    if !access_list::admits(&principal.access_list, address) {
        audit_log::audit(app, &principal, address, "signIn", SESSION, Outcome::Refused);
        let detail = format!("IP address {address} is not allowed to access this resource.");
        return error(StatusCode::FORBIDDEN, "IP_ADDRESS_NOT_ON_ACCESS_LIST", &detail);
    }
    audit_log::audit(app, &principal, address, "signIn", SESSION, Outcome::Done);
    let until = now.plus_seconds(app.session_seconds);
    let token = app.sessions.open(session::Session { name: principal.name.clone(), secret, until }, now);
    let answer = render::respond(Ok(Reply::ok(shown(&principal, until))), None, render::RenderOptions::default());
    set_cookie(answer, &session::cookie(app, token.expose(), app.session_seconds))
}

/// `DELETE`: the session ends, here and in the browser.
pub(super) async fn sign_out(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    if !session::is_own(&app, &headers, &uri) {
        return error(StatusCode::FORBIDDEN, "CROSS_SITE_REQUEST", "This request must come from the page itself.");
    }
    if let Some(token) = session::token(&app, &headers) {
        app.sessions.close(token);
    }
    let answer = render::respond(Ok(Reply::with(StatusCode::NO_CONTENT, None)), None, render::RenderOptions::default());
    set_cookie(answer, &session::cookie(&app, "", 0))
}
