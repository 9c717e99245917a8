//! What a migration keeps on this host's disk, below the data directory: documents and their `_id`s, so it is for nobody
//! else, and it goes when nobody will go on from it.

use crate::Settings;
use limosa_model::{ErrorCode, Failure, MigrationId};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

const SPOOL: &str = "spool";
const NOTES: &str = "verify";

/// How soon it is tried again to remove files that a task had open.
const LETS_GO_AFTER: Duration = Duration::from_millis(100);

/// Changes that are not applied yet.
pub(crate) fn spool(settings: &Settings) -> PathBuf {
    settings.data_dir.join(SPOOL).join(settings.migration_id.to_string())
}

/// What the verifier has found.
pub(crate) fn notes(settings: &Settings) -> PathBuf {
    settings.data_dir.join(NOTES).join(settings.migration_id.to_string())
}

/// Makes such a directory.
pub(crate) fn make(dir: PathBuf) -> Result<PathBuf, Failure> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        Ok(()) => Ok(dir),
        Err(e) => Err(Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", dir.display()))),
    }
}

/// See [`crate::kept_migrations`].
pub(crate) fn migrations(data_dir: &Path) -> Vec<MigrationId> {
    let of = |kind| fs::read_dir(data_dir.join(kind)).into_iter().flatten().flatten();
    let names = of(SPOOL).chain(of(NOTES)).map(|entry| entry.file_name());
    let mut all: Vec<MigrationId> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    all.sort();
    all.dedup();
    all
}

/// See [`crate::forget`]. Tasks of a run that still have it open let go of it in a moment; a leftover costs only disk.
pub(crate) async fn forget(data_dir: &Path, id: MigrationId) {
    for kind in [SPOOL, NOTES] {
        let dir = data_dir.join(kind).join(id.to_string());
        for _ in 0..20 {
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => tokio::time::sleep(LETS_GO_AFTER).await,
                Ok(()) | Err(_) => break,
            }
        }
    }
}
