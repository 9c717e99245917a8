//! The first organization, group, owner's key and service account, written down once.

use crate::{
    ServerError, auth, encryption,
    store::{AccountSecret, ApiKey, ServiceAccount, Store},
};
use limosa_model::{
    GroupId, OrgId, Secret, Timestamp,
    wire::account::{Role, RoleName},
};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

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

fn read(file: &Path) -> Result<Bootstrap, ServerError> {
    let text = fs::read_to_string(file).map_err(|e| ServerError::File(file.to_owned(), e))?;
    serde_json::from_str(&text).map_err(|e| ServerError::Corrupt(format!("{}: {e}", file.display())))
}

fn write_new(file: &Path) -> Result<Bootstrap, ServerError> {
    let made = Bootstrap {
        org_id: OrgId::generate(),
        group_id: GroupId::generate(),
        public_key: auth::new_public_key(),
        private_key: auth::new_private_key(),
        client_id: auth::bearer::new_client_id(),
        client_secret: auth::bearer::new_client_secret(),
    };
    let text = serde_json::to_string_pretty(&made).map_err(|e| ServerError::Corrupt(e.to_string()))?;
    encryption::write_private(file, text.as_bytes()).map_err(|e| ServerError::File(file.to_owned(), e))?;
    Ok(made)
}

/// What the file holds, if it is there. An empty store gets its first organization: the file is written before it, so
/// that a crash in between leaves one whose keys the next start puts into the store. A store that has one is left as it
/// is: the file may be deleted, and keys that were revoked are not made again.
pub(crate) fn load_or_create(file: &Path, store: &Store) -> Result<Option<Bootstrap>, ServerError> {
    let known = if file.exists() { Some(read(file)?) } else { None };
    if store.has_org()? {
        return Ok(known);
    }
    let first = known.map_or_else(|| write_new(file), Ok)?;
    let (org, now) = (first.org_id, Timestamp::now());
    let roles = vec![Role { group_id: None, org_id: Some(org.to_string()), role_name: RoleName::OrgOwner }];
    let account = ServiceAccount {
        client_id: first.client_id.clone(),
        org_id: org,
        name: "first owner".to_owned(),
        description: "made at the first start".to_owned(),
        created_at: now,
        secrets: vec![AccountSecret::new(&first.client_secret, now, FIRST_SECRET_SECONDS)],
        roles: roles.clone(),
    };
    let key = ApiKey::new(org, &first.public_key, &first.private_key, "first owner", roles);
    store.create_first_org("limosa", first.group_id, &account, &key, now)?;
    Ok(Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir;

    /// The store in a directory, and the file next to it.
    fn begun(dir: &Path) -> (Store, Option<Bootstrap>) {
        let store = data_dir::open(dir).expect("opens");
        let first = load_or_create(&dir.join("bootstrap.json"), &store).expect("begins");
        (store, first)
    }

    #[test]
    fn a_file_that_was_deleted_is_not_made_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = begun(dir.path()).1.expect("is made");
        fs::remove_file(dir.path().join("bootstrap.json")).expect("deletes it");
        let (store, none) = begun(dir.path());
        assert!(none.is_none() && !dir.path().join("bootstrap.json").exists());
        assert_eq!(store.api_keys(first.org_id).expect("reads").len(), 1);
        let connection = rusqlite::Connection::open(dir.path().join("limosa.db")).expect("opens");
        let count: i64 = connection.query_row("SELECT count(*) FROM orgs", [], |r| r.get(0)).expect("is counted");
        assert_eq!(count, 1);
    }

    #[test]
    fn what_a_crash_left_out_is_made_and_what_was_revoked_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bootstrap.json");
        let first = write_new(&file).expect("writes");
        let (store, again) = begun(dir.path());
        assert_eq!(again.expect("is there").public_key, first.public_key);
        let key = store.api_key(&first.public_key).expect("reads").expect("is made");
        assert!(store.service_account(&first.client_id).expect("reads").is_some());
        assert!(store.delete_api_key(key.id).expect("deletes"));
        drop(store);
        let (store, again) = begun(dir.path());
        assert!(again.is_some() && store.api_key(&first.public_key).expect("reads").is_none());
    }
}
