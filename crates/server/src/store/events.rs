//! What happened to migrations.

use crate::{
    ServerError,
    store::{Store, offset, text},
};
use limosa_model::{MigrationId, Timestamp, history::HistoryEvent};
use rusqlite::{Connection, params};

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
pub(super) fn record(
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

impl Store {
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
}
