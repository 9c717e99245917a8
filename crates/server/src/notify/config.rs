//! Whom to tell what: a TOML file that only its owner may read, since it holds secrets.

use super::message::Occasion;
use limosa_model::Secret;
use serde::Deserialize;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

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
    /// Reads and checks it.
    pub fn read(file: &Path) -> Result<Self, NotifyError> {
        let refuse = |why: String| NotifyError::File(file.to_owned(), why);
        let mode = fs::metadata(file).map_err(|e| refuse(e.to_string()))?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(refuse("holds secrets and is open to everyone; take that away with chmod o-rwx".to_owned()));
        }
        let text = fs::read_to_string(file).map_err(|e| refuse(e.to_string()))?;
        // The parser's own message would quote the line, and a line may hold a secret.
        let config: Self = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count());
            refuse(format!("line {line}: {}", e.message()))
        })?;
        config.check().map(|()| config).map_err(|e| refuse(e.to_string()))
    }

    fn check(&self) -> Result<(), NotifyError> {
        if self.webhook.is_empty() && self.mail.is_none() {
            return Err(NotifyError::Setting("there is neither a [[webhook]] nor [mail]".to_owned()));
        }
        for webhook in &self.webhook {
            if webhook.secret.expose().len() < 16 {
                return Err(NotifyError::Setting(format!(
                    "the secret for {} is shorter than 16 characters",
                    webhook.url
                )));
            }
        }
        super::channel::all(self).map(drop)
    }

    pub(super) fn wants(&self, occasion: Occasion) -> bool {
        self.on.as_ref().is_none_or(|on| on.contains(&occasion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, mode: u32) -> Result<NotifyConfig, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("notify.toml");
        fs::write(&file, text).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("sets");
        NotifyConfig::read(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn a_bad_file_is_refused_without_its_secrets() {
        let good = "on = [\"ready\"]\n[[webhook]]\nurl = \"http://127.0.0.1:1/\"\nsecret = \"0123456789abcdef\"\n\
                    [mail]\nserver = \"smtp://127.0.0.1:1\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n";
        let config = read(good, 0o600).expect("is fine");
        assert!(config.wants(Occasion::Ready) && !config.wants(Occasion::Failed));
        for (text, mode, wanted) in [
            (good, 0o644, "chmod o-rwx"),
            ("", 0o600, "neither"),
            ("[[webhook]]\nurl = \"http://127.0.0.1/\"\nsecret = \"hunter2\"\n", 0o600, "shorter than 16"),
            ("[[webhook]]\nurl = 5\nsecret = \"hunter2hunter2hunter2\"\n", 0o600, "line 2"),
            ("on = [\"lunch\"]\n", 0o600, "lunch"),
            ("[mail]\nserver = \"http://x\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]", 0o600, "mail server"),
            ("[mail]\nserver = \"smtp://x\"\nfrom = \"nobody\"\nto = [\"b@example.com\"]", 0o600, "nobody"),
        ] {
            let error = read(text, mode).expect_err(wanted);
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
        }
    }
}
