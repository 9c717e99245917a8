//! Whom to tell what: a TOML file that only its owner may read, since it holds secrets.

use crate::notify::message::Occasion;
use limosa_model::Secret;
use serde::Deserialize;
use std::path::PathBuf;

/// The file's content.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// Where the page in the browser is, for links.
    #[serde(default)]
    pub page: Option<String>,
    /// Of what to tell; without it of everything.
    #[serde(default)]
    on: Option<Vec<Occasion>>,
    /// HTTP endpoints.
    #[serde(default)]
    pub(super) webhook: Vec<Webhook>,
    /// A mail server and those to write to.
    #[serde(default)]
    pub(super) mail: Option<Mail>,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub url: String,
    /// What requests are signed with.
    pub secret: Secret,
}

/// A mail server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    /// `smtps://user:password@host`, `smtp://user:password@host:587?tls=required`, or `smtp://localhost`.
    pub server: Secret,
    pub from: String,
    pub to: Vec<String>,
}

/// Why someone can't be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The file.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// A setting in it.
    #[error("{0}")]
    Setting(String),
    /// The receiver didn't take it.
    #[error("{0}")]
    NotTaken(String),
}

impl NotifyConfig {
    pub(super) fn wants(&self, occasion: Occasion) -> bool {
        self.on.as_ref().is_none_or(|on| on.contains(&occasion))
    }
}
