//! The control plane: the Atlas-compatible API, the agents' API, the store and the timer.

mod auth;
#[cfg(feature = "bench")]
pub mod bench;
mod blocking;
mod bootstrap;
mod dashboard;
mod data_dir;
mod deadlines;
mod encryption;
mod error;
#[cfg(test)]
mod fuzz;
mod handlers;
mod http;
mod key_rotation;
mod metrics;
mod notify;
mod rate_limits;
mod service;
mod store;
mod tls;

pub use bootstrap::Bootstrap;
pub use error::ServerError;
pub use http::connections::MOST_CONNECTIONS;
pub use key_rotation::rotate_key;
pub use notify::{NotifyConfig, NotifyError, send_test};
pub use rate_limits::RequestLimits;

use axum::{ServiceExt, body::Body, http::Request};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use http::connections::{Connections, FIRST_REQUEST, Guard};
use hyper::body::Incoming;
use std::{
    fs::File,
    future::Future,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tower::{Layer, util::MapRequestLayer};

/// How long requests under way may take to end at a shutdown.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Headers of one request.
const HEADERS_BYTES: usize = 32 * 1024;

/// Requests at a time on one connection of HTTP/2.
const STREAMS: u32 = 64;

/// Bytes that a connection of HTTP/2 may send before someone reads them: the least that the protocol allows.
const UNREAD_BYTES: u32 = 65_535;

/// How long a session of the page lasts, unless configured otherwise: a night's watch.
pub const SESSION_SECONDS: i64 = 12 * 3600;

/// How to run one.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Store, key and bootstrap file.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long a synced migration waits for its cutover.
    pub cutover_window_seconds: i64,
    /// How long a session of the page in the browser lasts.
    pub session_seconds: i64,
    /// Whom to tell what, if anyone.
    pub notify: Option<NotifyConfig>,
    /// Certificate chain and key, as PEM files; without them plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// How much one caller may ask for.
    pub limits: RequestLimits,
    /// Connections that may be open at a time.
    pub most_connections: usize,
    /// Where clients reach it if that isn't where it listens: the scheme and host of a proxy before it.
    pub public_url: Option<String>,
}

/// What every handler shares.
pub(crate) struct App {
    pub store: store::Store,
    pub nonces: auth::nonce::Nonces,
    pub limits: rate_limits::RateLimits,
    pub metrics: metrics::Metrics,
    pub sessions: auth::session::Sessions,
    pub session_seconds: i64,
    pub cutover_window_seconds: i64,
    pub tls: bool,
    pub connections: Arc<Connections>,
    pub bodies: http::bodies::Budget,
    pub turns: blocking::Turns,
    pub streams: http::streams::Streams,
    /// Without a path: what `Origin` has of a page that comes through the proxy.
    pub public_url: Option<String>,
    pub access_uses: auth::access_list::Uses,
}

impl App {
    /// Whether clients reach it over TLS, its own or a proxy's.
    pub fn is_secure(&self) -> bool {
        self.tls || self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }
}

/// The origin of `text`, as browsers write it.
fn public_url(text: &str) -> Result<String, ServerError> {
    let url = url::Url::parse(text).ok();
    let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host() && url.path() == "/");
    let url = url.filter(|url| url.username().is_empty() && url.query().is_none() && url.fragment().is_none());
    Ok(url.ok_or_else(|| ServerError::PublicUrl(text.to_owned()))?.origin().ascii_serialization())
}

/// A server that is bound and not serving yet.
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    app: Arc<App>,
    tls: Option<tls::Tls>,
    notify: Option<NotifyConfig>,
    bootstrap: Option<Bootstrap>,
    /// Held as long as it serves.
    _lock: File,
}

