//! The page in the browser: static files, embedded, and the session by which it is let in. Everything that it shows and
//! does goes through the same API as any other client's requests.

mod files;
mod session;

use crate::App;
use axum::{Router, routing::get};
use std::sync::Arc;

/// Its routes; none asks for credentials, since what they give is public, or is the asking itself.
pub(crate) fn routes() -> Router<Arc<App>> {
    let session = get(session::read).post(session::sign_in).delete(session::sign_out);
    Router::new()
        .route("/", get(files::index))
        .route("/ui/{*file}", get(files::file))
        .route("/api/limosa/v1/session", session)
}
