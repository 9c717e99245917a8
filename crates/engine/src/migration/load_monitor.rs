//! Watches whether the clusters bear the load, and slows the copy and the verifier down while they don't.
//!
//! What is looked at must not be raised by the engine's own work as such: on the source, which it only reads, how long
//! the application's writes take; on both, whether secondaries lag behind and whether flow control holds writes back;
//! on the destination, where all writes are its own, only times that no healthy server shows.

use crate::{
    mongo::{cluster::Cluster, side::Side},
    progress::ProgressTracker,
    throttle::Throttle,
};
use bson::{Document, Timestamp, doc};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Secondaries this far behind have lost the pace.
const LAG_SECONDS: u32 = 10;

/// The application's writes suffer when they take this many times as long as usual,
const TIMES_AS_LONG: f64 = 5.0;

/// and this long at the least.
const NOTICEABLE_MICROS: f64 = 20_000.0;

/// A write of the engine's own that takes this long, on average, means that the destination is choking.
const CHOKING_MICROS: f64 = 5_000_000.0;

/// Fewer writes than this in a second say nothing about what is usual.
const FEW_WRITES: i64 = 10;

/// What a cluster says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LoadSample {
    flow_control_holds: bool,
    majority_lag_seconds: u32,
    writes: i64,
    write_micros: i64,
}

/// One cluster over time.
struct WatchedCluster {
    cluster: Cluster,
    before: Option<LoadSample>,
    unmet: Unmet,
    /// Microseconds that a write usually takes.
    usual: Option<f64>,
}

/// Looks at both until dropped.
pub(crate) async fn watch(
    source: Cluster,
    destination: Cluster,
    throttle: Arc<Throttle>,
    tracker: ProgressTracker,
) -> Infallible {
    let mut both = [source, destination].map(|cluster| WatchedCluster {
        cluster,
        before: None,
        unmet: Unmet::default(),
        usual: None,
    });
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tick.tick().await;
        let mut reason = None;
        for watched in &mut both {
            reason = watched.look().await.or(reason);
        }
        throttle.report_overload(reason.is_some());
        let reason = reason.filter(|_| throttle.is_overloaded());
        if reason != told {
            match &reason {
                Some(reason) => tracing::warn!(%reason, "reading and copying more slowly"),
                None => tracing::info!("the clusters bear the load again"),
            }
            tracker.update(|p| p.slowed_because.clone_from(&reason));
            told = reason;
        }
    }
}

impl WatchedCluster {
    /// Why it should go slower, if it should. A cluster that doesn't answer, or doesn't let this user ask, is no
    /// reason: whatever is wrong shows elsewhere.
    async fn look(&mut self) -> Option<String> {
        let admin = self.cluster.db("admin");
        let only = doc! {
            "serverStatus": 1, "opLatencies": {"histograms": false}, "metrics": 0, "locks": 0, "wiredTiger": 0,
            "tcmalloc": 0, "transactions": 0, "network": 0, "connections": 0, "asserts": 0, "electionMetrics": 0,
        };
        let status = admin.run_command(only).await.ok()?;
        let (newest, majority) = self.cluster.optimes().await.ok()?;
        let majority_lag_seconds = self.unmet.lag_seconds(Instant::now(), newest, majority);
        let now = LoadSample { majority_lag_seconds, ..read(&status) };
        let before = self.before.replace(now)?;
        let (average, usual) = averages(&before, &now, self.usual);
        let reason = judge(self.cluster.side, &now, average, usual);
        if reason.is_none() {
            self.usual = usual;
        }
        reason
    }
}

/// Writes that the primary had, of which the majority wasn't known to have them, with the time of the first look at each.
///
/// The distance between the times of both writes is no measure: the first write after a quiet time is far from the one
/// before it, and the majority has it in a moment.
#[derive(Default)]
struct Unmet(VecDeque<(Instant, Timestamp)>);

impl Unmet {
    /// For how long the majority has lacked a write by now, in seconds.
    fn lag_seconds(&mut self, now: Instant, newest: Timestamp, majority: Timestamp) -> u32 {
        self.0.retain(|(_, write)| *write > majority);
        if newest > majority && self.0.back().is_none_or(|(_, last)| newest > *last) {
            self.0.push_back((now, newest));
        }
        let since = self.0.front().map_or(now, |(since, _)| *since);
        u32::try_from(now.duration_since(since).as_secs()).unwrap_or(u32::MAX)
    }
}

