//! Reads the settings of notifications from their file, and checks them before anything is sent.

use crate::notify::{
    channel,
    config::{NotifyConfig, NotifyError},
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

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
        channel::all(self).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::Occasion;

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
