//! Replaces the key under which secrets are sealed.
//!
//! The new key is written beside the old one first; then the store is sealed anew and notes the new key's fingerprint, in
//! one transaction; then the new key takes the old one's place. Whatever dies in between, the fingerprint in the store
//! tells which of the two files is the key, and the next opening sets them right.

use crate::{
    ServerError,
    seal::{Seal, next_of},
    store::Store,
};
use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

/// Held while a server, or a rotation, uses the directory.
pub(crate) fn lock(data_dir: &Path) -> Result<File, ServerError> {
    let error = |e| ServerError::File(data_dir.to_owned(), e);
    let lock = File::create(data_dir.join("lock")).map_err(error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ServerError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(e)) => Err(error(e)),
    }
}

/// The store with its key, after a rotation that died has been ended one way or the other.
pub(crate) fn open(data_dir: &Path) -> Result<Store, ServerError> {
    let (key, database) = (data_dir.join("secret.key"), data_dir.join("limosa.db"));
    let next = next_of(&key);
    let sealed_by = if database.exists() { Store::sealed_by(&database)? } else { None };
    if next.exists() {
        match &sealed_by {
            Some(fingerprint) if Seal::open(&next)?.fingerprint == *fingerprint => fs::rename(&next, &key),
            _ => fs::remove_file(&next),
        }
        .map_err(|e| ServerError::File(next.clone(), e))?;
    }
    let seal = Seal::open(&key)?;
    if sealed_by.is_some_and(|fingerprint| fingerprint != seal.fingerprint) {
        return Err(ServerError::Corrupt(format!(
            "{} is not the key under which the secrets are sealed",
            key.display()
        )));
    }
    Store::open(&database, seal)
}

/// Seals all secrets of the server in `data_dir` under a new key; returns how many there are. Refused while a server
/// uses the directory.
pub fn rotate_key(data_dir: &Path) -> Result<usize, ServerError> {
    let key = data_dir.join("secret.key");
    if !key.exists() {
        return Err(ServerError::Corrupt(format!(
            "{} has no secret.key: is it a server's data directory?",
            data_dir.display()
        )));
    }
    let _lock = lock(data_dir)?;
    let mut store = open(data_dir)?;
    let next = next_of(&key);
    let sealed = store.seal_anew(Seal::open(&next)?)?;
    fs::rename(&next, &key).map_err(|e| ServerError::File(key, e))?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Uris;
    use limosa_model::{GroupId, OrgId, Secret, Timestamp};

    fn filled(dir: &Path) -> GroupId {
        let store = open(dir).expect("opens");
        let (org, group) = (OrgId::generate(), GroupId::generate());
        store.create_org(org, "o").expect("creates");
        store.create_group(group, org, "g", Timestamp(0)).expect("creates");
        let uris =
            Uris { standard: Secret::new("mongodb://u:hunter2@h"), vpc_peering: None, private_links: Vec::new() };
        store.put_cluster(group, "c", &uris).expect("puts");
        group
    }

    fn reads(dir: &Path, group: GroupId) -> bool {
        let cluster = open(dir).expect("opens").cluster(group, "c").expect("reads").expect("is there");
        cluster.uris.standard.expose() == "mongodb://u:hunter2@h"
    }

    #[test]
    fn a_rotated_key_opens_everything_and_the_old_one_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let group = filled(dir.path());
        let old = fs::read(dir.path().join("secret.key")).expect("is there");
        assert_eq!(rotate_key(dir.path()).expect("rotates"), 1);
        assert_ne!(fs::read(dir.path().join("secret.key")).expect("is there"), old);
        assert!(reads(dir.path(), group) && !dir.path().join("secret.next").exists());
        fs::write(dir.path().join("secret.key"), old).expect("writes");
        assert!(open(dir.path()).is_err(), "the old key is taken");
    }

    #[test]
    fn a_rotation_that_dies_anywhere_leaves_a_store_that_opens() {
        let dir = tempfile::tempdir().expect("a directory");
        let group = filled(dir.path());
        let next = next_of(&dir.path().join("secret.key"));
        // Before the store was sealed anew.
        Seal::open(&next).expect("is made");
        assert!(reads(dir.path(), group) && !next.exists());
        // After it, before the key took its place.
        let mut store = open(dir.path()).expect("opens");
        store.seal_anew(Seal::open(&next).expect("is made")).expect("seals");
        drop(store);
        assert!(reads(dir.path(), group) && !next.exists());
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        filled(dir.path());
        let _serving = lock(dir.path()).expect("is free");
        assert!(matches!(rotate_key(dir.path()), Err(ServerError::InUse(_))));
    }
}
