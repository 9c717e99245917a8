//! How to reach a server: `profile.toml`, readable by its owner only.

use crate::error::CliError;
use limosa_agent::http::Client;
use limosa_model::Secret;
use limosa_server::Server;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub url: String,
    pub org_id: String,
    pub group_id: String,
    pub public_key: String,
    pub private_key: Secret,
}

impl Profile {
    /// Of a server that was just started, kept in `file`: with its first owner's keys, or, where the file with those was
    /// deleted, with the keys that it has.
    pub fn of(server: &Server, file: &Path) -> Result<Self, CliError> {
        let url = server.url();
        let Some(first) = server.bootstrap() else {
            return Ok(Self { url, ..Self::read(file)? });
        };
        Ok(Self {
            url,
            org_id: first.org_id.to_string(),
            group_id: first.group_id.to_string(),
            public_key: first.public_key.clone(),
            private_key: first.private_key.clone(),
        })
    }

    pub fn read(file: &Path) -> Result<Self, CliError> {
        let refuse = |why: String| CliError::Profile(file.to_owned(), why);
        let text = fs::read_to_string(file).map_err(|e| refuse(e.to_string()))?;
        // The parser's message would quote the line, and a line may hold the key.
        toml::from_str(&text).map_err(|_| refuse("is not a profile".to_owned()))
    }

    pub fn write(&self, file: &Path) -> Result<(), CliError> {
        let text = toml::to_string(self).map_err(|e| CliError::Profile(file.to_owned(), e.to_string()))?;
        write_private(file, text.as_bytes())
    }

    pub fn client(&self) -> Result<Client, CliError> {
        Ok(Client::new(&self.url, &self.public_key, &self.private_key)?)
    }

    /// Below the group, in the API beside Atlas's.
    pub fn own(&self, rest: &str) -> String {
        format!("/api/limosa/v1/groups/{}/{rest}", self.group_id)
    }

    /// Below the group, in the Atlas API.
    pub fn atlas(&self, rest: &str) -> String {
        format!("/api/atlas/v2/groups/{}/{rest}", self.group_id)
    }

    /// Below the organization, in the Atlas API.
    pub fn org(&self, rest: &str) -> String {
        format!("/api/atlas/v2/orgs/{}/{rest}", self.org_id)
    }
}

/// Replaces `file` as a whole, mode 0600 from its first byte.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> Result<(), CliError> {
    let beside: PathBuf = file.with_extension("new");
    let error = |e| CliError::File(file.to_owned(), e);
    let _ = fs::remove_file(&beside);
    let mut open = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside).map_err(error)?;
    open.write_all(content).and_then(|()| open.sync_all()).map_err(error)?;
    fs::rename(&beside, file).map_err(error)
}
