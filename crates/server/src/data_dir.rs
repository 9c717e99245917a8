//! The directory with the store, its key and the bootstrap file: one process at a time uses it.
//!
//! A rotation of the key that died is ended here, one way or the other: the fingerprint in the store tells which of the two
//! files is the key.

use crate::{
    ServerError,
    encryption::{Seal, next_of},
    store::Store,
};
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Creates `dir` for this user only.
pub(crate) fn create(dir: &Path) -> Result<(), ServerError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| ServerError::File(dir.to_owned(), e))
}

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
