//! How old what isn't applied is, by the newest write of the source's primary: a write counts from when it is
//! acknowledged, whether a majority of the source knows it or not, since a cutover would lose it.
//!
//! Two clocks would have to agree for the age of a write by its own time. So it is told from what was seen here: when
//! everything was applied last, and when anything was applied last. Cluster times only bound it where nothing was seen
//! yet, as at the start with a backlog.

use bson::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// What the source said is worth nothing any more after this time.
const STALE: Duration = Duration::from_secs(5);

/// For how long something has to last before it is told: longer than an election.
pub(crate) const WORTH_TELLING: Duration = Duration::from_secs(5);

/// What is known of both ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    /// The source's newest write, and when it said so.
    newest: Option<(Timestamp, Instant)>,
    /// The newest write that its majority has, and since when it stands there behind the newest.
    majority: Option<(Timestamp, Instant)>,
    /// Up to where everything is applied, and since when.
    applied: Option<(Timestamp, Instant)>,
    /// When nothing was left to apply last.
    caught_up: Option<Instant>,
}

impl Lag {
    /// The source's primary answered.
    pub fn source_has(&mut self, newest: Timestamp, majority: Timestamp, now: Instant) {
        let stands = self.majority.filter(|(before, _)| *before == majority && majority < newest);
        self.majority = Some(stands.unwrap_or((majority, now)));
        self.newest = Some((newest, now));
        self.note_caught_up(now);
    }

    /// Everything up to `time` is applied.
    pub fn is_applied(&mut self, time: Timestamp, now: Instant) {
        if self.applied.is_none_or(|(before, _)| before < time) {
            self.applied = Some((time, now));
        }
        self.note_caught_up(now);
    }

    fn note_caught_up(&mut self, now: Instant) {
        if let (Some((newest, _)), Some((applied, _))) = (self.newest, self.applied)
            && applied >= newest
        {
            self.caught_up = Some(now);
        }
    }

    /// Seconds for which there has been a write that isn't applied; `None` if nobody knows.
    pub fn seconds(&self, now: Instant) -> Option<i64> {
        let (newest, _) = self.newest.filter(|(_, seen)| now.saturating_duration_since(*seen) < STALE)?;
        let (applied, moved) = self.applied?;
        if applied >= newest {
            return Some(0);
        }
        let whole = |since: Instant| now.saturating_duration_since(since).as_secs() as i64;
        let behind = i64::from(newest.time.saturating_sub(applied.time)).max(whole(moved));
        Some(self.caught_up.map_or(behind, |at| behind.min(whole(at))))
    }

    /// The newest write that the source's majority had.
    pub fn majority(&self) -> Option<Timestamp> {
        self.majority.map(|(time, _)| time)
    }

    /// Since when nothing was applied, if that has lasted and something that was read up to `read` waits for it.
    pub fn stands(&self, read: Option<Timestamp>, now: Instant) -> Option<Instant> {
        let (applied, moved) = self.applied?;
        let lasts = read? > applied && now.saturating_duration_since(moved) >= WORTH_TELLING;
        lasts.then_some(moved)
    }

    /// Since when the source's majority has stood still behind its newest write, if that has lasted.
    pub fn majority_stands(&self, now: Instant) -> Option<Instant> {
        let ((majority, since), (newest, _)) = (self.majority?, self.newest?);
        let lasts = majority < newest && now.saturating_duration_since(since) >= WORTH_TELLING;
        lasts.then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    /// The lag after each second of `seconds`, in which the source says what `newest` makes of it.
    fn watch(lag: &mut Lag, begin: Instant, seconds: std::ops::Range<u64>, newest: impl Fn(u64) -> u32) -> Vec<i64> {
        let each = seconds.map(|second| {
            let now = begin + Duration::from_secs(second);
            lag.source_has(at(newest(second)), at(newest(second)), now);
            lag.seconds(now).expect("is known")
        });
        each.collect()
    }

    #[test]
    fn nothing_is_known_before_both_ends_have_said_something_nor_long_after() {
        let (mut lag, now) = (Lag::default(), Instant::now());
        assert_eq!(lag.seconds(now), None);
        lag.source_has(at(100), at(100), now);
        assert_eq!(lag.seconds(now), None);
        lag.is_applied(at(100), now);
        assert_eq!(lag.seconds(now), Some(0));
        assert_eq!(lag.seconds(now + STALE), None);
    }

    #[test]
    fn a_single_write_that_is_not_applied_gets_older_though_nothing_follows_it() {
        let (mut lag, begin) = (Lag::default(), Instant::now());
        lag.is_applied(at(100), begin);
        assert_eq!(watch(&mut lag, begin, 0..6, |second| if second < 2 { 100 } else { 102 }), [0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_quiet_source_whose_oplog_moves_every_ten_seconds_makes_no_lag() {
        let (mut lag, begin) = (Lag::default(), Instant::now());
        lag.is_applied(at(100), begin);
        for second in 0..60 {
            let newest = 100 + second / 10 * 10;
            let seen = watch(&mut lag, begin, second..second + 1, |_| newest as u32);
            assert!(seen[0] <= 1, "{seen:?} at {second}");
            lag.is_applied(at(newest as u32), begin + Duration::from_secs(second));
        }
    }

    #[test]
    fn a_backlog_counts_by_cluster_time() {
        let (mut lag, begin) = (Lag::default(), Instant::now());
        lag.is_applied(at(100), begin);
        lag.source_has(at(3700), at(3700), begin);
        assert_eq!(lag.seconds(begin), Some(3600));
    }

    #[test]
    fn a_majority_that_stands_behind_the_newest_write_is_seen() {
        let (mut lag, begin) = (Lag::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..60 {
            lag.source_has(at(100), at(100), after(second));
        }
        lag.source_has(at(101), at(100), after(60));
        assert_eq!(lag.majority_stands(after(61)), None, "it only just fell behind");
        lag.source_has(at(102), at(100), after(66));
        assert_eq!(lag.majority_stands(after(66)), Some(after(59)));
        lag.source_has(at(102), at(101), after(67));
        assert_eq!(lag.majority_stands(after(67)), None);
    }
}
