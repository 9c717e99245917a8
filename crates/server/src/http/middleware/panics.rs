//! The answer after a panic.

use crate::http::render::{self, ApiError, RenderOptions};
use axum::{
    body::Body,
    http::{Response, StatusCode},
};

/// An answer that says nothing of the panic: that is in the log.
pub(crate) fn answer(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    let detail = "Unexpected error.";
    let error = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "UNEXPECTED_ERROR", detail, &[]);
    render::respond(Err(error), None, RenderOptions::default())
}
