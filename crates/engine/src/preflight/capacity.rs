//! Whether there is room and time enough: the destination's disk, the source's oplog, and clocks.

use crate::mongo::{catalog::Entry, cluster::Cluster, raw_bson::as_i64};
use bson::{Document, Timestamp, doc};
use limosa_model::{ErrorCode, Failure, Finding};

/// An oplog that covers less than this can be lost in a restart of the migration host that takes a while.
const SHORT_OPLOG_SECONDS: i64 = 3600;

/// Leases and timers bear this much.
const SKEW_SECONDS: i64 = 10;

/// The destination's disk holds what the source's does.
pub(super) async fn space(
    source: &Cluster,
    destination: &Cluster,
    entries: &[Entry],
) -> Result<Option<Finding>, Failure> {
    let mut databases: Vec<&str> = entries.iter().map(|e| e.ns.db.as_str()).collect();
    databases.dedup();
    let mut needed = 0;
    for db in databases {
        let stats = source.db(db).run_command(doc! {"dbStats": 1}).await.map_err(|e| source.failure(&e))?;
        needed += ["storageSize", "indexSize"].iter().filter_map(|name| as_i64(stats.get(*name))).sum::<i64>();
    }
    let stats = destination.db("admin").run_command(doc! {"dbStats": 1}).await;
    let Ok(stats) = stats else { return Ok(None) }; // may not be seen
    let (total, used) = (as_i64(stats.get("fsTotalSize")), as_i64(stats.get("fsUsedSize")));
    Ok(total.zip(used).and_then(|(total, used)| too_small(needed, total - used)))
}

fn too_small(needed: i64, free: i64) -> Option<Finding> {
    let megabytes = |bytes: i64| bytes / 1_048_576;
    (needed > free).then(|| {
        let evidence = format!(
            "the source takes {} MiB with its indexes, the destination's disk has {} MiB free",
            megabytes(needed),
            megabytes(free)
        );
        Finding::error(ErrorCode::InsufficientDiskSpace, "destination", evidence)
    })
}

/// How far back the oplog goes, or will once it is full.
pub(super) async fn oplog(source: &Cluster) -> Result<Option<Finding>, Failure> {
    let ends = async |direction: i32| {
        let command = doc! {"find": "oplog.rs", "sort": {"$natural": direction}, "limit": 1, "projection": {"ts": 1}};
        source.db("local").run_cursor_command(command).await?.try_collect::<Vec<Document>>().await
    };
    let stats = source.db("local").run_command(doc! {"collStats": "oplog.rs"}).await;
    let (Ok(first), Ok(last), Ok(stats)) = (ends(1).await, ends(-1).await, stats) else {
        return Ok(None); // may not be seen; the stream's own error tells when it is lost
    };
    let time = |found: &[Document]| found.first().and_then(|d| d.get_timestamp("ts").ok());
    let (Some(first), Some(last)) = (time(&first), time(&last)) else { return Ok(None) };
    let (size, most) = (as_i64(stats.get("size")).unwrap_or(0), as_i64(stats.get("maxSize")).unwrap_or(0));
    Ok(short_oplog(first, last, size, most))
}

fn short_oplog(first: Timestamp, last: Timestamp, size: i64, most: i64) -> Option<Finding> {
    let seconds = i64::from(last.time.saturating_sub(first.time)).max(1);
    // Until it is full it goes back to its beginning; what matters is what it will hold at this rate.
    let window = (seconds as f64 * (most.max(1) as f64 / size.max(1) as f64).max(1.0)) as i64;
    (window < SHORT_OPLOG_SECONDS).then(|| {
        let evidence = format!(
            "the source's oplog of {} MiB covers about {window} seconds at the rate of its last writes: a longer interruption of \
             the migration host loses the place in it",
            most / 1_048_576
        );
        Finding::warning(ErrorCode::ShortOplog, "source", evidence)
    })
}

/// Leases count on clocks that go alike.
pub(super) async fn clock(cluster: &Cluster, now: limosa_model::Timestamp) -> Result<Option<Finding>, Failure> {
    let hello = cluster.db("admin").run_command(doc! {"hello": 1}).await.map_err(|e| cluster.failure(&e))?;
    let Ok(theirs) = hello.get_datetime("localTime") else { return Ok(None) };
    let skew = (theirs.timestamp_millis() - now.0) / 1000;
    Ok((skew.abs() > SKEW_SECONDS).then(|| {
        let word = if skew > 0 { "ahead of" } else { "behind" };
        let evidence = format!("the clock of the {} is {} seconds {word} this host's", cluster.side, skew.abs());
        Finding::warning(ErrorCode::ClockSkew, cluster.side.to_string(), evidence)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mongo::side::Side;
    use limosa_model::Secret;

    #[test]
    fn a_disk_that_is_too_small_is_told() {
        assert_eq!(too_small(100, 100), None);
        let told = too_small(300 << 20, 200 << 20).expect("too small");
        assert!(told.is_error() && told.evidence.contains("300 MiB") && told.evidence.contains("200 MiB"), "{told:?}");
    }

    #[test]
    fn an_oplog_is_judged_by_what_it_will_hold() {
        let at = |time| Timestamp { time, increment: 1 };
        // A tenth of it holds ten minutes: it will hold a hundred.
        assert_eq!(short_oplog(at(0), at(600), 10, 100), None);
        assert!(short_oplog(at(0), at(600), 100, 100).is_some());
        assert_eq!(short_oplog(at(0), at(7200), 100, 100), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clocks_that_go_apart_are_told() {
        let set = limosa_testkit::ReplicaSet::start().await.expect("starts");
        let cluster = Cluster::connect(Side::Source, &Secret::new(set.uri())).await.expect("connects");
        let now = limosa_model::Timestamp::now();
        assert_eq!(clock(&cluster, now).await, Ok(None));
        let told = clock(&cluster, now.plus_seconds(-60)).await.expect("answers").expect("apart");
        assert!(told.code == ErrorCode::ClockSkew && told.evidence.contains("ahead of"), "{told:?}");
    }
}
