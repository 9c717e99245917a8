//! How far a migration was over time, close by for the last hour and thinned out before, so that a month fits; and its lag.

use crate::{
    ServerError,
    store::{Store, text, unreadable},
};
use limosa_model::{Migration, MigrationId, Timestamp, wire::own::MigrationSample};
use rusqlite::{Connection, params};

/// Samples of the last hour are this far apart at least.
const CLOSE_MILLIS: i64 = 10_000;

/// How long they stay so.
const CLOSE_FOR_MILLIS: i64 = 3_600_000;

/// Older ones are this far apart: a multiple of the close ones.
const FAR_MILLIS: i64 = 600_000;

/// What is older goes: at most 360 close samples and 4320 far ones are kept.
const KEPT_MILLIS: i64 = 30 * 86_400_000;

/// Lag samples are this far apart at least, and so many are kept.
const LAG_EVERY_MILLIS: i64 = 10_000;
const LAGS: i64 = 360;

/// Keeps a sample of both now and then.
pub(super) fn keep(connection: &Connection, migration: &Migration, now: Timestamp) -> Result<(), ServerError> {
    sample_lag(connection, migration, now)?;
    sample(connection, migration, now)
}

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

fn sample(connection: &Connection, migration: &Migration, now: Timestamp) -> Result<(), ServerError> {
    let slot = now.0 / CLOSE_MILLIS * CLOSE_MILLIS;
    let progress = &migration.progress;
    let sample = MigrationSample {
        bytes_copied: progress.bytes_copied,
        documents_copied: progress.documents_copied,
        events_applied: progress.events_applied,
        lag_seconds: migration.lag_time_seconds(now),
        oplog_window_seconds: progress.oplog_window_seconds,
        phase: migration.phase.kind(),
        spool_bytes: progress.spool_bytes,
        time: now.rfc3339(),
    };
    let id = migration.id.to_string();
    let insert = "INSERT OR IGNORE INTO samples VALUES (?1, ?2, ?3)";
    if connection.prepare_cached(insert)?.execute(params![id, slot, text(&sample)?])? == 1 {
        let thin = "DELETE FROM samples WHERE migration_id = ?1 AND (at <= ?2 OR (at <= ?3 AND at % ?4 <> 0))";
        connection.prepare_cached(thin)?.execute(params![
            id,
            slot - KEPT_MILLIS,
            slot - CLOSE_FOR_MILLIS,
            FAR_MILLIS
        ])?;
    }
    Ok(())
}

impl Store {
    /// Samples of the lag, oldest first.
    pub fn lags(&self, migration: MigrationId) -> Result<Vec<(Timestamp, i64)>, ServerError> {
        let connection = self.reader();
        let mut query =
            connection.prepare_cached("SELECT at, seconds FROM lags WHERE migration_id = ?1 ORDER BY at")?;
        let rows = query.query_map([migration.to_string()], |r| Ok((Timestamp(r.get(0)?), r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Samples of how far it was, oldest first.
    pub fn history(&self, migration: MigrationId) -> Result<Vec<MigrationSample>, ServerError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT body FROM samples WHERE migration_id = ?1 ORDER BY at")?;
        let rows = query.query_map([migration.to_string()], |r| r.get::<_, String>(0))?;
        rows.map(|body| serde_json::from_str(&body?).map_err(|e| unreadable(&e))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encryption::Seal, store::tests::migration};

    #[test]
    fn a_history_is_close_for_an_hour_and_thin_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let seal = Seal::open(&dir.path().join("key")).expect("makes a key");
        let store = Store::open(&dir.path().join("db"), seal).expect("opens");
        let mut migration = migration();
        let hours = 5;
        let connection = store.lock();
        let transaction = connection.unchecked_transaction().expect("begins");
        for second in 0..hours * 3600 {
            migration.progress.bytes_copied = second as u64;
            sample(&transaction, &migration, Timestamp(second * 1000)).expect("is kept");
        }
        transaction.commit().expect("commits");
        drop(connection);
        let found = store.history(migration.id).expect("reads");
        let seconds: Vec<u64> = found.iter().map(|s| s.bytes_copied).collect();
        let thin = seconds.iter().filter(|s| **s < (hours - 1) as u64 * 3600).count();
        assert!(seconds.is_sorted() && thin == 6 * (hours as usize - 1), "{thin} of {}", seconds.len());
        assert_eq!(seconds.len() - thin, 360);
        sample(&store.lock(), &migration, Timestamp(40 * 86_400_000)).expect("is kept");
        assert_eq!(store.history(migration.id).expect("reads").len(), 1, "what is older than a month goes");
    }
}
