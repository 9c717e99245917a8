//! The counters while a migration runs, what it waits for, whether it may count as ready, and their way out to those who
//! watch.

use crate::{
    EngineReport,
    component::{Component, PARTS},
    lag::{Lag, WORTH_TELLING},
    metrics::Metrics,
    missing_indexes::Missing,
    pace::Pace,
};
use bson::Timestamp;
use limosa_model::{Failure, Identities, PhaseKind, Progress, cutover::Rehearsal, progress::Waiting, report::Record};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// With more lag than this nothing is ready for a cutover any more. More than what it takes to become so, so that a
/// hiccup doesn't end it.
const MOST_LAG_SECONDS: i64 = 10;

/// How long a cutover that was ordered waits for readiness that was just lost.
const ORDER_WAITS: Duration = Duration::from_secs(5);

/// Shared by all parts of one migration.
#[derive(Clone, Debug)]
pub(crate) struct ProgressTracker {
    state: Arc<Mutex<State>>,
    reports: watch::Sender<EngineReport>,
    pub metrics: Metrics,
    /// Indexes that the destination lacks.
    pub missing: Missing,
}

#[derive(Debug)]
struct State {
    report: EngineReport,
    /// Since when each part fails, and how.
    failing: [Option<(Instant, Failure)>; PARTS],
    lag: Lag,
    pace: Pace,
    /// A cutover was refused; it isn't tried again until the order has been withdrawn once.
    refused: bool,
    /// Since when a cutover is ordered that can't begin.
    ordered: Option<Instant>,
    /// Something was waited out for the whole patience.
    gave_up: bool,
}

