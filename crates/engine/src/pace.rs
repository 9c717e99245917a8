//! How fast changes are read from the source and applied to the destination, and whether the one can follow the other.

use limosa_model::{ErrorCode, Failure};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// What is told as a rate is the average of this time: shorter than anybody's patience, longer than a burst.
const WINDOW: Duration = Duration::from_secs(15);

/// Rates over less than this say nothing.
const SHORTEST: Duration = Duration::from_secs(2);

/// Less lag than this is no trouble, however it grows.
const NOTICEABLE_LAG_SECONDS: i64 = 10;

/// By so much at least the lag has grown within the window when it is said to grow.
const GROWTH_SECONDS: i64 = 3;

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    read: u64,
    applied: u64,
    lag: Option<i64>,
}

/// Changes a second: read from the source, applied to the destination.
pub(crate) type Rates = (u64, u64);

/// The last seconds of one migration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    read: u64,
    samples: VecDeque<Sample>,
}

impl Pace {
    /// So many events came from the source.
    pub fn read(&mut self, events: u64) {
        self.read += events;
    }

    /// Takes note of how far it is; the rates since the window's beginning, once there is something to tell.
    pub fn sample(&mut self, at: Instant, applied: u64, lag: Option<i64>) -> Option<Rates> {
        self.samples.push_back(Sample { at, read: self.read, applied, lag });
        while self.samples.get(1).is_some_and(|second| at.saturating_duration_since(second.at) >= WINDOW) {
            self.samples.pop_front();
        }
        self.rates()
    }

    fn rates(&self) -> Option<Rates> {
        let (first, last) = self.ends()?;
        let took = last.at.saturating_duration_since(first.at);
        let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / took.as_secs_f64()).round() as u64;
        (took >= SHORTEST).then(|| (rate(first.read, last.read), rate(first.applied, last.applied)))
    }

    fn ends(&self) -> Option<(Sample, Sample)> {
        Some((*self.samples.front()?, *self.samples.back()?))
    }

    /// Why the destination doesn't follow, and since when: `stands` is since when nothing was applied though something
    /// waits for it.
    pub fn too_slow(&self, now: Instant, lag: Option<i64>, stands: Option<Instant>) -> Option<(Instant, Failure)> {
        let told = |since, message| Some((since, Failure::new(ErrorCode::DestinationTooSlow, message)));
        let rates = self.rates();
        if let Some(since) = stands {
            let seconds = now.saturating_duration_since(since).as_secs();
            let rates = rates.map(|(read, applied)| {
                format!("; {read} changes a second are read from the source, {applied} a second are applied")
            });
            let rates = rates.unwrap_or_default();
            let message =
                format!("nothing was applied to the destination for {seconds} s, and changes wait for it{rates}");
            return told(since, message);
        }
        let (first, last) = self.ends()?;
        let (lag, before, (read, applied)) = (lag?, first.lag?, rates?);
        let grows = lag >= NOTICEABLE_LAG_SECONDS && lag >= before + GROWTH_SECONDS && read > applied;
        if !grows || last.at.saturating_duration_since(first.at) < WINDOW {
            return None;
        }
        let message = format!(
            "{read} changes a second are read from the source, {applied} a second are applied to the destination, and the \
             lag of {lag} s grows"
        );
        told(first.at, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_is_not_followed_is_told_with_both_rates_and_a_burst_is_not() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut told = None;
        for second in 0..40 {
            let now = begin + Duration::from_secs(second);
            pace.read(500);
            let rates = pace.sample(now, second * 100, Some(second as i64 / 2));
            told = pace.too_slow(now, Some(second as i64 / 2), None);
            assert!(told.is_none() || second >= 20, "told after {second} s");
            assert!(rates.is_none_or(|rates| rates == (500, 100)), "{rates:?}");
        }
        let (_, failure) = told.expect("the lag grows");
        assert!(
            failure.message.starts_with("500 changes a second are read from the source, 100 a second"),
            "{failure}"
        );
        // A backlog that shrinks is on its way.
        let mut pace = Pace::default();
        for second in 0..40 {
            let now = begin + Duration::from_secs(second);
            pace.read(500);
            pace.sample(now, second * 5000, Some(3600 - second as i64 * 10));
            assert_eq!(pace.too_slow(now, Some(3600 - second as i64 * 10), None), None);
        }
    }

    #[test]
    fn a_destination_that_applies_nothing_is_told_whatever_the_rates() {
        let (pace, begin) = (Pace::default(), Instant::now());
        let (since, failure) = pace.too_slow(begin + Duration::from_secs(7), None, Some(begin)).expect("it stands");
        assert_eq!((since, failure.code), (begin, ErrorCode::DestinationTooSlow));
        assert!(failure.message.contains("for 7 s"), "{failure}");
    }
}
