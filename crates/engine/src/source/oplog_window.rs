//! Watches how far the source's oplog still reaches back behind the place where it is read. What falls out of it before
//! it is read is lost, and the copy would have to be made again.
//!
//! And whether it is still the oplog that was read: a cluster whose files were put back to an earlier state has another
//! history from there on. Its newest write is soon later than all that was read, so that times alone don't show it; but
//! a write that a majority had is in the oplog for good, until it falls out at its beginning.

use crate::{
    mongo::{cluster::Cluster, codes, error, raw_bson::as_i64},
    progress::ProgressTracker,
    source::spool::Spool,
};
use bson::{Bson, Document, Timestamp, doc};
use limosa_model::{ErrorCode, Failure};
use std::{convert::Infallible, time::Duration};

/// How long a look into the oplog may take on the server.
const LOOK_MILLIS: i32 = 5_000;

/// What the source says of its oplog.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Oplog {
    oldest: u32,
    newest: u32,
    bytes: i64,
    most_bytes: i64,
}

/// Looks every now and then, for ever. A source whose user may not look at the oplog leaves the window unknown.
pub(crate) async fn watch(source: &Cluster, spool: &Spool, tracker: &ProgressTracker, every: Duration) -> Infallible {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        match look(source).await {
            Ok(oplog) => {
                let left = window(oplog, spool.read_until());
                tracker.update(|p| p.oplog_window_seconds = left);
            }
            Err(error) => tracing::debug!(%error, "the source's oplog can't be read"),
        }
    }
}

/// Whether the oplog is still the one in which the write of that time was seen, known to the majority. `None` if that
/// can't be told any more: the oplog begins later, or this user may not read it.
pub(crate) async fn still_has(source: &Cluster, seen: Timestamp) -> Result<Option<bool>, Failure> {
    let find = |filter: Document, sort: Document| async move {
        let command = doc! {
            "find": "oplog.rs", "filter": filter, "sort": sort, "projection": {"ts": 1}, "limit": 1, "singleBatch": true,
            "maxTimeMS": LOOK_MILLIS,
        };
        let found = source.db("local").run_cursor_command(command).await?.try_next().await?;
        Ok::<_, mongodb::error::Error>(found.and_then(|entry| entry.get_timestamp("ts").ok()))
    };
    // By its time an entry is found at once, without a sort.
    let found = match find(doc! {"ts": {"$gte": seen, "$lte": seen}}, doc! {}).await {
        Ok(found) => found,
        Err(error) if error::code(&error) == Some(codes::UNAUTHORIZED) => {
            tracing::debug!(%error, "the source's oplog can't be read");
            return Ok(None);
        }
        Err(error) => return Err(source.failure(&error)),
    };
    if found.is_some() {
        return Ok(Some(true));
    }
    let oldest = find(doc! {}, doc! {"$natural": 1}).await.map_err(|error| source.failure(&error))?;
    Ok(if oldest.is_some_and(|oldest| oldest <= seen) { Some(false) } else { None })
}

/// What is told of a source that has another history than the one that was read.
pub(crate) fn rewound(seen: Timestamp, newest: Timestamp) -> Failure {
    let time = |at: Timestamp| limosa_model::Timestamp(i64::from(at.time) * 1000).rfc3339();
    let message = format!(
        "the source no longer has the write of {} ({}, {}) that this migration saw there; its newest is of {}: it was put \
         back to an earlier state",
        time(seen),
        seen.time,
        seen.increment,
        time(newest)
    );
    Failure::new(ErrorCode::SourceRewound, message)
}

/// Seconds until what comes after `read_until` is overwritten, if the source continues being written to as it was. An
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
    let time = |name: &str| match status.get_document("oplog").ok()?.get(name)? {
        Bson::Timestamp(time) => Some(time.time),
        Bson::Document(optime) => optime.get_timestamp("ts").ok().map(|time| time.time),
        _ => None,
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

    #[tokio::test(flavor = "multi_thread")]
    async fn every_version_tells_a_user_with_the_documented_roles_how_far_its_oplog_reaches() {
        for version in limosa_testkit::mongod::VERSIONS {
            let set = limosa_testkit::ReplicaSet::builder().version(version).auth(true).start().await.expect("starts");
            let roles = ["readAnyDatabase", "clusterMonitor"];
            let create = doc! {"createUser": "mover", "pwd": "pw", "roles": &roles[..]};
            set.client().await.database("admin").run_command(create).await.expect("creates");
            let uri = limosa_model::Secret::new(set.uri_with(Some(("mover", "pw"))));
            let cluster = Cluster::connect(crate::mongo::side::Side::Source, &uri).await.expect("connects");
            let told = look(&cluster).await.unwrap_or_else(|e| panic!("{version}: {e}"));
            let (newest, _) = cluster.optimes().await.expect("answers");
            assert!(0 < told.oldest && told.oldest <= told.newest && told.newest <= newest.time, "{version}: {told:?}");
            assert!(0 < told.bytes && told.bytes < told.most_bytes, "{version}: {told:?}");
        }
    }
}