impl ProgressTracker {
    pub fn new(reports: watch::Sender<EngineReport>, metrics: Metrics) -> Self {
        let state = State {
            report: EngineReport::begin(),
            failing: [const { None }; PARTS],
            lag: Lag::default(),
            pace: Pace::default(),
            refused: false,
            ordered: None,
            gave_up: false,
        };
        let tracker = Self { state: Arc::new(Mutex::new(state)), reports, metrics, missing: Missing::default() };
        tracker.publish();
        tracker
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes counters; they are published with the next [`Self::publish`].
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state().report.progress);
    }

    /// Enters a phase and tells at once.
    pub fn enter_phase(&self, phase: PhaseKind, failure: Option<Failure>) {
        {
            let mut state = self.state();
            state.report.phase = phase;
            state.report.failure = failure;
        }
        self.publish();
    }

    /// Tells a rehearsal's result at once.
    pub fn rehearsed(&self, rehearsal: Rehearsal) {
        self.state().report.rehearsal = Some(rehearsal);
        self.publish();
    }

    /// Keeps what the report is made of for the end.
    pub fn record(&self, record: Record) {
        self.state().report.record = Some(Box::new(record));
    }

    /// What was kept with [`Self::record`].
    pub fn recorded(&self) -> Option<Record> {
        self.state().report.record.as_deref().cloned()
    }

    /// Tells between which clusters it goes.
    pub fn identify(&self, identities: Identities) {
        self.state().report.identities = Some(identities);
    }

    pub fn phase(&self) -> PhaseKind {
        self.state().report.phase
    }

    /// Notes that a part fails; returns for how long it has done nothing else.
    pub fn record_failure(&self, part: Component, failure: &Failure) -> Duration {
        self.record_failure_since(part, Instant::now(), failure)
    }

    /// The same of what began earlier.
    pub fn record_failure_since(&self, part: Component, since: Instant, failure: &Failure) -> Duration {
        let mut state = self.state();
        let since = state.failing[part as usize].as_ref().map_or(since, |(known, _)| *known.min(&since));
        state.failing[part as usize] = Some((since, failure.clone()));
        state.judge(Instant::now());
        since.elapsed()
    }

    /// Notes that a part does its work.
    pub fn clear_failure(&self, part: Component) {
        self.state().failing[part as usize] = None;
    }

    /// What was waited out for the whole patience isn't waited out again by the next component that meets it.
    pub fn give_up(&self) {
        self.state().gave_up = true;
    }

    pub fn has_given_up(&self) -> bool {
        self.state().gave_up
    }

    /// What an earlier attempt measured counts no more.
    pub fn measure_again(&self) {
        let mut state = self.state();
        (state.lag, state.pace) = (Lag::default(), Pace::default());
    }

    /// Asks or changes what is known of the lag.
    pub fn with_lag<T>(&self, look: impl FnOnce(&mut Lag, Instant) -> T) -> T {
        look(&mut self.state().lag, Instant::now())
    }

    /// Seconds for which there has been a write of the source that isn't applied; `None` if nobody knows.
    pub fn lag(&self) -> Option<i64> {
        self.state().lag.seconds(Instant::now())
    }

    /// Everything of the source up to `time` is applied.
    pub fn applied_to(&self, time: Timestamp) {
        self.with_lag(|lag, now| lag.is_applied(time, now));
        self.metrics.applied_to(time);
    }

    /// So many events were read from the source.
    pub fn read(&self, events: u64) {
        self.state().pace.read(events);
    }

    /// Looks at how fast the destination follows; everything up to `read` was read from the source.
    pub fn take_pace(&self, read: Option<Timestamp>) {
        let now = Instant::now();
        let mut state = self.state();
        let (lag, applied) = (state.lag.seconds(now), state.report.progress.events_applied);
        let rates = state.pace.sample(now, applied, lag);
        let progress = &mut state.report.progress;
        (progress.source_events_per_second, progress.applied_events_per_second) = rates.unzip();
        let follows = matches!(state.report.phase, PhaseKind::CatchingUp | PhaseKind::Synced);
        let stands = state.lag.stands(read, now);
        let too_slow = if follows { state.pace.too_slow(now, lag, stands) } else { None };
        state.failing[Component::Pace as usize] = too_slow;
    }

    /// Whether no part of it has failed for longer than a hiccup.
    pub fn is_well(&self) -> bool {
        self.state().lasting(Instant::now()).is_none()
    }

    /// Refuses a cutover that is ordered and can't begin, since what was ready isn't any more. It would begin by itself,
    /// hours later, when nobody keeps the application's writers stopped any more.
    pub fn hear_cutover(&self, ordered: bool) {
        let now = Instant::now();
        {
            let mut state = self.state();
            if !ordered || state.refused || state.report.phase != PhaseKind::CatchingUp {
                state.ordered = None;
                return;
            }
            if now.saturating_duration_since(*state.ordered.get_or_insert(now)) < ORDER_WAITS {
                return;
            }
            let lag = state.lag.seconds(now);
            let reason = state.lasting(now).map_or_else(|| not_ready(lag), |(_, failure)| failure.clone());
            state.refused = true;
            state.report.failure = Some(reason);
        }
        self.publish();
    }

    /// Notes that a cutover was refused.
    pub fn refuse_cutover(&self) {
        self.state().refused = true;
    }

    /// Whether the cutover that is ordered was refused already.
    pub fn has_refused(&self) -> bool {
        self.state().refused
    }

    /// The order was withdrawn: the next one counts again.
    pub fn forget_refusal(&self) {
        {
            let mut state = self.state();
            state.refused = false;
            state.report.failure = None;
        }
        self.publish();
    }

    /// It is ready for the cutover. The reason of a refused one stays until whoever ordered it knows.
    pub fn is_ready(&self) {
        {
            let mut state = self.state();
            state.report.phase = PhaseKind::Synced;
            if !state.refused {
                state.report.failure = None;
            }
        }
        self.publish();
    }

    pub fn publish(&self) {
        let report = {
            let mut state = self.state();
            state.judge(Instant::now());
            state.report.clone()
        };
        self.metrics.follow(&report.progress);
        self.reports.send_replace(report);
    }
}

fn not_ready(lag: Option<i64>) -> Failure {
    let lag = lag.map_or_else(|| "is not known".to_owned(), |lag| format!("is {lag} s"));
    Failure::new(
        limosa_model::ErrorCode::NotReady,
        format!("the destination doesn't follow the source closely any more: the lag {lag}"),
    )
}

impl State {
    /// What has failed for longer than a hiccup.
    fn lasting(&self, now: Instant) -> Option<&(Instant, Failure)> {
        let is_lasting = |(since, _): &&(Instant, Failure)| now.saturating_duration_since(*since) >= WORTH_TELLING;
        let lasting = self.failing.iter().flatten().filter(is_lasting);
        // A full spool comes of something else that fails. But nothing is read from the source then, whose oplog rolls on.
        lasting.min_by_key(|(_, failure)| failure.code != limosa_model::ErrorCode::SpoolFull)
    }

    /// What is true at this moment, by the newest of each measurement.
    fn judge(&mut self, now: Instant) {
        let lag = self.lag.seconds(now);
        let waiting =
            self.lasting(now).map(|(_, failure)| Waiting { code: failure.code, message: failure.message.clone() });
        let is_behind = lag.is_none_or(|lag| lag > MOST_LAG_SECONDS);
        if self.report.phase == PhaseKind::Synced && (waiting.is_some() || is_behind) {
            self.report.phase = PhaseKind::CatchingUp;
        }
        self.report.progress.lag_seconds = lag;
        self.report.progress.waiting = waiting;
    }
}
