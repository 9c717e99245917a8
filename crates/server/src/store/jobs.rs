//! Agents, migrations, validations.

use crate::{
    ServerError,
    auth::bearer,
    seal::Place,
    store::{Lightly, Store, id, text, unreadable},
};
use limosa_model::{
    AgentId, Finding, GroupId, Migration, MigrationId, OrgId, PhaseKind, Secret, Timestamp,
    history::HistoryEvent,
    protocol,
    transition::{Event, IllegalTransition, apply_event},
    wire::live_migration::ValidationStatus,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use subtle::ConstantTimeEq;

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
    /// The version of its program.
    pub version: String,
    /// Of its secret; versions before gave agents none.
    pub secret_hash: Option<String>,
}

impl Agent {
    /// Whether `secret` is the one with which it joined.
    pub fn is_proven_by(&self, secret: Option<&str>) -> bool {
        let (Some(known), Some(secret)) = (&self.secret_hash, secret) else { return false };
        known.as_bytes().ct_eq(bearer::hash(secret).as_bytes()).into()
    }
}

/// A requested preflight.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    pub id: String,
    pub group_id: GroupId,
    pub status: ValidationStatus,
    pub error_message: Option<String>,
    pub findings: Vec<Finding>,
    pub request: Value,
    /// To read the source with, where they came with the request; gone when it is over.
    pub credentials: Option<Secret>,
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
            agent.seen_at.0,
            agent.version,
            agent.secret_hash
        ];
        let put = "INSERT OR REPLACE INTO agents
            (id, org_id, group_id, host_name, deployments, seen_at, agent_version, secret_hash)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.lock().execute(put, row)?;
        Ok(())
    }

    /// Notes that an agent was heard of.
    pub fn agent_seen(&self, agent: AgentId, now: Timestamp) -> Result<(), ServerError> {
        let connection = self.lock();
        let _lightly = Lightly::begin(&connection)?;
        let update = "UPDATE agents SET seen_at = ?2 WHERE id = ?1";
        connection.prepare_cached(update)?.execute(params![agent.to_string(), now.0])?;
        Ok(())
    }

    /// All agents of an organization.
    pub fn agents(&self, org: OrgId) -> Result<Vec<Agent>, ServerError> {
        self.read_agents("org_id = ?1 ORDER BY host_name", &[org.to_string()])
    }

    /// Whether an id is known at all: it is one agent's, of one organization.
    pub fn has_agent(&self, agent: AgentId) -> Result<bool, ServerError> {
        let query = "SELECT EXISTS (SELECT 1 FROM agents WHERE id = ?1)";
        Ok(self.reader().query_row(query, [agent.to_string()], |r| r.get(0))?)
    }

    /// One of them.
    pub fn agent(&self, org: OrgId, agent: AgentId) -> Result<Option<Agent>, ServerError> {
        Ok(self.read_agents("id = ?1 AND org_id = ?2", &[agent.to_string(), org.to_string()])?.pop())
    }

    fn read_agents(&self, condition: &str, values: &[String]) -> Result<Vec<Agent>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!(
            "SELECT id, group_id, host_name, deployments, seen_at, agent_version, secret_hash FROM agents
             WHERE {condition}"
        ))?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |r| {
            Ok((
                id(&r.get::<_, String>(0)?)?,
                id(&r.get::<_, String>(1)?)?,
                r.get(2)?,
                r.get::<_, String>(3)?,
                r.get(4)?,
                r.get(5)?,
                r.get(6)?,
            ))
        })?;
        rows.map(|row| {
            let (id, group_id, host_name, deployments, seen, version, secret_hash) = row?;
            let deployments = serde_json::from_str(&deployments).map_err(|e| unreadable(&e))?;
            Ok(Agent { id, group_id, host_name, deployments, seen_at: Timestamp(seen), version, secret_hash })
        })
        .collect()
    }

    /// Adds a migration unless one that isn't over has the same destination: then that one's id.
    pub fn create_migration(
        &self,
        org: OrgId,
        migration: &Migration,
        credentials: Option<&Secret>,
    ) -> Result<Option<MigrationId>, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        // A way back has the ends of the migration that it belongs to, which is just ending.
        let others = if migration.reversal.is_some() { "final = 0 AND ?1 = ''" } else { "final = 0 AND group_id = ?1" };
        for other in read_migrations(&transaction, others, [migration.group_id.to_string()])? {
            if other.destination.cluster_name == migration.destination.cluster_name {
                return Ok(Some(other.id));
            }
        }
        let body = serde_json::to_string(migration).map_err(|e| unreadable(&e))?;
        let credentials =
            credentials.map(|plain| self.seal.seal(plain.expose(), &credentials_of(&migration.id.to_string())));
        let row = params![migration.id.to_string(), org.to_string(), migration.group_id.to_string(), credentials, body];
        transaction.execute("INSERT INTO migrations VALUES (?1, ?2, ?3, ?4, 0, 0, ?5)", row)?;
        let created = HistoryEvent::Created { host: migration.migration_host.clone() };
        record(&transaction, migration.id, migration.created_at, &created)?;
        transaction.commit()?;
        self.changes.count();
        Ok(None)
    }

    /// User and password to read the source with, as JSON, where they were given with the request; gone when it is over
    /// for good.
    pub fn credentials(&self, migration: MigrationId) -> Result<Option<Secret>, ServerError> {
        let query = "SELECT credentials FROM migrations WHERE id = ?1";
        let found: Option<Option<String>> =
            self.reader().query_row(query, [migration.to_string()], |r| r.get(0)).optional()?;
        let place = migration.to_string();
        let opened = found.flatten().map(|sealed| self.seal.unseal(&sealed, &credentials_of(&place)));
        Ok(opened.transpose()?.map(Secret::new))
    }

    pub fn migration(&self, migration: MigrationId) -> Result<Option<Migration>, ServerError> {
        Ok(read_migrations(&self.reader(), "id = ?1", [migration.to_string()])?.pop())
    }

    /// One of an organization's.
    pub fn migration_of(&self, org: OrgId, migration: MigrationId) -> Result<Option<Migration>, ServerError> {
        let values = [migration.to_string(), org.to_string()];
        Ok(read_migrations(&self.reader(), "id = ?1 AND org_id = ?2", values)?.pop())
    }

    /// Whether a migration's way back was created.
    pub fn has_way_back(&self, of: MigrationId) -> Result<bool, ServerError> {
        let condition = "json_extract(body, '$.reversal.of') = ?1";
        Ok(!read_migrations(&self.lock(), condition, [of.to_string()])?.is_empty())
    }

    /// The newest migration that has this destination and that an agent may still claim: one that isn't over, one that
    /// failed and can be resumed, or one of which something is still to be removed.
    pub fn user_of_cluster(&self, group: GroupId, name: &str) -> Result<Option<MigrationId>, ServerError> {
        let condition = "group_id = ?1 AND (final = 0 OR phase = 'failed')
            AND json_extract(body, '$.destination.clusterName') = ?2";
        let found = read_migrations(&self.lock(), condition, [group.to_string().as_str(), name])?;
        Ok(found.first().map(|migration| migration.id))
    }

    /// A group's in these phases, newest first: `size` of them after the `first`, and how many there are.
    pub fn migrations(
        &self,
        group: GroupId,
        phases: &[PhaseKind],
        first: usize,
        size: usize,
    ) -> Result<(Vec<Migration>, usize), ServerError> {
        let condition = if phases.len() == PhaseKind::ALL.len() {
            "group_id = ?1".to_owned()
        } else {
            let names: Vec<String> = phases.iter().map(|phase| format!("'{}'", phase.name())).collect();
            format!("group_id = ?1 AND phase IN ({})", names.join(", "))
        };
        let connection = self.reader();
        let count = format!("SELECT count(*) FROM migrations WHERE {condition}");
        let total: i64 = connection.prepare_cached(&count)?.query_row([group.to_string()], |r| r.get(0))?;
        let page = format!("SELECT body FROM migrations WHERE {condition} ORDER BY id DESC LIMIT ?2 OFFSET ?3");
        let mut query = connection.prepare_cached(&page)?;
        let rows =
            query.query_map(params![group.to_string(), size as i64, offset(first)], |r| r.get::<_, String>(0))?;
        Ok((parse(rows)?, total as usize))
    }

    /// How many there are in each phase.
    pub fn migrations_by_phase(&self) -> Result<Vec<(String, i64)>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached("SELECT phase, count(*) FROM migrations GROUP BY phase")?;
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many agents were heard of since.
    pub fn agents_since(&self, since: Timestamp) -> Result<i64, ServerError> {
        Ok(self.reader().query_row("SELECT count(*) FROM agents WHERE seen_at >= ?1", [since.0], |r| r.get(0))?)
    }

    /// An organization's that aren't over.
    pub fn active_of_org(&self, org: OrgId) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.reader(), "final = 0 AND org_id = ?1", [org.to_string()])
    }

    /// Those that are for one of its hosts.
    pub fn active_of_host(&self, org: OrgId, host: &str) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.reader(), "final = 0 AND org_id = ?1 AND host = ?2", [&org.to_string(), host])
    }

    /// Everyone's whose time to cut over ends until then.
    pub fn active_that_end(&self, until: Timestamp) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.reader(), "final = 0 AND ends_at <= ?1", [until.0])
    }

    /// Everyone's whose agent was heard of no more since then.
    pub fn active_and_silent(&self, since: Timestamp) -> Result<Vec<Migration>, ServerError> {
        read_migrations(&self.reader(), "final = 0 AND json_extract(body, '$.heard.at') < ?1", [since.0])
    }

    /// Carries a transition out: state and events in one transaction, over just the version that was read. Where nothing
    /// changes but how far it is, the disk isn't waited for. A migration that nothing makes continue loses its credentials.
    pub fn change(&self, migration: MigrationId, event: Event, now: Timestamp) -> Result<Migration, NotChanged> {
        let connection = self.lock();
        let query = "SELECT version, body FROM migrations WHERE id = ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?));
        let found = connection.prepare_cached(query)?.query_row([migration.to_string()], read).optional()?;
        let Some((version, body)) = found else { return Err(NotChanged::Unknown) };
        let current: Migration = serde_json::from_str(&body).map_err(|e| unreadable(&e))?;
        let is_report = matches!(event, Event::Report(_));
        let (next, history) = apply_event(&current, event, now).map_err(NotChanged::Illegal)?;
        let is_told_again =
            is_report && history.is_empty() && next.phase == current.phase && next.carried == current.carried;
        let lightly = if is_told_again { Some(Lightly::begin(&connection)?) } else { None };
        let transaction = connection.unchecked_transaction()?;
        let body = serde_json::to_string(&next).map_err(|e| unreadable(&e))?;
        let is_over = next.phase.kind().is_final() && !next.carried.to_remove;
        let update = "UPDATE migrations SET version = ?2 + 1, final = ?3, body = ?4,
            credentials = CASE WHEN ?5 THEN NULL ELSE credentials END WHERE id = ?1 AND version = ?2";
        let row = params![migration.to_string(), version, is_over, body, next.is_over_for_good()];
        transaction.prepare_cached(update)?.execute(row)?;
        sample_lag(&transaction, &next, now)?;
        super::history::sample(&transaction, &next, now)?;
        for event in &history {
            record(&transaction, migration, now, event)?;
        }
        transaction.commit()?;
        drop(lightly);
        drop(connection);
        if next.is_over_for_good() && !current.is_over_for_good() {
            self.wipe();
        }
        self.changes.count();
        Ok(next)
    }

    /// Events after number `after`, oldest first.
    pub fn events(&self, migration: MigrationId, after: i64) -> Result<Vec<EventRow>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(
            "SELECT n, at, kind, message, data FROM events WHERE migration_id = ?1 AND n > ?2 ORDER BY n",
        )?;
        let rows = query.query_map(params![migration.to_string(), after], read_event)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A page of its events, oldest first, and how many there are.
    pub fn events_page(
        &self,
        migration: MigrationId,
        first: usize,
        size: usize,
    ) -> Result<(Vec<EventRow>, usize), ServerError> {
        let connection = self.reader();
        let id = migration.to_string();
        let mut count = connection.prepare_cached("SELECT count(*) FROM events WHERE migration_id = ?1")?;
        let total: i64 = count.query_row([&id], |r| r.get(0))?;
        let mut query = connection.prepare_cached(
            "SELECT n, at, kind, message, data FROM events WHERE migration_id = ?1 ORDER BY n LIMIT ?2 OFFSET ?3",
        )?;
        let rows = query.query_map(params![id, size as i64, offset(first)], read_event)?;
        Ok((rows.collect::<Result<_, _>>()?, total as usize))
    }

    /// Samples of the lag, oldest first.
    pub fn lags(&self, migration: MigrationId) -> Result<Vec<(Timestamp, i64)>, ServerError> {
        let connection = self.reader();
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
        let place = |column| Place { table: "validations", column, id: &validation.id };
        let request = self.seal.seal(&validation.request.to_string(), &place("request"));
        let credentials =
            validation.credentials.as_ref().map(|plain| self.seal.seal(plain.expose(), &place("credentials")));
        let (org, group) = (org.to_string(), validation.group_id.to_string());
        let row = params![validation.id, org, group, host, now.0, request, credentials];
        let insert = "INSERT INTO validations (id, org_id, group_id, host_name, created_at, status, request, credentials) \
                      VALUES (?1, ?2, ?3, ?4, ?5, 'PENDING', ?6, ?7)";
        self.lock().execute(insert, row)?;
        Ok(())
    }

    fn read_validations(&self, condition: &str, values: &[String]) -> Result<Vec<Validation>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!(
            "SELECT id, group_id, status, error_message, request, findings, credentials FROM validations WHERE {condition}"
        ))?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |r| {
            let column = |at: usize| r.get::<_, String>(at);
            Ok((
                column(0)?,
                id(&column(1)?)?,
                column(2)?,
                r.get(3)?,
                column(4)?,
                column(5)?,
                r.get::<_, Option<String>>(6)?,
            ))
        })?;
        rows.map(|row| {
            let (id, group_id, status, error_message, request, findings, credentials) = row?;
            let status = serde_json::from_value(Value::String(status)).map_err(|e| unreadable(&e))?;
            let place = |column| Place { table: "validations", column, id: &id };
            let request = self.seal.unseal(&request, &place("request"))?;
            let credentials = credentials.map(|sealed| self.seal.unseal(&sealed, &place("credentials"))).transpose()?;
            let credentials = credentials.map(Secret::new);
            let request = serde_json::from_str(&request).map_err(|e| unreadable(&e))?;
            let findings = serde_json::from_str(&findings).map_err(|e| unreadable(&e))?;
            Ok(Validation { id, group_id, status, error_message, findings, request, credentials })
        })
        .collect()
    }

    pub fn validation(&self, validation: &str) -> Result<Option<Validation>, ServerError> {
        Ok(self.read_validations("id = ?1", &[validation.to_owned()])?.pop())
    }

    /// Gives a validation to an agent, unless another one has it that was heard of since `since`.
    pub fn take_validation(&self, validation: &str, agent: AgentId, since: Timestamp) -> Result<bool, ServerError> {
        let update = "UPDATE validations SET agent_id = ?2 WHERE id = ?1 AND status = 'PENDING' AND (agent_id IS NULL
            OR agent_id = ?2
            OR NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = validations.agent_id AND seen_at > ?3))";
        Ok(self.lock().execute(update, params![validation, agent.to_string(), since.0])? == 1)
    }

    pub fn pending_validations(&self, org: OrgId, host: &str) -> Result<Vec<Validation>, ServerError> {
        let values = [org.to_string(), host.to_owned()];
        self.read_validations("status = 'PENDING' AND org_id = ?1 AND host_name = ?2", &values)
    }

    /// Ends a validation that its agent was given; repeated, it changes nothing. `false` if it isn't this agent's.
    pub fn finish_validation(
        &self,
        org: OrgId,
        agent: AgentId,
        validation: &str,
        failed: bool,
        error_message: Option<&str>,
        findings: &[Finding],
    ) -> Result<bool, ServerError> {
        let status = if failed { "FAILED" } else { "SUCCESS" };
        let (org, agent) = (org.to_string(), agent.to_string());
        let connection = self.lock();
        let own = "SELECT EXISTS (SELECT 1 FROM validations WHERE id = ?1 AND org_id = ?2 AND agent_id = ?3)";
        if !connection.query_row(own, params![validation, org, agent], |r| r.get::<_, bool>(0))? {
            return Ok(false);
        }
        let update = "UPDATE validations SET status = ?2, error_message = ?3, findings = ?4, credentials = NULL
            WHERE id = ?1 AND status = 'PENDING'";
        connection.execute(update, params![validation, status, error_message, text(&findings)?])?;
        drop(connection);
        self.wipe();
        Ok(true)
    }

    /// Ends validations that no agent has come for since `before`.
    pub fn lapse_validations(&self, before: Timestamp) -> Result<(), ServerError> {
        let update = "UPDATE validations SET status = 'FAILED', credentials = NULL, error_message = 'No agent on ' || host_name || ' came for it. \
            Start one, then validate again.' WHERE status = 'PENDING' AND created_at < ?1";
        if self.lock().execute(update, [before.0])? > 0 {
            self.wipe();
        }
        Ok(())
    }
}

