//! From where one caller may ask.

use super::authenticate::Peer;
use crate::{
    App,
    auth::{Principal, access_list},
    http::{
        audit_log, bodies,
        render::{self, ApiError, RenderOptions},
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{Method, Response},
    middleware::Next,
};
use limosa_model::{Timestamp, wire::own::Outcome};
use std::sync::Arc;

/// Refuses a caller whose access list doesn't have its address, and counts the uses of the entry that does.
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(Peer { address, .. }): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if access_list::admits(&principal.access_list, address) {
        app.access_uses.count(&principal.name, &principal.access_list, address, Timestamp::now());
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    bodies::discard(body).await;
    if parts.method != Method::GET {
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let note = move |app: &Arc<App>| {
            audit_log::audit(app, &principal, address, method.as_str(), &path, Outcome::Refused);
        };
        app.blocking(note).await;
    }
    render::respond(Err(ApiError::not_on_access_list(address)), None, RenderOptions::of(&parts.uri))
}
