//! How fast the engine may go: within what it was told, and the slower the more the clusters suffer. One handle is
//! shared by the engine and the program that embeds it; what is set takes effect at once, for batches that wait too.

use crate::tuning::ReadFrom;
use limosa_model::Limits;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The longest rest after a batch, whatever it took: progress must be seen.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// With the greatest strain, a rest is this many times as long as the batch before it.
const GREATEST_STRAIN: u32 = 16;

/// How a cluster is read where the load on it counts: from which member, and how fast. By default from the primary, and
/// as fast as it goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    pub from: ReadFrom,
    pub throttle: Arc<Throttle>,
}

/// The handle.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    limits: watch::Sender<Limits>,
    read: RateLimiter,
    write: RateLimiter,
    strain: AtomicU32,
}

/// What a load level means for the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LoadProfile {
    /// Workers, as a share of those configured: numerator and denominator.
    workers: (usize, usize),
    /// `insert`s under way for each worker.
    in_flight: usize,
    /// Rest after each batch, as a multiple of what it took.
    rest: u32,
}

impl LoadProfile {
    fn of(limits: &Limits) -> Self {
        let (workers, in_flight, rest) = match u8::from(limits.load_level) {
            1 => ((0, 1), 1, 1),
            2 => ((1, 2), 1, 0),
            4 => ((3, 2), 2, 0),
            5 => ((2, 1), 2, 0),
            _ => ((1, 1), 2, 0),
        };
        Self { workers, in_flight, rest }
    }

    fn workers(self, configured: usize) -> usize {
        (configured * self.workers.0).div_ceil(self.workers.1).max(1)
    }
}

impl Throttle {
    /// Other limits from now on.
    pub fn set(&self, limits: Limits) {
        self.limits.send_if_modified(|held| {
            let differs = *held != limits;
            if differs {
                tracing::info!(%limits, "limits");
                *held = limits;
                self.read.set(limits.max_source_read_mbps);
                self.write.set(limits.max_destination_write_mbps);
            }
            differs
        });
    }

    fn effort(&self) -> LoadProfile {
        LoadProfile::of(&self.limits.borrow())
    }

    /// How many copy workers there may ever be, where `configured` are the normal number.
    pub fn most_workers(configured: usize) -> usize {
        configured * 2
    }

    /// Waits until copy worker number `worker` is to work, where `configured` are the normal number.
    pub async fn wait_until_enabled(&self, worker: usize, configured: usize) {
        let admits = |limits: &Limits| worker < LoadProfile::of(limits).workers(configured);
        let _ = self.limits.subscribe().wait_for(admits).await;
    }

    /// `insert`s that one copy worker may have under way.
    pub fn in_flight(&self) -> usize {
        if self.strain.load(Ordering::Relaxed) > 0 { 1 } else { self.effort().in_flight }
    }

    /// Waits until the source may be read again; `bytes` were just read.
    pub async fn charge_read(&self, bytes: usize) {
        self.pay(&self.read, bytes).await;
    }

    /// Waits until the destination may be written to again; `bytes` were just written.
    pub async fn charge_write(&self, bytes: usize) {
        self.pay(&self.write, bytes).await;
    }

    /// Notes that so much of the source was read; the next read waits for it in [`Self::may_read`].
    pub fn note_read(&self, bytes: usize) {
        self.read.account().take(bytes, Instant::now());
    }

    /// Waits until the source may be read again.
    pub async fn may_read(&self) {
        self.wear_off(&self.read).await;
    }

    async fn pay(&self, pace: &RateLimiter, bytes: usize) {
        pace.account().take(bytes, Instant::now());
        self.wear_off(pace).await;
    }

