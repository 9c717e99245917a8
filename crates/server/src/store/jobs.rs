//! Agents, migrations, validations.

use super::{Store, id, unreadable};
use crate::ServerError;
use limosa_model::{
    AgentId, GroupId, Migration, MigrationId, OrgId, Timestamp, protocol,
    transition::{Action, Event, IllegalTransition, step},
    wire::live_migration::ValidationStatus,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

/// Lag samples are this far apart at least, and so many are kept.
const LAG_EVERY_MILLIS: i64 = 10_000;
const LAGS: i64 = 360;

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
    pub status: ValidationStatus,
    pub error_message: Option<String>,
    pub request: Value,
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

impl Store {
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
            if other.destination.cluster_name == migration.destination.cluster_name {
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
        sample_lag(&transaction, &next, now)?;
        for Action::Record { kind, message } in &actions {
            record(&transaction, migration, now, kind, message)?;
        }
        transaction.commit()?;
        Ok(next)
    }

    /// Events after number `after`, oldest first: number, time, kind, message.
    pub fn events(
        &self,
        migration: MigrationId,
        after: i64,
    ) -> Result<Vec<(i64, Timestamp, String, String)>, ServerError> {
        let connection = self.lock();
        let mut query = connection
            .prepare_cached("SELECT n, at, kind, message FROM events WHERE migration_id = ?1 AND n > ?2 ORDER BY n")?;
        let rows = query.query_map(params![migration.to_string(), after], |r| {
            Ok((r.get(0)?, Timestamp(r.get(1)?), r.get(2)?, r.get(3)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Samples of the lag, oldest first.
    pub fn lags(&self, migration: MigrationId) -> Result<Vec<(Timestamp, i64)>, ServerError> {
        let connection = self.lock();
        let mut query =
            connection.prepare_cached("SELECT at, seconds FROM lags WHERE migration_id = ?1 ORDER BY at")?;
        let rows = query.query_map([migration.to_string()], |r| Ok((Timestamp(r.get(0)?), r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn create_validation(
        &self,
        org: OrgId,
        validation: &Validation,
        host: &str,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let request = self.seal.seal(&validation.request.to_string());
        let row = params![validation.id, org.to_string(), validation.group_id.to_string(), host, now.0, request];
        let insert = "INSERT INTO validations VALUES (?1, ?2, ?3, ?4, ?5, 'PENDING', NULL, ?6)";
        self.lock().execute(insert, row)?;
        Ok(())
    }

    fn read_validations(&self, condition: &str, values: &[String]) -> Result<Vec<Validation>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(&format!(
            "SELECT id, group_id, status, error_message, request FROM validations WHERE {condition}"
        ))?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |r| {
            Ok((r.get(0)?, id(&r.get::<_, String>(1)?)?, r.get::<_, String>(2)?, r.get(3)?, r.get::<_, String>(4)?))
        })?;
        rows.map(|row| {
            let (id, group_id, status, error_message, request) = row?;
            let status = serde_json::from_value(Value::String(status)).map_err(|e| unreadable(&e))?;
            let request = serde_json::from_str(&self.seal.unseal(&request)?).map_err(|e| unreadable(&e))?;
            Ok(Validation { id, group_id, status, error_message, request })
        })
        .collect()
    }

    pub fn validation(&self, validation: &str) -> Result<Option<Validation>, ServerError> {
        Ok(self.read_validations("id = ?1", &[validation.to_owned()])?.pop())
    }

    pub fn pending_validations(&self, org: OrgId, host: &str) -> Result<Vec<Validation>, ServerError> {
        let values = [org.to_string(), host.to_owned()];
        self.read_validations("status = 'PENDING' AND org_id = ?1 AND host_name = ?2", &values)
    }

    /// Ends a validation; repeated, it changes nothing.
    pub fn finish_validation(&self, validation: &str, error_message: Option<&str>) -> Result<(), ServerError> {
        let status = if error_message.is_some() { "FAILED" } else { "SUCCESS" };
        let update = "UPDATE validations SET status = ?2, error_message = ?3 WHERE id = ?1 AND status = 'PENDING'";
        self.lock().execute(update, params![validation, status, error_message])?;
        Ok(())
    }

    /// Ends validations that no agent has come for since `before`.
    pub fn lapse_validations(&self, before: Timestamp) -> Result<(), ServerError> {
        let update = "UPDATE validations SET status = 'FAILED', error_message = 'No agent on ' || host_name || ' came for it. \
            Start one, then validate again.' WHERE status = 'PENDING' AND created_at < ?1";
        self.lock().execute(update, [before.0])?;
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

/// Keeps a sample of the lag now and then.
fn sample_lag(connection: &Connection, migration: &Migration, now: Timestamp) -> Result<(), rusqlite::Error> {
    let Some(seconds) = migration.lag_time_seconds() else { return Ok(()) };
    let slot = now.0 / LAG_EVERY_MILLIS * LAG_EVERY_MILLIS;
    let id = migration.id.to_string();
    if connection.execute("INSERT OR IGNORE INTO lags VALUES (?1, ?2, ?3)", params![id, slot, seconds])? == 1 {
        let oldest = slot - LAGS * LAG_EVERY_MILLIS;
        connection.execute("DELETE FROM lags WHERE migration_id = ?1 AND at <= ?2", params![id, oldest])?;
    }
    Ok(())
}

fn read_migrations(connection: &Connection, condition: &str, value: &str) -> Result<Vec<Migration>, ServerError> {
    let mut query =
        connection.prepare_cached(&format!("SELECT body FROM migrations WHERE {condition} ORDER BY id DESC"))?;
    let rows = query.query_map([value], |r| r.get::<_, String>(0))?;
    rows.map(|body| serde_json::from_str(&body?).map_err(|e| unreadable(&e))).collect()
}