impl Server {
    /// Opens the store, makes the first organization, group and keys if it is empty, and binds.
    pub fn start(config: &ServerConfig) -> Result<Self, ServerError> {
        let tls = config.tls.as_ref().map(|(chain, key)| tls::load(chain, key)).transpose()?;
        data_dir::create(&config.data_dir)?;
        let lock = data_dir::lock(&config.data_dir)?;
        let store = data_dir::open(&config.data_dir)?;
        let bootstrap = bootstrap::load_or_create(&config.data_dir.join("bootstrap.json"), &store)?;
        if config.notify.is_some() {
            store.begin_announcing()?;
        }
        let unbound = |e| ServerError::Bind(config.listen, e);
        let listener = TcpListener::bind(config.listen).map_err(unbound)?;
        listener.set_nonblocking(true).map_err(unbound)?;
        let addr = listener.local_addr().map_err(unbound)?;
        let most_connections = http::connections::within_the_limit_of_files(config.most_connections);
        let app = App {
            store,
            nonces: Default::default(),
            limits: rate_limits::RateLimits::new(config.limits),
            metrics: Default::default(),
            sessions: Default::default(),
            session_seconds: config.session_seconds,
            cutover_window_seconds: config.cutover_window_seconds,
            tls: tls.is_some(),
            connections: Connections::new(most_connections),
            bodies: Default::default(),
            turns: Default::default(),
            streams: Default::default(),
            public_url: config.public_url.as_deref().map(public_url).transpose()?,
            access_uses: Default::default(),
        };
        let notify = config.notify.clone();
        Ok(Self { listener, addr, app: Arc::new(app), tls, notify, bootstrap, _lock: lock })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where this machine reaches it.
    pub fn url(&self) -> String {
        tls::url(self.addr, self.tls.as_ref())
    }

    /// The first organization's keys, unless the file with them was deleted.
    pub fn bootstrap(&self) -> Option<&Bootstrap> {
        self.bootstrap.as_ref()
    }

    /// Registers a cluster with the first group, for a caller in this process who has proven himself that the URI leads to
    /// the cluster that migrations under way have: a request could not change its hosts.
    pub fn know_cluster(&self, name: &str, uri: &limosa_model::Secret) -> Result<(), ServerError> {
        let Some(group) = self.bootstrap.as_ref().map(|keys| keys.group_id) else { return Ok(()) };
        let uris = store::Uris { standard: uri.clone(), vpc_peering: None, private_links: Vec::new() };
        self.app.store.put_cluster(group, name, &uris)
    }

    /// Serves until `shutdown`; requests under way are finished, and people are told of what happened until then.
    pub async fn serve_until(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let ticking = tokio::spawn(deadlines::tick(Arc::clone(&self.app)));
        let telling = self.notify.map(|config| tokio::spawn(notify::run(Arc::clone(&self.app), config)));
        let app = Arc::clone(&self.app);
        let handle = Handle::new();
        let stopping = tokio::spawn({
            let (handle, app) = (handle.clone(), Arc::clone(&self.app));
            async move {
                shutdown.await;
                // A stream would be waited for.
                app.store.changes().end();
                handle.graceful_shutdown(Some(SHUTDOWN));
            }
        });
        let plain = MapRequestLayer::new(|r: Request<Incoming>| http::middleware::paths::normalize(r.map(Body::new)));
        let service = plain.layer(http::router::build(self.app));
        let service = ServiceExt::<Request<Incoming>>::into_make_service_with_connect_info::<SocketAddr>(service);
        let connections = Arc::clone(&app.connections);
        let sweeping = tokio::spawn(Arc::clone(&connections).sweep());
        let guard = Guard(connections);
        let listening = axum_server::from_tcp(self.listener).map_err(ServerError::Serve)?;
        let mut server = listening.acceptor(guard.clone()).handle(handle).first_request_timeout(FIRST_REQUEST);
        // What one connection may make this process hold before anyone is authenticated.
        server.http_builder().http1().max_buf_size(HEADERS_BYTES);
        server
            .http_builder()
            .http2()
            .max_header_list_size(HEADERS_BYTES as u32)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(UNREAD_BYTES)
            .initial_connection_window_size(UNREAD_BYTES)
            .max_send_buf_size(UNREAD_BYTES as usize);
        let served = match self.tls {
            Some(tls) => {
                let tls = RustlsAcceptor::new(RustlsConfig::from_config(tls.config));
                server.acceptor(tls.acceptor(guard)).serve(service).await
            }
            None => server.serve(service).await,
        };
        ticking.abort();
        sweeping.abort();
        stopping.abort();
        app.store.changes().end();
        if let Some(mut telling) = telling
            && tokio::time::timeout(notify::LAST_WORDS, &mut telling).await.is_err()
        {
            telling.abort();
        }
        served.map_err(ServerError::Serve)
    }
}