    async fn wear_off(&self, pace: &RateLimiter) {
        let mut limits = self.limits.subscribe();
        loop {
            let wait = pace.account().accrue(Instant::now());
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = limits.changed() => {}
            }
        }
    }

    /// Rests after a batch of the copy that took `took`.
    pub async fn rest(&self, took: Duration) {
        let times = self.effort().rest.max(self.strain.load(Ordering::Relaxed));
        if times > 0 {
            tokio::time::sleep((took * times).min(LONGEST_REST)).await;
        }
    }

    /// A cluster suffers, or no longer does: rests double, or halve.
    pub fn report_overload(&self, report_overload: bool) {
        let now = self.strain.load(Ordering::Relaxed);
        let next = if report_overload { (now * 2).clamp(1, GREATEST_STRAIN) } else { now / 2 };
        self.strain.store(next, Ordering::Relaxed);
    }

    /// Whether it goes slower for a cluster's sake.
    pub fn is_overloaded(&self) -> bool {
        self.strain.load(Ordering::Relaxed) > 0
    }
}

/// A rate that is paid for afterwards: what was taken becomes debt, and nobody takes more before it is worn off.
#[derive(Debug)]
struct RateLimiter(Mutex<TokenBucket>);

#[derive(Debug)]
struct TokenBucket {
    bytes_per_second: Option<f64>,
    debt: f64,
    at: Instant,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self(Mutex::new(TokenBucket { bytes_per_second: None, debt: 0.0, at: Instant::now() }))
    }
}

impl RateLimiter {
    fn account(&self) -> MutexGuard<'_, TokenBucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mbps: Option<u32>) {
        let mut account = self.account();
        account.accrue(Instant::now());
        account.bytes_per_second = mbps.map(|mbps| f64::from(mbps) * 125_000.0);
    }
}

impl TokenBucket {
    fn take(&mut self, bytes: usize, now: Instant) {
        self.accrue(now);
        if self.bytes_per_second.is_some() {
            self.debt += bytes as f64;
        }
    }

    /// How long until nothing is owed, if the rate stays.
    fn accrue(&mut self, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second else {
            (self.debt, self.at) = (0.0, now);
            return Duration::ZERO;
        };
        self.debt = (self.debt - rate * now.duration_since(self.at).as_secs_f64()).max(0.0);
        self.at = now;
        Duration::from_secs_f64(self.debt / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_worn_off_at_the_rate() {
        let start = Instant::now();
        let mut account = TokenBucket { bytes_per_second: Some(1e6), debt: 0.0, at: start };
        account.take(3_000_000, start);
        assert_eq!(account.accrue(start), Duration::from_secs(3));
        assert_eq!(account.accrue(start + Duration::from_secs(2)), Duration::from_secs(1));
        assert_eq!(account.accrue(start + Duration::from_secs(9)), Duration::ZERO);
        // Time in which nothing was taken isn't saved up.
        account.take(1_000_000, start + Duration::from_secs(60));
        assert_eq!(account.accrue(start + Duration::from_secs(60)), Duration::from_secs(1));
        account.bytes_per_second = None;
        assert_eq!(account.accrue(start + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn higher_levels_go_harder() {
        let at = |level: u8| {
            let level = level.try_into().expect("a level");
            LoadProfile::of(&Limits { load_level: level, ..Limits::default() })
        };
        let workers: Vec<usize> = (1..=5).map(|level| at(level).workers(4)).collect();
        assert_eq!(workers, [1, 2, 4, 6, 8]);
        assert!(at(5).workers(4) <= Throttle::most_workers(4));
        assert_eq!((at(1).rest, at(3).rest), (1, 0));
    }

    #[test]
    fn strain_doubles_and_wears_off() {
        let throttle = Throttle::default();
        (0..9).for_each(|_| throttle.report_overload(true));
        assert_eq!(throttle.strain.load(Ordering::Relaxed), GREATEST_STRAIN);
        (0..4).for_each(|_| throttle.report_overload(false));
        assert!(throttle.is_overloaded());
        throttle.report_overload(false);
        assert!(!throttle.is_overloaded());
    }
}