fn credentials_of(migration: &str) -> Place<'_> {
    Place { table: "migrations", column: "credentials", id: migration }
}

/// An entry of a migration's history.
pub(crate) struct EventRow {
    /// Grows with each entry of any migration.
    pub number: i64,
    pub at: Timestamp,
    pub event: HistoryEvent,
}

/// Of the columns n, at, kind, message, data.
pub(super) fn read_event(r: &rusqlite::Row<'_>) -> rusqlite::Result<EventRow> {
    let (kind, message, data): (String, String, Option<String>) = (r.get(2)?, r.get(3)?, r.get(4)?);
    let event = HistoryEvent::stored(&kind, &message, data.as_deref());
    Ok(EventRow { number: r.get(0)?, at: Timestamp(r.get(1)?), event })
}

/// Kind and sentence are stored along with the data: the version before reads those.
fn record(
    connection: &Connection,
    migration: MigrationId,
    at: Timestamp,
    event: &HistoryEvent,
) -> Result<(), ServerError> {
    let row = params![migration.to_string(), at.0, event.kind(), event.to_string(), text(event)?];
    let insert = "INSERT INTO events (migration_id, at, kind, message, data) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(insert)?.execute(row)?;
    Ok(())
}

/// Keeps a sample of the lag now and then.
fn sample_lag(connection: &Connection, migration: &Migration, now: Timestamp) -> Result<(), rusqlite::Error> {
    let Some(seconds) = migration.lag_time_seconds(now) else { return Ok(()) };
    let slot = now.0 / LAG_EVERY_MILLIS * LAG_EVERY_MILLIS;
    let id = migration.id.to_string();
    let insert = "INSERT OR IGNORE INTO lags VALUES (?1, ?2, ?3)";
    if connection.prepare_cached(insert)?.execute(params![id, slot, seconds])? == 1 {
        let thin = "DELETE FROM lags WHERE migration_id = ?1 AND at <= ?2";
        connection.prepare_cached(thin)?.execute(params![id, slot - LAGS * LAG_EVERY_MILLIS])?;
    }
    Ok(())
}

fn read_migrations(
    connection: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Migration>, ServerError> {
    let mut query =
        connection.prepare_cached(&format!("SELECT body FROM migrations WHERE {condition} ORDER BY id DESC"))?;
    let rows = query.query_map(values, |r| r.get::<_, String>(0))?;
    parse(rows)
}

fn parse(bodies: impl Iterator<Item = rusqlite::Result<String>>) -> Result<Vec<Migration>, ServerError> {
    bodies.map(|body| serde_json::from_str(&body?).map_err(|e| unreadable(&e))).collect()
}

/// A number of rows to leave out, as SQLite takes it.
pub(super) fn offset(first: usize) -> i64 {
    i64::try_from(first).unwrap_or(i64::MAX)
}
