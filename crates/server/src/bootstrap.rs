//! The first organization, group, owner's key and service account, written down once.

use crate::{
    ServerError, auth, seal,
    store::{ApiKey, Store},
};
use limosa_model::{GroupId, OrgId, Secret};
use serde::{Deserialize, Serialize};
use std::{fs, os::unix::fs::DirBuilderExt, path::Path};

/// What `bootstrap.json` holds: the way in for the first owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The organization.
    pub org_id: OrgId,
    /// Its first group.
    pub group_id: GroupId,
    /// The owner's API key, for digest authentication.
    pub public_key: String,
    /// Its private half.
    pub private_key: Secret,
    /// The owner's service account, for bearer tokens.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
}

/// Creates `dir` for this user only.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), ServerError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| ServerError::File(dir.to_owned(), e))
}

/// Reads the file, or makes what it holds. The store takes all or nothing, and the file is written first: a crash in
/// between leaves a file whose keys the next start puts into the store.
pub(crate) fn load_or_create(file: &Path, store: &Store) -> Result<Bootstrap, ServerError> {
    let error = |e| ServerError::File(file.to_owned(), e);
    let bootstrap = if file.exists() {
        let text = fs::read_to_string(file).map_err(error)?;
        serde_json::from_str(&text).map_err(|e| ServerError::Corrupt(format!("{}: {e}", file.display())))?
    } else {
        let made = Bootstrap {
            org_id: OrgId::generate(),
            group_id: GroupId::generate(),
            public_key: auth::new_public_key(),
            private_key: auth::new_private_key(),
            client_id: auth::bearer::new_client_id(),
            client_secret: auth::bearer::new_client_secret(),
        };
        let text = serde_json::to_string_pretty(&made).map_err(|e| ServerError::Corrupt(e.to_string()))?;
        seal::write_private(file, text.as_bytes()).map_err(error)?;
        made
    };
    if store.api_key(&bootstrap.public_key)?.is_none() {
        store.create_org(bootstrap.org_id, "limosa")?;
        store.create_group(bootstrap.group_id, bootstrap.org_id, "limosa")?;
        store.create_service_account(&bootstrap.client_id, &bootstrap.client_secret, bootstrap.org_id)?;
        let key = ApiKey::owner(bootstrap.org_id, &bootstrap.public_key, &bootstrap.private_key);
        store.create_api_key(&key)?;
    }
    Ok(bootstrap)
}
