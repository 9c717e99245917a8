//! The router, made of the table of routes, and the layers that every request passes.

use crate::{
    App, dashboard,
    http::{
        dispatch,
        middleware::{access_list, authenticate, body, headers, panics, paths, rate_limit, request_id},
        openapi, table,
    },
    metrics,
};
use axum::{
    Router,
    extract::{Path, Request, State},
    http::{Method, StatusCode},
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{MethodFilter, MethodRouter, get, on},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer, timeout::TimeoutLayer};

/// How long a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        Method::PATCH => MethodFilter::PATCH,
        _ => MethodFilter::GET,
    }
}

/// All operations of the table, and what else is for known callers.
fn operations(app: &Arc<App>) -> Router<Arc<App>> {
    let mut paths: BTreeMap<&str, MethodRouter<Arc<App>>> = BTreeMap::new();
    for route in table::routes() {
        let handler = move |app: State<Arc<App>>, params: Path<HashMap<String, String>>, request: Request| {
            dispatch::answer_apart(route, app, params, request)
        };
        let known = paths.remove(route.path).unwrap_or_default();
        paths.insert(route.path, known.merge(on(filter(&route.method), handler)));
    }
    paths
        .into_iter()
        .fold(Router::new(), |router, (path, route)| router.route(path, route))
        .route("/metrics", get(metrics::scrape))
        .fallback(paths::unknown)
        .layer(from_fn_with_state(Arc::clone(app), body::hold))
        .layer(from_fn_with_state(Arc::clone(app), access_list::check))
        .layer(from_fn_with_state(Arc::clone(app), rate_limit::count))
        .layer(from_fn_with_state(Arc::clone(app), authenticate::require))
}

/// Where callers prove by a body who they are.
fn signing_in(app: &Arc<App>) -> Router<Arc<App>> {
    dashboard::routes().merge(table::tokens()).layer(from_fn_with_state(Arc::clone(app), body::hold_sign_in))
}

/// The whole API.
pub(crate) fn build(app: Arc<App>) -> Router {
    operations(&app)
        .merge(signing_in(&app))
        .route("/api/openapi.json", get(async || axum::Json(openapi::document().clone()).into_response()))
        .merge(table::telemetry())
        .layer(from_fn_with_state(Arc::clone(&app), headers::set))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::custom(panics::answer))
        .layer(from_fn_with_state(Arc::clone(&app), metrics::measure))
        .layer(from_fn(request_id::name))
        .with_state(app)
}
