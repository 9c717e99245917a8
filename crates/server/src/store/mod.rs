//! The store: SQLite, one file. A migration is written only over the version that was read, its events in the same
//! transaction; secrets are sealed, or hashed where that is enough, before they are written.

mod agents;
mod api_keys;
mod audit;
mod clusters;
mod events;
mod links;
mod migrations;
mod orgs;
mod outbox;
mod reencrypt;
mod reports;
mod samples;
mod schema;
mod service_accounts;
mod tokens;
mod uri;
mod validations;

pub(crate) use agents::{Agent, SEEN_SECONDS};
pub(crate) use api_keys::{Allowed, ApiKey};
pub(crate) use audit::Audit;
pub(crate) use clusters::{Cluster, Uris};
pub(crate) use events::EventRow;
pub(crate) use orgs::{Group, GroupSettings};
pub(crate) use outbox::Waiting;
pub(crate) use service_accounts::{AccountSecret, ServiceAccount};
pub(crate) use validations::Validation;

use crate::{ServerError, encryption::Seal};
use rusqlite::Connection;
use serde::Serialize;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    PRAGMA secure_delete = ON;";

/// Statements kept ready: more than there are.
const STATEMENTS: usize = 64;

/// The file, opened twice.
pub(crate) struct Store {
    writer: Mutex<Connection>,
    /// A connection of its own, so that nobody who reads waits for a write to reach the disk.
    reader: Mutex<Connection>,
    seal: Seal,
    changes: Changes,
}

/// How often a migration was changed; who follows is woken by it, until the server stops.
pub(crate) struct Changes(watch::Sender<Option<u64>>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::Sender::new(Some(0)))
    }
}

impl Changes {
    fn count(&self) {
        self.0.send_modify(|count| *count = count.map(|n| n + 1));
    }

    /// For who follows: the count, and `None` at the end.
    pub fn follow(&self) -> watch::Receiver<Option<u64>> {
        self.0.subscribe()
    }

    /// Ends all following.
    pub fn end(&self) {
        self.0.send_replace(None);
    }
}

/// While it lives, commits on this connection don't wait for the disk. Only for what agents send again, such as progress:
/// it may be lost with the machine's power. The next commit that waits takes these along.
struct RelaxedDurability<'a>(&'a Connection);

impl<'a> RelaxedDurability<'a> {
    fn begin(connection: &'a Connection) -> Result<Self, ServerError> {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Self(connection))
    }
}

impl Drop for RelaxedDurability<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.pragma_update(None, "synchronous", "FULL") {
            tracing::error!(%error, "the store no longer waits for the disk");
        }
    }
}

fn id<T: FromStr>(text: &str) -> Result<T, rusqlite::Error> {
    text.parse().map_err(|_| rusqlite::Error::InvalidColumnName(format!("{text} is no id")))
}

fn unreadable(e: &serde_json::Error) -> ServerError {
    ServerError::Corrupt(e.to_string())
}

