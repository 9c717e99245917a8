//! The store: SQLite, one file. A migration is written only over the version that was read, its events in the same
//! transaction; secrets are sealed, or hashed where that is enough, before they are written.

mod jobs;
mod keys;

pub(crate) use jobs::{Agent, NotChanged, Validation};
pub(crate) use keys::{ApiKey, ServiceAccount};

use crate::{ServerError, seal::Seal};
use limosa_model::{DeploymentId, GroupId, OrgId, Secret, Timestamp, wire::live_migration::HostnameSchemaType};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS orgs (id TEXT PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS groups (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, created_at INTEGER NOT NULL,
        UNIQUE (org_id, name));
    CREATE TABLE IF NOT EXISTS api_keys (id TEXT PRIMARY KEY, public_key TEXT NOT NULL UNIQUE, org_id TEXT NOT NULL, ha1 TEXT NOT NULL,
        tail TEXT NOT NULL, description TEXT NOT NULL, roles TEXT NOT NULL, is_link INTEGER NOT NULL, access_list TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS service_accounts (client_id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL,
        description TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, secret_id TEXT NOT NULL,
        secret_hash TEXT NOT NULL, roles TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS tokens (hash TEXT PRIMARY KEY, client_id TEXT NOT NULL REFERENCES service_accounts ON DELETE CASCADE,
        expires_at INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS links (org_id TEXT PRIMARY KEY, public_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS audit (n INTEGER PRIMARY KEY AUTOINCREMENT, org_id TEXT NOT NULL, at INTEGER NOT NULL,
        actor TEXT NOT NULL, address TEXT NOT NULL, operation TEXT NOT NULL, target TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS clusters (id TEXT NOT NULL, group_id TEXT NOT NULL, name TEXT NOT NULL, uris TEXT NOT NULL,
        PRIMARY KEY (group_id, name));
    CREATE TABLE IF NOT EXISTS agents (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, host_name TEXT NOT NULL,
        deployments TEXT NOT NULL, seen_at INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS migrations (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, credentials TEXT,
        version INTEGER NOT NULL, final INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS active_migrations ON migrations (final);
    CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY AUTOINCREMENT, migration_id TEXT NOT NULL, at INTEGER NOT NULL,
        kind TEXT NOT NULL, message TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS events_of_migration ON events (migration_id, n);
    CREATE TABLE IF NOT EXISTS lags (migration_id TEXT NOT NULL, at INTEGER NOT NULL, seconds INTEGER NOT NULL,
        PRIMARY KEY (migration_id, at)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS validations (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, host_name TEXT NOT NULL,
        created_at INTEGER NOT NULL, status TEXT NOT NULL, error_message TEXT, request TEXT NOT NULL);
";

/// See the module.
pub(crate) struct Store {
    connection: Mutex<Connection>,
    seal: Seal,
}

/// A registered destination.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub id: DeploymentId,
    pub name: String,
    pub uris: Uris,
}

/// How agents reach a destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Uris {
    pub standard: Secret,
    pub vpc_peering: Option<Secret>,
    pub private_links: Vec<(String, Secret)>,
}

impl Uris {
    /// The one that a request asks for.
    pub fn pick(&self, kind: HostnameSchemaType, private_link: Option<&str>) -> Option<&Secret> {
        match kind {
            HostnameSchemaType::Public => Some(&self.standard),
            HostnameSchemaType::VpcPeering => self.vpc_peering.as_ref(),
            HostnameSchemaType::PrivateLink => {
                self.private_links.iter().find(|(id, _)| Some(id.as_str()) == private_link).map(|(_, uri)| uri)
            }
        }
    }
}

/// A group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub id: GroupId,
    pub org_id: OrgId,
    pub name: String,
    pub created_at: Timestamp,
    pub clusters: i64,
}

const GROUP: &str =
    "SELECT id, org_id, name, created_at, (SELECT count(*) FROM clusters WHERE group_id = groups.id) FROM groups";

fn read_group(r: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group {
        id: id(&r.get::<_, String>(0)?)?,
        org_id: id(&r.get::<_, String>(1)?)?,
        name: r.get(2)?,
        created_at: Timestamp(r.get(3)?),
        clusters: r.get(4)?,
    })
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

    /// Adds a group; `false` if the organization has one of that name.
    pub fn create_group(&self, group: GroupId, org: OrgId, name: &str, now: Timestamp) -> Result<bool, ServerError> {
        let row = params![group.to_string(), org.to_string(), name, now.0];
        Ok(self.lock().execute("INSERT OR IGNORE INTO groups VALUES (?1, ?2, ?3, ?4)", row)? == 1)
    }

    pub fn group_by_name(&self, org: OrgId, name: &str) -> Result<Option<Group>, ServerError> {
        let query = format!("{GROUP} WHERE org_id = ?1 AND name = ?2");
        Ok(self.lock().query_row(&query, params![org.to_string(), name], read_group).optional()?)
    }

    pub fn group(&self, group: GroupId) -> Result<Option<Group>, ServerError> {
        let query = format!("{GROUP} WHERE id = ?1");
        Ok(self.lock().query_row(&query, [group.to_string()], read_group).optional()?)
    }

    /// All groups of an organization, by name.
    pub fn groups(&self, org: OrgId) -> Result<Vec<Group>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare(&format!("{GROUP} WHERE org_id = ?1 ORDER BY name"))?;
        Ok(query.query_map([org.to_string()], read_group)?.collect::<Result<_, _>>()?)
    }

    /// Registers a destination cluster, or changes its URIs.
    pub fn put_cluster(&self, group: GroupId, name: &str, uris: &Uris) -> Result<(), ServerError> {
        let sealed = self.seal.seal(&text(uris)?);
        let row = params![DeploymentId::generate().to_string(), group.to_string(), name, sealed];
        let insert = "INSERT INTO clusters VALUES (?1, ?2, ?3, ?4) ON CONFLICT (group_id, name) DO UPDATE SET uris = excluded.uris";
        self.lock().execute(insert, row)?;
        Ok(())
    }

    /// All destinations of a group, by name.
    pub fn clusters(&self, group: GroupId) -> Result<Vec<Cluster>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT id, name, uris FROM clusters WHERE group_id = ?1 ORDER BY name")?;
        let rows = query.query_map([group.to_string()], |r| {
            Ok((id(&r.get::<_, String>(0)?)?, r.get(1)?, r.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (id, name, sealed) = row?;
            Ok(Cluster { id, name, uris: read(&self.seal.unseal(&sealed)?)? })
        })
        .collect()
    }

    pub fn cluster(&self, group: GroupId, name: &str) -> Result<Option<Cluster>, ServerError> {
        Ok(self.clusters(group)?.into_iter().find(|cluster| cluster.name == name))
    }

    /// `false` if there is none of that name.
    pub fn delete_cluster(&self, group: GroupId, name: &str) -> Result<bool, ServerError> {
        let delete = "DELETE FROM clusters WHERE group_id = ?1 AND name = ?2";
        Ok(self.lock().execute(delete, params![group.to_string(), name])? == 1)
    }
}
