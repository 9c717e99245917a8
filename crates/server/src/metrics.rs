//! `/metrics`: what a Prometheus scrapes. Counters live here; how many migrations and agents there are is asked of the
//! store at each scrape, so that it can't go wrong with time.

mod migrations;

use crate::{
    App,
    auth::Principal,
    http::{
        middleware::request_id,
        render::{self, ApiError, RenderOptions},
    },
    store::SEEN_SECONDS,
};
use axum::{
    Extension,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Response, header},
    middleware::Next,
};
use limosa_model::{OrgId, PhaseKind, Timestamp};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{sync::Arc, time::Instant};

/// Seconds: from an answer out of the store's cache to one that waits for its lock.
const BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    /// As in the API document; of what leads nowhere, nothing is said.
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    method: String,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// All of this process.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
    migrations: Family<PhaseLabels, Gauge>,
    agents: Gauge,
    connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<DurationLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let migrations = Family::<PhaseLabels, Gauge>::default();
        let agents = Gauge::default();
        let mut registry = Registry::with_prefix("limosa");
        registry.register("http_requests", "Requests answered", requests.clone());
        let about = "Time from a request's head to its answer's";
        registry.register_with_unit("http_request_duration", about, Unit::Seconds, durations.clone());
        registry.register("migrations", "Migrations in the store, by phase", migrations.clone());
        registry.register("agents", "Agents that reported within the last minute", agents.clone());
        let connections = Gauge::default();
        registry.register("http_connections", "Connections that are open", connections.clone());
        Self { registry, requests, durations, migrations, agents, connections }
    }
}

/// Counts and times each request.
pub(crate) async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let method = request_id::method(request.method()).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let taken = DurationLabels { method: method.clone(), route: route.clone() };
    app.metrics.durations.get_or_create(&taken).observe(began.elapsed().as_secs_f64());
    app.metrics.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    response
}

/// `GET /metrics`, for callers who may read the organization.
pub(crate) async fn scrape(State(app): State<Arc<App>>, Extension(principal): Extension<Principal>) -> Response<Body> {
    let org = principal.org_id;
    let text = match principal.reads_all() {
        Ok(()) => app.blocking(move |app| written(app, org)).await,
        Err(denied) => Err(denied),
    };
    match text {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            let media = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            response
        }
        Err(error) => render::respond(Err(error), None, RenderOptions::default()),
    }
}

fn written(app: &App, org: OrgId) -> Result<String, ApiError> {
    let found = app.store.migrations_by_phase()?;
    for phase in PhaseKind::ALL {
        let phase = phase.name();
        let count = found.iter().find(|(name, _)| name == phase).map_or(0, |(_, count)| *count);
        app.metrics.migrations.get_or_create(&PhaseLabels { phase }).set(count);
    }
    app.metrics.agents.set(app.store.agents_since(Timestamp::now().plus_seconds(-SEEN_SECONDS))?);
    app.metrics.connections.set(app.connections.count() as i64);
    let mut text = String::new();
    encode(&mut text, &app.metrics.registry).map_err(|e| crate::ServerError::Corrupt(e.to_string()))?;
    let own = migrations::series(app, org, Timestamp::now())?;
    // The end mark comes last.
    Ok(text.replace("# EOF\n", &format!("{own}# EOF\n")))
}
