//! Messages that wait to be taken, and how far the events were read for them.

use crate::{
    ServerError,
    store::{EventRow, Store, events::read_event, unreadable},
};
use limosa_model::{Migration, Timestamp, history::HistoryEvent};
use rusqlite::{Connection, params};

/// A message that waits, for one channel.
pub(crate) struct Waiting {
    pub n: i64,
    pub channel: String,
    /// JSON.
    pub body: String,
    pub attempts: i64,
    pub since: Timestamp,
}

/// Events read in one go.
const EVENTS: i64 = 500;

fn put(connection: &Connection, channels: &[String], body: &str, now: Timestamp) -> Result<(), rusqlite::Error> {
    let insert = "INSERT INTO outbox (channel, body, since, next_at, attempts) VALUES (?1, ?2, ?3, ?3, 0)";
    channels.iter().try_for_each(|channel| connection.execute(insert, params![channel, body, now.0]).map(drop))
}

impl Store {
    /// From now on events are told; those of before aren't, unless they would have been anyway.
    pub fn begin_announcing(&self) -> Result<(), ServerError> {
        let begin = "INSERT OR IGNORE INTO announced SELECT 'events', coalesce(max(n), 0) FROM events";
        self.lock().execute(begin, [])?;
        Ok(())
    }

    /// Reads on in the events and puts what `message` makes of them into the outbox; all of it, or nothing.
    pub fn announce(
        &self,
        channels: &[String],
        now: Timestamp,
        message: impl Fn(&Migration, Timestamp, &HistoryEvent) -> Option<String>,
    ) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let read = "SELECT n FROM announced WHERE what = 'events'";
        let seen: i64 = transaction.query_row(read, [], |r| r.get(0))?;
        let mut last = seen;
        {
            let query =
                "SELECT e.n, e.at, e.kind, e.message, e.data, m.body FROM events e JOIN migrations m ON m.id = e.migration_id
                WHERE e.n > ?1 ORDER BY e.n LIMIT ?2";
            let mut query = transaction.prepare_cached(query)?;
            let rows = query.query_map([seen, EVENTS], |r| Ok((read_event(r)?, r.get::<_, String>(5)?)))?;
            for row in rows {
                let (EventRow { number, at, event }, body) = row?;
                let migration: Migration = serde_json::from_str(&body).map_err(|e| unreadable(&e))?;
                if let Some(message) = message(&migration, at, &event) {
                    put(&transaction, channels, &message, now)?;
                }
                last = number;
            }
        }
        if last != seen {
            transaction.execute("UPDATE announced SET n = ?1 WHERE what = 'events'", [last])?;
        }
        Ok(transaction.commit()?)
    }

    /// What is due, the oldest first.
    pub fn outbox(&self, now: Timestamp, most: usize) -> Result<Vec<Waiting>, ServerError> {
        let connection = self.lock();
        let query = "SELECT n, channel, body, attempts, since FROM outbox WHERE next_at <= ?1 ORDER BY n LIMIT ?2";
        let mut query = connection.prepare_cached(query)?;
        let rows = query.query_map(params![now.0, most as i64], |r| {
            let since = Timestamp(r.get(4)?);
            Ok(Waiting { n: r.get(0)?, channel: r.get(1)?, body: r.get(2)?, attempts: r.get(3)?, since })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// It was taken, or given up.
    pub fn outbox_done(&self, n: i64) -> Result<(), ServerError> {
        self.lock().execute("DELETE FROM outbox WHERE n = ?1", [n])?;
        Ok(())
    }

    /// It is tried again at `at`.
    pub fn outbox_later(&self, n: i64, at: Timestamp) -> Result<(), ServerError> {
        let update = "UPDATE outbox SET attempts = attempts + 1, next_at = ?2 WHERE n = ?1";
        self.lock().execute(update, params![n, at.0])?;
        Ok(())
    }
}
