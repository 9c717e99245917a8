//! Watches how far the source's oplog still reaches back behind the place where it is read. What falls out of it before
//! it is read is lost, and the copy would have to be made again.

use crate::{cluster::Cluster, progress::Tracker, raw::as_i64, stream::spool::Spool};
use bson::{Document, Timestamp, doc};
use std::{convert::Infallible, time::Duration};

/// What the source says of its oplog.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Oplog {
    oldest: u32,
    newest: u32,
    bytes: i64,
    most_bytes: i64,
}

/// Looks every now and then, for ever. A source whose user may not look at the oplog leaves the window unknown.
pub(crate) async fn watch(source: &Cluster, spool: &Spool, tracker: &Tracker, every: Duration) -> Infallible {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        match look(source).await {
            Ok(oplog) => {
                let left = window(oplog, spool.read_until());
                tracker.count(|p| p.oplog_window_seconds = left);
            }
            Err(error) => tracing::debug!(%error, "the source's oplog can't be looked at"),
        }
    }
}

/// Seconds until what comes after `read_until` is overwritten, if the source goes on being written to as it was. An
/// oplog that isn't full loses nothing yet: what it will reach back to when full is told from how fast it grew.
fn window(oplog: Oplog, read_until: Option<Timestamp>) -> Option<i64> {
    let span = i64::from(oplog.newest.saturating_sub(oplog.oldest));
    let full = match oplog.bytes {
        bytes if bytes <= 0 || bytes >= oplog.most_bytes => span,
        bytes => (i128::from(span.max(1)) * i128::from(oplog.most_bytes) / i128::from(bytes)) as i64,
    };
    let behind = i64::from(oplog.newest.saturating_sub(read_until?.time));
    Some((full - behind).max(0))
}

async fn look(source: &Cluster) -> Result<Oplog, mongodb::error::Error> {
    let command =
        doc! {"serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0, "wiredTiger": 0, "tcmalloc": 0, "oplog": 1};
    let status = source.db("admin").run_command(command).await?;
    let stats = source.db("local").run_command(doc! {"collStats": "oplog.rs"}).await?;
    let time = |name: &str| -> Option<u32> {
        // A timestamp, or one with its term beside it: releases differ.
        let oplog: &Document = status.get_document("oplog").ok()?;
        let optime = oplog.get_document(name).and_then(|optime| optime.get_timestamp("ts"));
        Some(optime.or_else(|_| oplog.get_timestamp(name)).ok()?.time)
    };
    match (time("earliestOptime"), time("latestOptime")) {
        (Some(oldest), Some(newest)) => Ok(Oplog {
            oldest,
            newest,
            bytes: as_i64(stats.get("size")).unwrap_or(0),
            most_bytes: as_i64(stats.get("maxSize")).unwrap_or(0),
        }),
        _ => Err(mongodb::error::Error::custom("serverStatus tells nothing of the oplog".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_what_the_oplog_reaches_back_behind_the_reader() {
        let at = |time| Some(Timestamp { time, increment: 0 });
        let full = Oplog { oldest: 1000, newest: 5000, bytes: 100, most_bytes: 100 };
        assert_eq!(window(full, at(5000)), Some(4000));
        assert_eq!(window(full, at(1500)), Some(500));
        assert_eq!(window(full, at(900)), Some(0));
        assert_eq!(window(full, None), None);
        let young = Oplog { bytes: 10, ..full };
        assert_eq!(window(young, at(5000)), Some(40_000));
        let idle = Oplog { oldest: 5, newest: 5, bytes: 0, most_bytes: 100 };
        assert_eq!(window(idle, at(5)), Some(0));
    }
}
