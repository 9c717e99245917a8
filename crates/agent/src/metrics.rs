//! `/metrics` of a migration host, for a Prometheus: how its engine works. No secret and no name of what is migrated is in
//! it, and nobody has to sign in to read it; it is served only where that was asked for.

use crate::AgentError;
use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use limosa_engine::Metrics;
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{future::Future, net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the address; the future serves it.
pub(crate) async fn listen(
    address: SocketAddr,
    metrics: &Metrics,
) -> Result<impl Future<Output = ()> + Send + use<>, AgentError> {
    let listener = TcpListener::bind(address).await.map_err(|e| AgentError::Listen(address, e))?;
    let mut registry = Registry::with_prefix("limosa_engine");
    metrics.register(&mut registry);
    let registry = Arc::new(registry);
    let scrape = move || {
        let registry = Arc::clone(&registry);
        async move {
            let mut text = String::new();
            match encode(&mut text, &registry) {
                Ok(()) => Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text)),
                Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
    };
    let router = Router::new().route("/metrics", get(scrape));
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics are no longer served");
        }
    })
}
