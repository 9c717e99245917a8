//! Migrations. What becomes of one is decided elsewhere; here it is written, over just the version that was read.

use crate::{
    ServerError,
    encryption::Place,
    store::{RelaxedDurability, Store, events::record, offset, samples, unreadable},
};
use limosa_model::{GroupId, Migration, MigrationId, OrgId, PhaseKind, Secret, Timestamp, history::HistoryEvent};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::MutexGuard;

/// A migration that is about to change: nobody else writes as long as this lives.
pub(crate) struct Change<'a> {
    store: &'a Store,
    connection: MutexGuard<'a, Connection>,
    version: i64,
    pub current: Migration,
}

impl Change<'_> {
    /// Writes what becomes of it, with what happened and a sample now and then, in one transaction. With `relaxed` the disk
    /// isn't waited for. A migration that nothing makes continue loses its credentials.
    pub fn write(
        self,
        next: Migration,
        history: &[HistoryEvent],
        relaxed: bool,
        now: Timestamp,
    ) -> Result<Migration, ServerError> {
        let Self { store, connection, version, current } = self;
        let relaxed = if relaxed { Some(RelaxedDurability::begin(&connection)?) } else { None };
        let transaction = connection.unchecked_transaction()?;
        let body = serde_json::to_string(&next).map_err(|e| unreadable(&e))?;
        let is_over = next.phase.kind().is_final() && !next.carried.to_remove;
        let update = "UPDATE migrations SET version = ?2 + 1, final = ?3, body = ?4,
            credentials = CASE WHEN ?5 THEN NULL ELSE credentials END WHERE id = ?1 AND version = ?2";
        let row = params![next.id.to_string(), version, is_over, body, next.is_terminal()];
        transaction.prepare_cached(update)?.execute(row)?;
        samples::keep(&transaction, &next, now)?;
        for event in history {
            record(&transaction, next.id, now, event)?;
        }
        transaction.commit()?;
        drop(relaxed);
        drop(connection);
        if next.is_terminal() && !current.is_terminal() {
            store.wipe();
        }
        store.changes.count();
        Ok(next)
    }
}

impl Store {
    /// Begins to change a migration; `None` if there is no such one.
    pub fn begin_change(&self, migration: MigrationId) -> Result<Option<Change<'_>>, ServerError> {
        let connection = self.lock();
        let query = "SELECT version, body FROM migrations WHERE id = ?1";
        let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?));
        let found = connection.prepare_cached(query)?.query_row([migration.to_string()], read).optional()?;
        let Some((version, body)) = found else { return Ok(None) };
        let current = serde_json::from_str(&body).map_err(|e| unreadable(&e))?;
        Ok(Some(Change { store: self, connection, version, current }))
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
        // A reverse migration has the ends of the migration that it belongs to, which is just ending.
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
    /// and nothing makes it continue.
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

    /// Whether a migration's reverse migration was created.
    pub fn has_reverse_migration(&self, of: MigrationId) -> Result<bool, ServerError> {
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
}

fn credentials_of(migration: &str) -> Place<'_> {
    Place { table: "migrations", column: "credentials", id: migration }
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
