//! What a migration keeps on this host's disk, below the data directory: documents and their `_id`s, so it is for nobody
//! else, and it goes when nobody will continue from it.

use crate::Settings;
use fjall::Database;
use limosa_model::{ErrorCode, Failure, Identities, MigrationId, cutover::CutoverTime};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

const SPOOL: &str = "spool";
const NOTES: &str = "verify";

/// What this host knows of the migrations that it ran, one file each. It stays when the rest goes: a reverse migration is
/// carried out only where its file says that the migration before it was completed here.
const KNOWN: &str = "migrations";

/// A file that says that the database beside it was made to the end.
const MADE: &str = "made";

/// A file with a byte for each opening of the database beside it that hasn't ended.
const OPENING: &str = "opening";

/// After so many openings that ended the process, the next one begins with nothing.
const DEATHS: u64 = 5;

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

/// Between which clusters a migration was begun here, and where a reverse migration would begin once it was complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Known {
    pub identities: Identities,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turning_point: Option<CutoverTime>,
    pub complete: bool,
}

fn known_file(data_dir: &Path, id: &str) -> PathBuf {
    data_dir.join(KNOWN).join(format!("{id}.json"))
}

/// What was noted with [`know`]; `None` if nothing was.
pub(crate) fn known(data_dir: &Path, id: &str) -> Result<Option<Known>, Failure> {
    let file = known_file(data_dir, id);
    let unreadable = |e: &dyn Display| Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", file.display()));
    match fs::read(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unreadable(&e)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| unreadable(&e)),
    }
}

/// Notes it for good: whole or not at all.
pub(crate) fn know(data_dir: &Path, id: &str, known: &Known) -> Result<(), Failure> {
    let file = known_file(data_dir, id);
    let written = || -> io::Result<()> {
        create(&data_dir.join(KNOWN))?;
        let draft = file.with_extension("new");
        let mut made = fs::File::create(&draft)?;
        made.write_all(&serde_json::to_vec(known)?)?;
        made.sync_all()?;
        fs::rename(&draft, &file)
    };
    written().map_err(|e| Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", file.display())))
}

/// A file of what must not be forgotten about its troubles.
pub(crate) fn trouble(settings: &Settings) -> PathBuf {
    trouble_of(&settings.data_dir, settings.migration_id)
}

fn trouble_of(data_dir: &Path, id: MigrationId) -> PathBuf {
    data_dir.join("trouble").join(format!("{id}.json"))
}

/// Makes such a directory.
pub(crate) fn create_dir(dir: PathBuf) -> Result<PathBuf, Failure> {
    match create(&dir) {
        Ok(()) => Ok(dir),
        Err(e) => Err(Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", dir.display()))),
    }
}

fn create(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes all that is in `dir`, which is there afterwards.
pub(crate) fn empty(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => create(dir),
    }
}

/// The database in `dir`, which `open` opens or makes. Of one that was never made to the end nothing was used: what a run
/// left that died meanwhile is removed, since it would be in the way.
pub(crate) fn database(dir: &Path, open: impl FnOnce() -> fjall::Result<Database>) -> fjall::Result<Database> {
    let made = dir.join(MADE);
    if made.try_exists()? {
        return open();
    }
    empty(dir)?;
    let database = open()?;
    fs::File::create(made)?.sync_all()?;
    Ok(database)
}

/// Opens what is in `dir`. Damage to a file can end the process that opens it, as by a length that no memory holds; a
/// service manager starts it again, and it would die for ever. After a few such deaths in a row what is there is removed.
pub(crate) fn survive<T>(dir: &Path, open: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let error = |e: io::Error| Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", dir.display()));
    let opening = dir.join(OPENING);
    let deaths = fs::metadata(&opening).map_or(0, |file| file.len());
    if deaths >= DEATHS {
        tracing::warn!(dir = %dir.display(), deaths, "nobody survived opening this directory; it is emptied");
        empty(dir).map_err(error)?;
    }
    let mark = || {
        create(dir)?;
        fs::OpenOptions::new().create(true).append(true).open(&opening)?.write_all(b".")
    };
    mark().map_err(error)?;
    let opened = open();
    match fs::remove_file(&opening) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error(e)),
        Ok(()) | Err(_) => opened,
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
pub(crate) async fn remove(data_dir: &Path, id: MigrationId) {
    let _ = fs::remove_file(trouble_of(data_dir, id));
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

#[cfg(test)]
mod tests {
    use super::*;
    use fjall::KeyspaceCreateOptions;

    fn open(dir: &Path) -> fjall::Result<Database> {
        database(dir, || Database::builder(dir).open())
    }

    #[test]
    fn a_database_that_was_not_made_to_the_end_is_made_anew() {
        let whole = tempfile::tempdir().expect("a directory");
        drop(Database::builder(whole.path()).open().expect("is made"));
        let files: Vec<_> =
            fs::read_dir(whole.path()).expect("is there").map(|file| file.expect("is one").file_name()).collect();
        assert!(files.len() > 2, "{files:?}");
        // Each file alone, whole and empty: whichever comes first, it isn't in the way.
        for file in files {
            for is_whole in [true, false] {
                let dir = tempfile::tempdir().expect("a directory");
                let (from, to) = (whole.path().join(&file), dir.path().join(&file));
                match (from.is_dir(), is_whole) {
                    (true, _) => fs::create_dir(&to).expect("is made"),
                    (false, true) => drop(fs::copy(&from, &to).expect("is copied")),
                    (false, false) => fs::write(&to, []).expect("is written"),
                }
                assert!(open(dir.path()).is_ok(), "{file:?}, whole: {is_whole}");
            }
        }
    }

    #[test]
    fn what_nobody_survives_opening_is_removed_after_a_few_deaths() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("deadly"), b"").expect("is written");
        let open = || {
            assert!(!dir.path().join("deadly").exists(), "dies");
            Ok(())
        };
        // A failure that was told isn't a death.
        for _ in 0..2 * DEATHS {
            let told = survive(dir.path(), || Err::<(), _>(Failure::new(ErrorCode::LocalStorage, "full")));
            assert!(told.is_err());
        }
        for _ in 0..DEATHS {
            assert!(std::panic::catch_unwind(|| survive(dir.path(), open)).is_err());
        }
        survive(dir.path(), open).expect("begins with nothing");
    }

    #[test]
    fn a_database_that_was_made_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let value = |database: &Database| {
            let keyspace = database.keyspace("k", KeyspaceCreateOptions::default).expect("opens");
            let before = keyspace.get("key").expect("reads").map(|value| value.to_vec());
            keyspace.insert("key", "value").expect("writes");
            database.persist(fjall::PersistMode::SyncAll).expect("is written");
            before
        };
        let first = open(dir.path()).expect("is made");
        assert_eq!(value(&first), None);
        drop(first);
        assert_eq!(value(&open(dir.path()).expect("opens")), Some(b"value".to_vec()));
    }
}
