//! The store: SQLite, one file. A migration is written only over the version that was read, its events in the same
//! transaction; secrets are sealed before they come here.

use crate::{
    ServerError,
    auth::{bearer, digest::REALM},
    seal::Seal,
};
use limosa_model::{
    AgentId, GroupId, Migration, MigrationId, OrgId, Secret, Timestamp, digest, protocol,
    transition::{Action, Event, IllegalTransition, step},
};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use std::{
    path::Path,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS orgs (id TEXT PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS groups (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (org_id, name));
    CREATE TABLE IF NOT EXISTS api_keys (public_key TEXT PRIMARY KEY, org_id TEXT NOT NULL, ha1 TEXT NOT NULL, is_owner INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS service_accounts (client_id TEXT PRIMARY KEY, org_id TEXT NOT NULL, secret_hash TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS links (org_id TEXT PRIMARY KEY, public_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS clusters (group_id TEXT NOT NULL, name TEXT NOT NULL, uri TEXT NOT NULL, PRIMARY KEY (group_id, name));
    CREATE TABLE IF NOT EXISTS agents (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, host_name TEXT NOT NULL,
        deployments TEXT NOT NULL, seen_at INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS migrations (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, credentials TEXT,
        version INTEGER NOT NULL, final INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS active_migrations ON migrations (final);
    CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY AUTOINCREMENT, migration_id TEXT NOT NULL, at INTEGER NOT NULL,
        kind TEXT NOT NULL, message TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS events_of_migration ON events (migration_id, n);
    CREATE TABLE IF NOT EXISTS validations (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, host_name TEXT NOT NULL,
        status TEXT NOT NULL, error_message TEXT, request TEXT NOT NULL);
";

/// A key for digest authentication; only HA1 is kept.
#[derive(Clone, Debug)]
pub(crate) struct ApiKey {
    pub public_key: String,
    pub org_id: OrgId,
    pub ha1: Secret,
    pub is_owner: bool,
}

impl ApiKey {
    pub fn owner(org_id: OrgId, public_key: &str, private_key: &Secret) -> Self {
        let ha1 = Secret::new(digest::ha1(public_key, REALM, private_key.expose()));
        Self { public_key: public_key.to_owned(), org_id, ha1, is_owner: true }
    }
}

/// An agent as it presented itself.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub id: AgentId,
    pub group_id: GroupId,
    pub host_name: String,
    pub deployments: Vec<protocol::Deployment>,
    pub seen_at: Timestamp,
}

/// A requested preflight.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    pub id: String,
    pub group_id: GroupId,
    pub status: String,
    pub error_message: Option<String>,
    pub request: Value,
}

/// See the module.
pub(crate) struct Store {
    connection: Mutex<Connection>,
    seal: Seal,
}

/// Why a migration wasn't changed.
pub(crate) enum NotChanged {
    Illegal(IllegalTransition),
    Unknown,
    Store(ServerError),
}

impl<E: Into<ServerError>> From<E> for NotChanged {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

fn id<T: FromStr>(text: &str) -> Result<T, rusqlite::Error> {
    text.parse().map_err(|_| rusqlite::Error::InvalidColumnName(format!("{text} is no id")))
}

fn unreadable(e: &serde_json::Error) -> ServerError {
    ServerError::Corrupt(e.to_string())
}

impl Store {
    pub fn open(file: &Path, seal: Seal) -> Result<Self, ServerError> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Mutex::new(connection), seal })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn create_org(&self, org: OrgId, name: &str) -> Result<(), ServerError> {
        self.lock().execute("INSERT OR IGNORE INTO orgs VALUES (?1, ?2)", params![org.to_string(), name])?;
        Ok(())
    }

    pub fn org_name(&self, org: OrgId) -> Result<Option<String>, ServerError> {
        Ok(self.lock().query_row("SELECT name FROM orgs WHERE id = ?1", [org.to_string()], |r| r.get(0)).optional()?)
    }

    pub fn create_group(&self, group: GroupId, org: OrgId, name: &str) -> Result<(), ServerError> {
        let row = params![group.to_string(), org.to_string(), name];
        self.lock().execute("INSERT OR IGNORE INTO groups VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    /// The organization's group of this name, made if there is none.
    pub fn group_by_name(&self, org: OrgId, name: &str) -> Result<GroupId, ServerError> {
        self.create_group(GroupId::generate(), org, name)?;
        let query = "SELECT id FROM groups WHERE org_id = ?1 AND name = ?2";
        Ok(self.lock().query_row(query, params![org.to_string(), name], |r| id(&r.get::<_, String>(0)?))?)
    }

    /// The organization and name of a group.
    pub fn group(&self, group: GroupId) -> Result<Option<(OrgId, String)>, ServerError> {
        let row = |r: &rusqlite::Row<'_>| Ok((id(&r.get::<_, String>(0)?)?, r.get(1)?));
        Ok(self
            .lock()
            .query_row("SELECT org_id, name FROM groups WHERE id = ?1", [group.to_string()], row)
            .optional()?)
    }

    /// All groups of an organization, by name.
    pub fn groups(&self, org: OrgId) -> Result<Vec<(GroupId, String)>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT id, name FROM groups WHERE org_id = ?1 ORDER BY name")?;
        let rows = query.query_map([org.to_string()], |r| Ok((id(&r.get::<_, String>(0)?)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn create_api_key(&self, key: &ApiKey) -> Result<(), ServerError> {
        let row = params![key.public_key, key.org_id.to_string(), self.seal.seal(key.ha1.expose()), key.is_owner];
        self.lock().execute("INSERT INTO api_keys VALUES (?1, ?2, ?3, ?4)", row)?;
        Ok(())
    }

    pub fn api_key(&self, public_key: &str) -> Result<Option<ApiKey>, ServerError> {
        let row = |r: &rusqlite::Row<'_>| Ok((id(&r.get::<_, String>(0)?)?, r.get::<_, String>(1)?, r.get(2)?));
        let query = "SELECT org_id, ha1, is_owner FROM api_keys WHERE public_key = ?1";
        let found = self.lock().query_row(query, [public_key], row).optional()?;
        let key = |(org_id, ha1, is_owner): (OrgId, String, bool)| {
            let ha1 = Secret::new(self.seal.unseal(&ha1)?);
            Ok(ApiKey { public_key: public_key.to_owned(), org_id, ha1, is_owner })
        };
        found.map(key).transpose()
    }

    pub fn create_service_account(&self, client: &str, secret: &Secret, org: OrgId) -> Result<(), ServerError> {
        let row = params![client, org.to_string(), bearer::hash(secret.expose())];
        self.lock().execute("INSERT OR IGNORE INTO service_accounts VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    /// The organization of a service account, and its secret's hash.
    pub fn service_account(&self, client: &str) -> Result<Option<(OrgId, String)>, ServerError> {
        let row = |r: &rusqlite::Row<'_>| Ok((id(&r.get::<_, String>(0)?)?, r.get(1)?));
        let query = "SELECT org_id, secret_hash FROM service_accounts WHERE client_id = ?1";
        Ok(self.lock().query_row(query, [client], row).optional()?)
    }

    /// Links the organization with a key for its agents; `false` if it is linked already.
    pub fn create_link(&self, key: &ApiKey) -> Result<bool, ServerError> {
        let row = params![key.org_id.to_string(), key.public_key];
        if self.lock().execute("INSERT OR IGNORE INTO links VALUES (?1, ?2)", row)? == 0 {
            return Ok(false);
        }
        self.create_api_key(key)?;
        Ok(true)
    }

    /// Revokes the link; `false` if there is none.
    pub fn delete_link(&self, org: OrgId) -> Result<bool, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let key = "DELETE FROM api_keys WHERE public_key IN (SELECT public_key FROM links WHERE org_id = ?1)";
        transaction.execute(key, [org.to_string()])?;
        let deleted = transaction.execute("DELETE FROM links WHERE org_id = ?1", [org.to_string()])?;
        transaction.commit()?;
        Ok(deleted == 1)
    }

    /// Registers a destination cluster, or changes its URI.
    pub fn put_cluster(&self, group: GroupId, name: &str, uri: &Secret) -> Result<(), ServerError> {
        let row = params![group.to_string(), name, self.seal.seal(uri.expose())];
        self.lock().execute("INSERT OR REPLACE INTO clusters VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    pub fn cluster_uri(&self, group: GroupId, name: &str) -> Result<Option<Secret>, ServerError> {
        let query = "SELECT uri FROM clusters WHERE group_id = ?1 AND name = ?2";
        let found: Option<String> =
            self.lock().query_row(query, params![group.to_string(), name], |r| r.get(0)).optional()?;
        found.map(|sealed| self.seal.unseal(&sealed).map(Secret::new)).transpose()
    }

    pub fn clusters(&self, group: GroupId) -> Result<Vec<String>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT name FROM clusters WHERE group_id = ?1 ORDER BY name")?;
        let rows = query.query_map([group.to_string()], |r| r.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn put_agent(&self, org: OrgId, agent: &Agent) -> Result<(), ServerError> {
        let deployments = serde_json::to_string(&agent.deployments).map_err(|e| unreadable(&e))?;
        let row = params![
            agent.id.to_string(),
            org.to_string(),
            agent.group_id.to_string(),
            agent.host_name,
            deployments,
            agent.seen_at.0
        ];
        self.lock().execute("INSERT OR REPLACE INTO agents VALUES (?1, ?2, ?3, ?4, ?5, ?6)", row)?;
        Ok(())
    }

    /// All agents of an organization.
    pub fn agents(&self, org: OrgId) -> Result<Vec<Agent>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT id, group_id, host_name, deployments, seen_at FROM agents WHERE org_id = ?1 ORDER BY host_name",
        )?;
        let rows = query.query_map([org.to_string()], |r| {
            Ok((
                id(&r.get::<_, String>(0)?)?,
                id(&r.get::<_, String>(1)?)?,
                r.get(2)?,
                r.get::<_, String>(3)?,
                r.get(4)?,
            ))
        })?;
        rows.map(|row| {
            let (id, group_id, host_name, deployments, seen) = row?;
            let deployments = serde_json::from_str(&deployments).map_err(|e| unreadable(&e))?;
            Ok(Agent { id, group_id, host_name, deployments, seen_at: Timestamp(seen) })
        })
        .collect()
    }

    /// Adds a migration unless one that isn't over has the same destination: then that one's id.
    pub fn create_migration(
        &self,
        org: OrgId,
        migration: &Migration,
        credentials: Option<&str>,
    ) -> Result<Option<MigrationId>, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for other in read_migrations(&transaction, "final = 0 AND group_id = ?1", &migration.group_id.to_string())? {
            if other.destination == migration.destination {
                return Ok(Some(other.id));
            }
        }
        let body = serde_json::to_string(migration).map_err(|e| unreadable(&e))?;
        let credentials = credentials.map(|plain| self.seal.seal(plain));
        let row = params![migration.id.to_string(), org.to_string(), migration.group_id.to_string(), credentials, body];
        transaction.execute("INSERT INTO migrations VALUES (?1, ?2, ?3, ?4, 0, 0, ?5)", row)?;
        record(
            &transaction,
            migration.id,
            migration.created_at,
            "created",
            &format!("on host {}", migration.migration_host),
        )?;
        transaction.commit()?;
        Ok(None)
    }

    /// User and password to read the source with, as JSON, where they were given with the request.
    pub fn credentials(&self, migration: MigrationId) -> Result<Option<String>, ServerError> {
        let query = "SELECT credentials FROM migrations WHERE id = ?1";
        let found: Option<Option<String>> =
            self.lock().query_row(query, [migration.to_string()], |r| r.get(0)).optional()?;
        found.flatten().map(|sealed| self.seal.unseal(&sealed)).transpose()
    }

    pub fn migration(&self, migration: MigrationId) -> Result<Option<Migration>, ServerError> {
        Ok(read_migrations(&self.lock(), "id = ?1", &migration.to_string())?.pop())
    }

    /// A group's, newest first.
    pub fn migrations(&self, group: GroupId) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.lock(), "group_id = ?1", &group.to_string())
    }

    /// An organization's that aren't over.
    pub fn active_of_org(&self, org: OrgId) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.lock(), "final = 0 AND org_id = ?1", &org.to_string())
    }

    /// Everyone's that aren't over.
    pub fn active(&self) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.lock(), "final = 0 AND ?1 = ''", "")
    }

    /// Carries a transition out: state and events in one transaction, over just the version that was read.
    pub fn change(&self, migration: MigrationId, event: Event, now: Timestamp) -> Result<Migration, NotChanged> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let query = "SELECT version, body FROM migrations WHERE id = ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?));
        let Some((version, body)) = transaction.query_row(query, [migration.to_string()], read).optional()? else {
            return Err(NotChanged::Unknown);
        };
        let current: Migration = serde_json::from_str(&body).map_err(|e| unreadable(&e))?;
        let (next, actions) = step(&current, event, now).map_err(NotChanged::Illegal)?;
        let body = serde_json::to_string(&next).map_err(|e| unreadable(&e))?;
        let update = "UPDATE migrations SET version = ?2 + 1, final = ?3, body = ?4 WHERE id = ?1 AND version = ?2";
        transaction.execute(update, params![migration.to_string(), version, next.phase.kind().is_final(), body])?;
        for Action::Record { kind, message } in &actions {
            record(&transaction, migration, now, kind, message)?;
        }
        transaction.commit()?;
        Ok(next)
    }

    /// The newest events, oldest first: number, time, kind, message.
    pub fn events(&self, migration: MigrationId) -> Result<Vec<(i64, Timestamp, String, String)>, ServerError> {
        let connection = self.lock();
        let mut query = connection
            .prepare("SELECT n, at, kind, message FROM events WHERE migration_id = ?1 ORDER BY n DESC LIMIT 500")?;
        let rows = query
            .query_map([migration.to_string()], |r| Ok((r.get(0)?, Timestamp(r.get(1)?), r.get(2)?, r.get(3)?)))?;
        let mut events = rows.collect::<Result<Vec<_>, _>>()?;
        events.reverse();
        Ok(events)
    }

    pub fn create_validation(&self, org: OrgId, validation: &Validation, host: &str) -> Result<(), ServerError> {
        let request = self.seal.seal(&validation.request.to_string());
        let row =
            params![validation.id, org.to_string(), validation.group_id.to_string(), host, validation.status, request];
        self.lock().execute("INSERT INTO validations VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6)", row)?;
        Ok(())
    }

    fn read_validations(&self, condition: &str, value: &str) -> Result<Vec<Validation>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare(&format!(
            "SELECT id, group_id, status, error_message, request FROM validations WHERE {condition}"
        ))?;
        let rows = query.query_map([value], |r| {
            Ok((r.get(0)?, id(&r.get::<_, String>(1)?)?, r.get(2)?, r.get(3)?, r.get::<_, String>(4)?))
        })?;
        rows.map(|row| {
            let (id, group_id, status, error_message, request) = row?;
            let request = serde_json::from_str(&self.seal.unseal(&request)?).map_err(|e| unreadable(&e))?;
            Ok(Validation { id, group_id, status, error_message, request })
        })
        .collect()
    }

    pub fn validation(&self, validation: &str) -> Result<Option<Validation>, ServerError> {
        Ok(self.read_validations("id = ?1", validation)?.pop())
    }

    pub fn pending_validations(&self, host: &str) -> Result<Vec<Validation>, ServerError> {
        self.read_validations("status = 'PENDING' AND host_name = ?1", host)
    }

    /// Ends a validation; repeated, it changes nothing.
    pub fn finish_validation(&self, validation: &str, error_message: Option<&str>) -> Result<(), ServerError> {
        let status = if error_message.is_some() { "FAILED" } else { "SUCCESS" };
        let update = "UPDATE validations SET status = ?2, error_message = ?3 WHERE id = ?1 AND status = 'PENDING'";
        self.lock().execute(update, params![validation, status, error_message])?;
        Ok(())
    }
}

fn record(
    connection: &Connection,
    migration: MigrationId,
    at: Timestamp,
    kind: &str,
    message: &str,
) -> Result<(), rusqlite::Error> {
    let row = params![migration.to_string(), at.0, kind, message];
    connection.execute("INSERT INTO events (migration_id, at, kind, message) VALUES (?1, ?2, ?3, ?4)", row).map(drop)
}

fn read_migrations(connection: &Connection, condition: &str, value: &str) -> Result<Vec<Migration>, ServerError> {
    let mut query =
        connection.prepare_cached(&format!("SELECT body FROM migrations WHERE {condition} ORDER BY id DESC"))?;
    let rows = query.query_map([value], |r| r.get::<_, String>(0))?;
    rows.map(|body| serde_json::from_str(&body?).map_err(|e| unreadable(&e))).collect()
}