/// As it is stored.
fn text<T: Serialize>(value: &T) -> Result<String, ServerError> {
    serde_json::to_string(value).map_err(|e| unreadable(&e))
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ServerError> {
    serde_json::from_str(text).map_err(|e| unreadable(&e))
}

/// Makes the file for this user only, whatever its directory allows; SQLite gives its journal the same permissions.
fn make_private(file: &Path) -> Result<(), ServerError> {
    let error = |e| ServerError::File(file.to_owned(), e);
    OpenOptions::new().create(true).append(true).mode(0o600).open(file).map_err(error)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(error)
}

impl Store {
    pub fn open(file: &Path, seal: Seal) -> Result<Self, ServerError> {
        make_private(file)?;
        let open = || {
            let connection = Connection::open(file)?;
            connection.busy_timeout(std::time::Duration::from_secs(10))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            Ok::<_, ServerError>(connection)
        };
        let mut writer = open()?;
        writer.execute_batch(SETTINGS)?;
        schema::upgrade(&mut writer)?;
        writer.execute("INSERT OR IGNORE INTO sealed_by VALUES (1, ?1)", [&seal.fingerprint])?;
        reencrypt::bind(&mut writer, &seal)?;
        let reader = open()?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(reader), seal, changes: Changes::default() })
    }

    /// What happens to migrations.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Takes what was deleted out of the journal too. What isn't taken out now, since someone reads it, is the next time.
    fn wipe(&self) {
        let wiped = self.lock().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = wiped {
            tracing::warn!(%error, "secrets that are needed no more are still in the store's journal");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what only reads, and sees all that was committed before.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number of rows to leave out, as SQLite takes it.
fn offset(first: usize) -> i64 {
    i64::try_from(first).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use limosa_model::{
        GroupId, Migration, MigrationId, OrgId, Secret, Timestamp, wire::live_migration::ValidationStatus,
    };
    use serde_json::json;

    /// As it is stored, with what every version of it has.
    pub fn migration() -> Migration {
        let group = GroupId::generate();
        let body = json!({
            "id": MigrationId::generate(), "groupId": group, "migrationHost": "host", "dropDestinationData": false,
            "source": {"groupId": group, "clusterName": "old", "managedAuthentication": true, "ssl": false},
            "destination": {"groupId": group, "clusterName": "new"},
            "phase": {"kind": "copying"}, "lease": null, "epoch": 0, "progress": {}, "createdAt": 0, "phaseSince": 0,
        });
        serde_json::from_value(body).expect("is one")
    }

    fn store(dir: &Path) -> Store {
        Store::open(&dir.join("limosa.db"), Seal::open(&dir.join("key")).expect("makes a key")).expect("opens")
    }

    /// What is asked often, or of a table that grows without end, may not read all of it.
    #[test]
    fn no_frequent_question_reads_a_whole_table() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let connection = store.lock();
        for query in [
            "SELECT body FROM migrations WHERE id = ?1 ORDER BY id DESC",
            "SELECT body FROM migrations WHERE group_id = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3",
            "SELECT body FROM migrations WHERE group_id = ?1 AND phase IN ('synced') ORDER BY id DESC LIMIT ?2 OFFSET ?3",
            "SELECT body FROM migrations WHERE final = 0 AND org_id = ?1 ORDER BY id DESC",
            "SELECT body FROM migrations WHERE final = 0 AND org_id = ?1 AND host = ?2 ORDER BY id DESC",
            "SELECT body FROM migrations WHERE final = 0 AND ends_at <= ?1 ORDER BY id DESC",
            "SELECT id FROM agents WHERE id = ?1 AND org_id = ?2",
            "SELECT n FROM events WHERE migration_id = ?1 AND n > ?2 ORDER BY n",
            "SELECT n FROM audit WHERE org_id = ?1 ORDER BY n DESC LIMIT ?2 OFFSET ?3",
            "SELECT id FROM agents WHERE org_id = ?1 ORDER BY host_name",
            "SELECT id FROM validations WHERE status = 'PENDING' AND org_id = ?1 AND host_name = ?2",
            "SELECT t.client_id FROM tokens t JOIN service_account_secrets s ON s.id = t.secret_id \
             WHERE t.hash = ?1 AND t.expires_at > ?2 AND s.expires_at > ?2",
            "SELECT id FROM service_account_secrets WHERE client_id = ?1",
            "SELECT id FROM api_keys WHERE public_key = ?1",
        ] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).expect("is SQL");
            let steps: Vec<String> = plan
                .query_map(rusqlite::params_from_iter(vec![""; plan.parameter_count()]), |r| r.get(3))
                .and_then(Iterator::collect)
                .expect("is explained");
            assert!(steps.iter().all(|step| !step.starts_with("SCAN")), "{query}: {steps:?}");
        }
    }

    /// What anyone finds who gets hold of the files.
    fn bytes_of_all_files(dir: &Path) -> Vec<u8> {
        let files = fs::read_dir(dir).expect("is listed").map(|file| file.expect("is one").path());
        files.filter(|file| file.is_file()).flat_map(|file| fs::read(file).expect("is read")).collect()
    }

    #[test]
    fn its_files_are_for_their_owner_only_whatever_the_directory_allows() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("sets");
        let file = dir.path().join("limosa.db");
        fs::write(&file, b"").expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("sets");
        let store = store(dir.path());
        store
            .create_group(GroupId::generate(), OrgId::generate(), "g", &GroupSettings::default(), Timestamp(0))
            .expect("creates");
        for file in fs::read_dir(dir.path()).expect("is listed") {
            let file = file.expect("is one");
            let mode = file.metadata().expect("is there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", file.file_name());
        }
    }

    #[test]
    fn a_deleted_secret_is_in_no_file_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, group) = (store(dir.path()), GroupId::generate());
        let uris = |uri: &str| Uris { standard: Secret::new(uri), vpc_peering: None, private_links: Vec::new() };
        let sealed = |name: &str| -> String {
            let query = "SELECT uris FROM clusters WHERE name = ?1";
            store.lock().query_row(query, [name], |r| r.get(0)).expect("is there")
        };
        let is_there =
            |sealed: &str| bytes_of_all_files(dir.path()).windows(sealed.len()).any(|part| part == sealed.as_bytes());
        store.put_cluster(group, "c", &uris("mongodb://u:hunter2@h")).expect("puts");
        let first = sealed("c");
        assert!(is_there(&first));
        store.put_cluster(group, "c", &uris("mongodb://u:hunter3@h")).expect("puts");
        assert!(!is_there(&first), "what was replaced is still there");
        let second = sealed("c");
        assert!(is_there(&second) && store.delete_cluster(group, "c").expect("deletes"));
        assert!(!is_there(&second), "what was deleted is still there");
    }

    #[test]
    fn a_sealed_value_that_was_moved_does_not_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, group) = (store(dir.path()), GroupId::generate());
        let uris = |uri: &str| Uris { standard: Secret::new(uri), vpc_peering: None, private_links: Vec::new() };
        store.put_cluster(group, "theirs", &uris("mongodb://u:hunter2@h")).expect("puts");
        store.put_cluster(group, "mine", &uris("mongodb://u:hunter3@h")).expect("puts");
        let moved = "UPDATE clusters SET uris = (SELECT uris FROM clusters WHERE name = 'theirs') WHERE name = 'mine'";
        store.lock().execute(moved, []).expect("moves");
        assert!(store.cluster(group, "mine").is_err(), "one cluster's secret opens as another's");
        assert!(store.cluster(group, "theirs").expect("opens").is_some());
    }

    #[test]
    fn a_validation_that_no_agent_comes_for_loses_its_password() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let made = Validation {
            id: "v".to_owned(),
            group_id: GroupId::generate(),
            status: ValidationStatus::Pending,
            error_message: None,
            findings: Vec::new(),
            request: json!({"source": "s"}),
            credentials: Some(Secret::new("hunter2")),
        };
        store.create_validation(OrgId::generate(), &made, "host", Timestamp(0)).expect("creates");
        store.lapse_validations(Timestamp(1)).expect("ends it");
        let ended = store.validation("v").expect("reads").expect("is there");
        assert_eq!((ended.status, ended.credentials.is_none()), (ValidationStatus::Failed, true));
        assert_eq!(ended.request, made.request);
    }

    #[test]
    fn only_what_is_told_again_goes_without_the_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let connection = store.lock();
        let waits = || connection.query_row("PRAGMA synchronous", [], |r| r.get::<_, i64>(0)).expect("is told") == 2;
        assert!(waits());
        let lightly = RelaxedDurability::begin(&connection).expect("begins");
        assert!(!waits());
        drop(lightly);
        assert!(waits());
    }

    #[test]
    fn a_file_of_an_earlier_version_is_brought_up_and_of_a_later_one_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("limosa.db");
        let connection = Connection::open(&file).expect("opens");
        connection.execute_batch(schema::TABLES).expect("makes tables");
        connection.execute("INSERT INTO orgs VALUES (?1, 'old')", ["0123456789abcdef01234567"]).expect("inserts");
        for phase in ["complete", "cancelled", "expired", "failed"] {
            let insert = "INSERT INTO migrations VALUES (?1, 'o', 'g', 'sealed', 0, 1, json_object('phase', json_object('kind', ?1)))";
            connection.execute(insert, [phase]).expect("inserts");
        }
        drop(connection);
        let brought = store(dir.path());
        let kept = "SELECT group_concat(phase) FROM migrations WHERE credentials IS NOT NULL";
        let kept: String = brought.lock().query_row(kept, [], |r| r.get(0)).expect("reads");
        assert_eq!(kept, "failed", "has a source's password");
        let org = "0123456789abcdef01234567".parse().expect("an id");
        assert_eq!(brought.org_name(org).expect("reads").as_deref(), Some("old"));
        assert_eq!(brought.agents(org).expect("reads").len(), 0);
        brought.lock().pragma_update(None, "user_version", 1000).expect("writes");
        drop(brought);
        let refused = Store::open(&file, Seal::open(&dir.path().join("key")).expect("reads it"));
        assert!(refused.is_err_and(|error| error.to_string().contains("later version")));
    }
}
