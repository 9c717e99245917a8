//! What keeps a server from running. What a request is answered with is [`crate::http::render::ApiError`].

use std::{net::SocketAddr, path::PathBuf};

/// A server can't start or continue.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file of the data directory.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// Another process is at it.
    #[error("{0} is in use by another limosa; stop that first")]
    InUse(PathBuf),
    /// The store.
    #[error("the store can't be used: {0}")]
    Store(#[from] rusqlite::Error),
    /// Something stored doesn't fit this version, or the key.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// The address.
    #[error("can't listen on {0}: {1}; choose another with --listen")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// Where clients reach it.
    #[error("{0} is no address for --public-url: write the proxy's scheme and host, as https://limosa.example.com")]
    PublicUrl(String),
    /// The certificate or its key.
    #[error("{0} can't be used for TLS: {1}")]
    Certificate(PathBuf, String),
    /// The listener broke.
    #[error("serving ended: {0}")]
    Serve(#[source] std::io::Error),
}
