//! What surrounds every handler: negotiation, the body held against its schema, the audit, rendering.

use crate::{
    App,
    auth::Principal,
    http::{
        audit_log,
        bodies::HeldBody,
        body_validation,
        context::Call,
        middleware::authenticate::Peer,
        negotiate::{negotiate, written},
        openapi,
        render::{self, ApiError, RenderOptions, Reply},
        route::Route,
        shape::Shape,
        streams::STREAMS_OF_ONE,
        strict_json::Strict,
    },
};
use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use limosa_model::{ApiVersion, Secret, protocol::SECRET_HEADER, wire::own::Outcome};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};

/// Answers one request with `route`'s handler.
fn answer(route: &'static Route, app: &Arc<App>, params: HashMap<String, String>, request: &Request) -> Response<Body> {
    let options = RenderOptions::of(request.uri());
    let accepts = request.headers().get_all(header::ACCEPT);
    let accept = accepts.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    let negotiated = version_of(route, &accept);
    let version = negotiated.as_ref().ok().copied().flatten();
    let result =
        negotiated.and_then(|version| call(route, app, params, request, version.unwrap_or(ApiVersion::V2023_01_01)));
    let sunset = version.is_some_and(|version| route.is_deprecated(version));
    match (result, route.stream) {
        (Ok((_, call)), Some(stream)) if accept.contains("text/event-stream") => {
            match call.app.streams.begin(&call.principal) {
                Some(guard) => guard.hold(stream(call)),
                None => render::respond(Err(too_many_streams()), version, options),
            }
        }
        (result, _) => render::respond(result.map(|(reply, _)| Reply { sunset, ..reply }), version, options),
    }
}

fn too_many_streams() -> ApiError {
    let detail = format!("One caller may follow {STREAMS_OF_ONE} streams of events at a time. End one of them first.");
    ApiError { retry_after: Some(1), ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", detail, &[]) }
}

/// The version to answer with; none outside of the Atlas part.
fn version_of(route: &Route, accept: &str) -> Result<Option<ApiVersion>, ApiError> {
    if route.versions.is_empty() && route.removed.is_empty() {
        return Ok(None);
    }
    Ok(Some(negotiate(accept, route.versions, route.removed)?))
}

/// Answers it on a thread that may wait for the disk.
pub(crate) async fn answer_apart(
    route: &'static Route,
    State(app): State<Arc<App>>,
    Path(params): Path<HashMap<String, String>>,
    request: Request,
) -> Response<Body> {
    app.blocking(move |app| answer(route, app, params, &request)).await
}

fn call(
    route: &'static Route,
    app: &Arc<App>,
    params: HashMap<String, String>,
    request: &Request,
    version: ApiVersion,
) -> Result<(Reply, Call), ApiError> {
    let unknown = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "UNEXPECTED_ERROR", "Unexpected error.", &[]);
    let extensions = request.extensions();
    let principal = extensions.get::<Principal>().cloned().ok_or_else(unknown)?;
    let held = extensions.get::<HeldBody>().cloned().ok_or_else(unknown)?;
    let peer = extensions.get::<Peer>().cloned().ok_or_else(unknown)?;
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let path = request.uri().path().to_owned();
    let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let seen = text("last-event-id").and_then(|seen| seen.parse().ok());
    let body_version = written(text("content-type").unwrap_or_default(), route.versions).unwrap_or(version);
    let mut call = Call {
        app: Arc::clone(app),
        principal,
        params,
        body_version,
        address: peer.address,
        agent_secret: text(SECRET_HEADER).map(Secret::new),
        base: peer.base.clone(),
        path,
        last_event_id: seen.unwrap_or(0),
        body: Value::Null,
        raw: HeldBody::default(),
        query: query.into_owned().collect(),
        span: tracing::Span::current(),
    };
    let done = handle(route, &mut call, request, held);
    if request.method() != Method::GET && route.audited {
        match &done {
            Ok(reply) => note(&call, route, Some(reply)),
            Err(error) if matches!(error.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                note(&call, route, None);
            }
            Err(_) => {}
        }
    }
    Ok((done?, call))
}

fn handle(route: &Route, call: &mut Call, request: &Request, held: HeldBody) -> Result<Reply, ApiError> {
    (route.authorize)(&call.principal)?;
    for name in ["envelope", "pretty"] {
        call.flag(name, false)?;
    }
    match route.body_at(call.body_version) {
        Some(shape) if shape.is_any() => call.raw = held,
        Some(shape) => call.body = body(request.headers(), &held.bytes, shape, route.normalize)?,
        None => {}
    }
    (route.handler)(call)
}

/// The body, of the shape that the API document shows.
fn body(headers: &HeaderMap, bytes: &Bytes, shape: &Shape, normalize: fn(&mut Value)) -> Result<Value, ApiError> {
    let empty = bytes.is_empty();
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let dated = essence.starts_with("application/vnd.atlas.") && essence.ends_with("+json");
    if !empty && essence != "application/json" && !dated {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "The request's Content-Type must be application/json.",
            &[],
        ));
    }
    let mut value = match empty {
        true if !shape.required => Value::Object(serde_json::Map::new()),
        _ => serde_json::from_slice::<Strict>(bytes).map_err(|_| ApiError::malformed())?.0,
    };
    normalize(&mut value);
    body_validation::check(&mut value, &shape.schema, openapi::components())?;
    Ok(value)
}

/// Who did what: the path, and the id of what was made; without a reply, who was refused.
fn note(call: &Call, route: &Route, reply: Option<&Reply>) {
    let made = |name: &str| reply.and_then(|reply| reply.body.as_ref()?.get(name)?.as_str());
    let named = || call.body.get("agentId").and_then(Value::as_str);
    let target = match made("_id").or_else(|| made("id")).or_else(|| made("clientId")).or_else(named) {
        Some(id) if !call.path.contains(id) => format!("{}/{id}", call.path),
        _ => call.path.clone(),
    };
    let outcome = if reply.is_some() { Outcome::Done } else { Outcome::Refused };
    audit_log::audit(&call.app, &call.principal, call.address, route.operation, &target, outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_removed_version_is_told_as_gone() {
        let mut route = Route::new(Method::GET, "/", "listThings", |_| Ok(Reply::ok(Value::Null)));
        (route.versions, route.removed) = (&[ApiVersion::V2024_05_30], &[ApiVersion::V2023_01_01]);
        let asked = version_of(&route, "application/vnd.atlas.2024-01-01+json");
        let refused = asked.map(|_| Reply::ok(Value::Null));
        let answer = render::respond(refused, None, RenderOptions::default());
        assert_eq!(answer.status(), StatusCode::GONE);
        assert_eq!(answer.headers()["x-error-code"], "VERSION_GONE");
        assert_eq!(answer.headers()["content-type"], "application/json");
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("is there");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let expected = serde_json::json!({
            "detail": "Version 2023-01-01 of this resource was removed. Ask for a later one.",
            "error": 410, "errorCode": "VERSION_GONE", "parameters": ["2023-01-01"], "reason": "Gone",
        });
        assert_eq!(body, expected);
        assert_eq!(version_of(&route, "application/vnd.atlas.2025-01-01+json"), Ok(Some(ApiVersion::V2024_05_30)));
    }
}
