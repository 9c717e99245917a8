//! How much one caller asks for.

use crate::{
    App,
    auth::Principal,
    http::{
        bodies,
        render::{self, ApiError, RenderOptions},
    },
    rate_limits::RateLimitExceeded,
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::Response,
    middleware::Next,
};
use limosa_model::Timestamp;
use std::sync::Arc;

/// Counts the request, refuses one too many, and says in each answer what is left.
pub(crate) async fn count(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let now = Timestamp::now();
    let (limit, left) = app.limits.request(&principal.name, request.uri().path(), now);
    let mut response = if left < 0 { refuse(request, limit, now).await } else { next.run(request).await };
    response.headers_mut().insert("ratelimit-limit", limit.into());
    response.headers_mut().insert("ratelimit-remaining", left.max(0).into());
    response
}

async fn refuse(request: Request, limit: u32, now: Timestamp) -> Response<Body> {
    let (parts, body) = request.into_parts();
    bodies::discard(body).await;
    let path = parts.uri.path();
    let detail = format!("Resource {path} is limited to {limit} requests every minute.");
    let error = ApiError::rate_limited(detail, &[path], &RateLimitExceeded::at(now));
    render::respond(Err(error), None, RenderOptions::of(&parts.uri))
}
