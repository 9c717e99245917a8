//! The first organization, group, owner's key and service account, written down once.

use crate::{
    ServerError, auth, seal,
    store::{ApiKey, ServiceAccount, Store},
};
use limosa_model::{
    GroupId, OrgId, Secret, Timestamp,
    ids::SecretId,
    wire::account::{Role, RoleName},
};
use serde::{Deserialize, Serialize};
use std::{fs, os::unix::fs::DirBuilderExt, path::Path};

/// How long the first service account's secret is accepted: ten years.
const FIRST_SECRET_SECONDS: i64 = 10 * 365 * 86_400;

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
    // Keys that were deleted since are not made again.
    if store.org_name(bootstrap.org_id)?.is_none() || store.api_keys(bootstrap.org_id)?.is_empty() {
        store.create_org(bootstrap.org_id, "limosa")?;
        let (org, now) = (bootstrap.org_id, Timestamp::now());
        let roles = vec![Role { group_id: None, org_id: Some(org.to_string()), role_name: RoleName::OrgOwner }];
        store.create_group(bootstrap.group_id, org, "limosa", now)?;
        store.create_service_account(&ServiceAccount {
            client_id: bootstrap.client_id.clone(),
            org_id: org,
            name: "first owner".to_owned(),
            description: "made at the first start".to_owned(),
            created_at: now,
            expires_at: now.plus_seconds(FIRST_SECRET_SECONDS),
            secret_id: SecretId::generate().to_string(),
            secret_hash: auth::bearer::hash(bootstrap.client_secret.expose()),
            roles: roles.clone(),
        })?;
        let (public, private) = (&bootstrap.public_key, &bootstrap.private_key);
        store.create_api_key(&ApiKey::new(org, public, private, "first owner", roles))?;
    }
    Ok(bootstrap)
}
