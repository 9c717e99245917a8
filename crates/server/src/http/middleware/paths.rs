//! The request's path: brought into one form, and answered where it leads nowhere.

use crate::http::render::{self, ApiError, RenderOptions};
use axum::{
    body::Body,
    extract::Request,
    http::{Response, Uri, uri::PathAndQuery},
};

/// The request's target as the client wrote it: what digest authentication signs.
#[derive(Clone, Debug)]
pub(super) struct Target(pub String);

/// Collapses repeated slashes and strips a trailing one.
pub(crate) fn normalize(mut request: Request) -> Request {
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

/// Answers a path that leads nowhere.
pub(crate) async fn unknown(request: Request) -> Response<Body> {
    render::respond(Err(ApiError::resource(request.uri().path())), None, RenderOptions::of(request.uri()))
}