fn read(status: &Document) -> LoadSample {
    let part = |document: &Document, name: &str| document.get_document(name).cloned().unwrap_or_default();
    let writes = part(&part(status, "opLatencies"), "writes");
    let number = |name| crate::mongo::raw_bson::as_i64(writes.get(name)).unwrap_or(0);
    LoadSample {
        flow_control_holds: part(status, "flowControl").get_bool("isLagged").unwrap_or(false),
        majority_lag_seconds: 0,
        writes: number("ops"),
        write_micros: number("latency"),
    }
}

/// Microseconds a write took between two readings, if there were enough, and what is usual after that: the least seen,
/// drifting upwards slowly, so that a quiet minute doesn't set the measure for a day.
fn averages(before: &LoadSample, now: &LoadSample, usual: Option<f64>) -> (Option<f64>, Option<f64>) {
    let writes = now.writes - before.writes;
    if writes < FEW_WRITES {
        return (None, usual);
    }
    let average = (now.write_micros - before.write_micros) as f64 / writes as f64;
    (Some(average), Some(usual.map_or(average, |usual| (usual * 1.01).min(average))))
}

fn judge(side: Side, now: &LoadSample, average: Option<f64>, usual: Option<f64>) -> Option<String> {
    if now.flow_control_holds {
        return Some(format!("flow control holds writes back on the {side}"));
    }
    if now.majority_lag_seconds >= LAG_SECONDS {
        return Some(format!("secondaries of the {side} are {} s behind", now.majority_lag_seconds));
    }
    let (average, usual) = (average?, usual?);
    let millis = average / 1000.0;
    match side {
        Side::Source if average > NOTICEABLE_MICROS && average > usual * TIMES_AS_LONG => {
            Some(format!("writes on the source take {millis:.0} ms, usually {:.0} ms", usual / 1000.0))
        }
        Side::Destination if average > CHOKING_MICROS => Some(format!("writes on the destination take {millis:.0} ms")),
        Side::Source | Side::Destination => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let status = doc! {
            "flowControl": {"isLagged": true}, "opLatencies": {"writes": {"latency": 5_000_i64, "ops": 10_i64}},
        };
        let reading = LoadSample { flow_control_holds: true, majority_lag_seconds: 0, writes: 10, write_micros: 5_000 };
        assert_eq!(read(&status), reading);
        assert_eq!(read(&doc! {}), LoadSample::default());
    }

    #[test]
    fn the_application_sets_the_measure_on_the_source() {
        let mut usual = None;
        let mut before = LoadSample::default();
        let mut second = |micros: i64| {
            let now =
                LoadSample { writes: before.writes + 100, write_micros: before.write_micros + 100 * micros, ..before };
            let (average, after) = averages(&before, &now, usual);
            let reason = judge(Side::Source, &now, average, after);
            (before, usual) = (now, if reason.is_none() { after } else { usual });
            reason.is_some()
        };
        assert!(!second(1_000));
        assert!(!second(4_000), "slower, and not enough to notice");
        assert!(!second(19_000));
        assert!(second(60_000));
        assert!(second(60_000), "what makes it suffer does not become usual");
        assert!(!second(1_100));
    }

    #[test]
    fn a_write_after_a_quiet_time_is_no_lag_and_one_that_the_majority_lacks_is() {
        let (mut unmet, began) = (Unmet::default(), Instant::now());
        let mut at = |second: u64, newest: u32, majority: u32| {
            let time = |time| Timestamp { time, increment: 0 };
            unmet.lag_seconds(began + Duration::from_secs(second), time(newest), time(majority))
        };
        assert_eq!(at(0, 100, 100), 0);
        assert_eq!(at(11, 111, 100), 0, "nothing was written for 11 s");
        assert_eq!(at(12, 112, 111), 0);
        let behind: Vec<u32> = (13..24).map(|second| at(second, 100 + second as u32, 111)).collect();
        assert_eq!(behind[10], 11, "{behind:?}");
        assert_eq!(at(24, 124, 120), 3);
        assert_eq!(at(25, 125, 125), 0);
    }

    #[test]
    fn lag_and_flow_control_count_on_both_sides() {
        for side in [Side::Source, Side::Destination] {
            let lagging = LoadSample { majority_lag_seconds: LAG_SECONDS, ..LoadSample::default() };
            assert!(judge(side, &lagging, None, None).is_some());
            let held = LoadSample { flow_control_holds: true, ..LoadSample::default() };
            assert!(judge(side, &held, None, None).is_some());
            assert_eq!(judge(side, &LoadSample::default(), None, None), None);
        }
        let slow = Some(1_000_000.0);
        assert_eq!(judge(Side::Destination, &LoadSample::default(), slow, Some(10.0)), None);
    }
}
