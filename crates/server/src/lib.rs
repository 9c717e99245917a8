//! The control plane: the Atlas-compatible API, the agents' API, the store and the scheduler.

mod auth;
mod bootstrap;
mod error;
mod middleware;
mod negotiate;
mod render;
mod router;
mod routes;
mod scheduler;
mod seal;
mod store;

pub use bootstrap::Bootstrap;
pub use error::ServerError;

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc};

/// How to run one.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Store, key and bootstrap file.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long a synced migration waits for its cutover.
    pub cutover_window_seconds: i64,
}

/// What every handler shares.
pub(crate) struct App {
    pub store: store::Store,
    pub nonces: auth::nonce::Nonces,
    pub tokens: auth::bearer::Tokens,
    pub limits: middleware::RateLimits,
    pub cutover_window_seconds: i64,
}

/// A server that is bound and not serving yet.
pub struct Server {
    listener: tokio::net::TcpListener,
    addr: SocketAddr,
    app: Arc<App>,
    bootstrap: Bootstrap,
}

impl Server {
    /// Opens the store, makes the first organization, group and keys if there are none, and binds.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        bootstrap::create_private_dir(&config.data_dir)?;
        let seal = seal::Seal::open(&config.data_dir.join("secret.key"))?;
        let store = store::Store::open(&config.data_dir.join("limosa.db"), seal)?;
        let bootstrap = bootstrap::load_or_create(&config.data_dir.join("bootstrap.json"), &store)?;
        let listener =
            tokio::net::TcpListener::bind(config.listen).await.map_err(|e| ServerError::Bind(config.listen, e))?;
        let addr = listener.local_addr().map_err(|e| ServerError::Bind(config.listen, e))?;
        let app = App {
            store,
            nonces: Default::default(),
            tokens: Default::default(),
            limits: Default::default(),
            cutover_window_seconds: config.cutover_window_seconds,
        };
        Ok(Self { listener, addr, app: Arc::new(app), bootstrap })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The first organization's keys.
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// Serves until `shutdown`; requests under way are finished.
    pub async fn serve_until(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let ticking = tokio::spawn(scheduler::tick(Arc::clone(&self.app)));
        let router = router::build(self.app).into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(self.listener, router).with_graceful_shutdown(shutdown).await;
        ticking.abort();
        served.map_err(ServerError::Serve)
    }
}
