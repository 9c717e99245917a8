//! Replaces the key under which secrets are sealed.
//!
//! The new key is written next to the old one first; then the store is sealed again and notes the new key's fingerprint,
//! in one transaction; then the new key takes the old one's place. Whatever dies in between, [`data_dir::open`] sets the two
//! files right.

use crate::{
    ServerError, data_dir,
    encryption::{Seal, next_of},
};
use std::{fs, path::Path};

/// Seals all secrets of the server in `dir` under a new key; returns how many there are. Refused while a server
/// uses the directory.
pub fn rotate_key(dir: &Path) -> Result<usize, ServerError> {
    let key = dir.join("secret.key");
    if !key.exists() {
        return Err(ServerError::Corrupt(format!(
            "{} has no secret.key: is it a server's data directory?",
            dir.display()
        )));
    }
    let _lock = data_dir::lock(dir)?;
    let mut store = data_dir::open(dir)?;
    let next = next_of(&key);
    let sealed = store.reencrypt(Seal::open(&next)?)?;
    fs::rename(&next, &key).map_err(|e| ServerError::File(key, e))?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bootstrap::{self, Bootstrap},
        data_dir::{lock, open},
        encryption::Place,
        store::{ApiKey, Uris, Validation, tests::migration},
    };
    use limosa_model::{Migration, Secret, Timestamp, wire::live_migration::ValidationStatus};
    use rusqlite::Connection;
    use serde_json::json;

    const LINK: &str = "linkkeys";

    /// What a store was filled with.
    struct Filled {
        first: Bootstrap,
        migration: Migration,
    }

    /// A store with every kind of sealed value.
    fn filled(dir: &Path) -> Filled {
        let store = open(dir).expect("opens");
        let first = bootstrap::load_or_create(&dir.join("bootstrap.json"), &store).expect("begins").expect("is made");
        let (org, group) = (first.org_id, first.group_id);
        let link = ApiKey::new(org, LINK, &Secret::new("the link's"), "a link", Vec::new());
        assert!(store.create_link(&ApiKey { is_link: true, ..link }).expect("links"));
        let uris =
            Uris { standard: Secret::new("mongodb://u:hunter2@h"), vpc_peering: None, private_links: Vec::new() };
        store.put_cluster(group, "c", &uris).expect("puts");
        let migration = migration();
        store.create_migration(org, &migration, Some(&Secret::new("hunter3"))).expect("creates");
        let validation = Validation {
            id: "v".to_owned(),
            group_id: group,
            status: ValidationStatus::Pending,
            error_message: None,
            findings: Vec::new(),
            request: json!({"source": "s"}),
            credentials: Some(Secret::new("hunter4")),
        };
        store.create_validation(org, &validation, "host", Timestamp(0)).expect("creates");
        Filled { first, migration }
    }

    const KINDS: usize = 6;

    /// All of it, opened.
    fn opened(dir: &Path, filled: &Filled) -> [String; KINDS] {
        let store = open(dir).expect("opens");
        let key = |name: &str| store.api_key(name).expect("opens").expect("is there").ha1.expose().to_owned();
        let cluster = store.cluster(filled.first.group_id, "c").expect("opens").expect("is there");
        let validation = store.validation("v").expect("opens").expect("is there");
        [
            key(&filled.first.public_key),
            key(LINK),
            cluster.uris.standard.expose().to_owned(),
            store.credentials(filled.migration.id).expect("opens").expect("are there").expose().to_owned(),
            validation.request.to_string(),
            validation.credentials.expect("are there").expose().to_owned(),
        ]
    }

    /// How many values in all tables `seal` opens.
    fn opened_by(dir: &Path, seal: &Seal) -> usize {
        let connection = Connection::open(dir.join("limosa.db")).expect("opens");
        let mut query = connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").expect("is SQL");
        let tables: Vec<String> = query.query_map([], |r| r.get(0)).and_then(Iterator::collect).expect("is listed");
        let mut count = 0;
        for table in tables {
            let mut query = connection.prepare(&format!("SELECT * FROM {table}")).expect("is SQL");
            let columns = query.column_count();
            let names: Vec<String> = query.column_names().map(str::to_owned).collect();
            let mut rows = query.query([]).expect("is read");
            while let Some(row) = rows.next().expect("is read") {
                let text = |n: usize| row.get_ref(n).expect("is there").as_str().ok().map(str::to_owned);
                let texts: Vec<String> = (0..columns).filter_map(text).collect();
                let cluster = (texts.len() > 2).then(|| format!("{}/{}", texts[1], texts[2]));
                let ids: Vec<&str> = texts.iter().chain(&cluster).map(String::as_str).collect();
                for (n, name) in names.iter().enumerate() {
                    let Some(sealed) = text(n) else { continue };
                    let mut places = ids.iter().map(|id| Place { table: &table, column: name, id });
                    count += usize::from(places.any(|place| seal.unseal(&sealed, &place).is_ok()));
                }
            }
        }
        count
    }

    #[test]
    fn a_rotated_key_opens_everything_and_the_old_one_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (dir, key) = (dir.path(), dir.path().join("secret.key"));
        let filled = filled(dir);
        let (before, file) = (opened(dir, &filled), fs::read(&key).expect("is there"));
        let old = Seal::open(&key).expect("opens");
        assert_eq!(opened_by(dir, &old), KINDS, "a kind of sealed value is not in this test");
        assert_eq!(rotate_key(dir).expect("rotates"), KINDS);
        assert_eq!(opened(dir, &filled), before);
        let new = Seal::open(&key).expect("opens");
        assert_eq!((opened_by(dir, &old), opened_by(dir, &new)), (0, KINDS));
        assert!(!next_of(&key).exists());
        fs::write(&key, file).expect("writes");
        assert!(open(dir).is_err(), "the old key is taken");
    }

    #[test]
    fn a_rotation_that_dies_anywhere_leaves_a_store_that_opens() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let filled = filled(dir);
        let before = opened(dir, &filled);
        let next = next_of(&dir.join("secret.key"));
        // Before the store was sealed again.
        Seal::open(&next).expect("is made");
        assert_eq!(opened(dir, &filled), before);
        assert!(!next.exists());
        // After it, before the key took its place.
        let mut store = open(dir).expect("opens");
        store.reencrypt(Seal::open(&next).expect("is made")).expect("seals");
        drop(store);
        assert_eq!(opened(dir, &filled), before);
        assert!(!next.exists());
    }

    /// A value that the old key doesn't open is no reason to lose the others.
    #[test]
    fn a_rotation_that_is_refused_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (dir, key) = (dir.path(), dir.path().join("secret.key"));
        let filled = filled(dir);
        let before = opened(dir, &filled);
        let change = |statement: &str| {
            let connection = Connection::open(dir.join("limosa.db")).expect("opens");
            connection.execute(statement, []).expect("writes");
        };
        change("UPDATE validations SET request = 'AAAA' || request");
        let old = fs::read(&key).expect("is there");
        assert!(rotate_key(dir).is_err());
        change("UPDATE validations SET request = substr(request, 5)");
        assert_eq!(fs::read(&key).expect("is there"), old);
        assert_eq!(opened(dir, &filled), before);
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        filled(dir.path());
        let _serving = lock(dir.path()).expect("is free");
        assert!(matches!(rotate_key(dir.path()), Err(ServerError::InUse(_))));
    }
}
