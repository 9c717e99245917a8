//! Headers of all answers.

use crate::{
    App,
    http::render::{self, RenderOptions},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header},
    middleware::Next,
};
use std::sync::Arc;

/// Sets what is common to all answers, errors included.
pub(crate) async fn set(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let options = RenderOptions::of(request.uri());
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = render::method_not_allowed(&response, &method, &path, options);
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
