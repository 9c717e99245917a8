//! The router, made of the table of routes, and the layers that every request passes.

use crate::{
    App, dashboard,
    http::{dispatch, middleware, openapi, table::routes},
    metrics,
};
use axum::{
    Router,
    extract::{Path, Request, State},
    http::{Method, StatusCode},
    response::IntoResponse,
    routing::{MethodFilter, MethodRouter, get, on, post},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer, timeout::TimeoutLayer};

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        Method::PATCH => MethodFilter::PATCH,
        _ => MethodFilter::GET,
    }
}

/// Where callers prove by a body who they are.
fn signing_in(app: &Arc<App>) -> Router<Arc<App>> {
    dashboard::routes()
        .route("/api/oauth/token", post(middleware::oauth_token))
        .route("/api/oauth/revoke", post(middleware::oauth_revoke))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), middleware::read_sign_in))
}

/// The whole API.
pub(crate) fn build(app: Arc<App>) -> Router {
    let mut paths: BTreeMap<&str, MethodRouter<Arc<App>>> = BTreeMap::new();
    for route in routes() {
        let handler = move |app: State<Arc<App>>, params: Path<HashMap<String, String>>, request: Request| {
            dispatch::answer_apart(route, app, params, request)
        };
        let known = paths.remove(route.path).unwrap_or_default();
        paths.insert(route.path, known.merge(on(filter(&route.method), handler)));
    }
    let api = paths.into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route));
    api.route("/metrics", get(metrics::scrape))
        .fallback(middleware::unknown)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::authenticate))
        .merge(signing_in(&app))
        .route("/api/openapi.json", get(async || axum::Json(openapi::document().clone()).into_response()))
        .route("/api/private/v1.0/telemetry/events", post(middleware::telemetry))
        .route("/api/private/unauth/telemetry/events", post(middleware::telemetry))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::headers))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, middleware::REQUEST_TIMEOUT))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), metrics::measure))
        .with_state(app)
}
