//! The counters while a migration runs, what it waits for, and their way out to whoever watches.

use crate::{EngineReport, metrics::Metrics};
use limosa_model::{Failure, PhaseKind, Progress, cutover::Rehearsal, progress::Waiting, report::Record};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Something fails for so long before it is worth telling: longer than an election.
const WORTH_TELLING: Duration = Duration::from_secs(5);

/// What can fail on its own while the rest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The source's change stream into the spool.
    Reader,
    /// Everything that writes to the destination.
    Applier,
}

/// Shared by all parts of one migration.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    state: Arc<Mutex<State>>,
    reports: watch::Sender<EngineReport>,
    pub metrics: Metrics,
}

#[derive(Debug)]
struct State {
    report: EngineReport,
    /// Since when each part fails, and how.
    failing: [Option<(Instant, Failure)>; 2],
}

impl Tracker {
    pub fn new(reports: watch::Sender<EngineReport>, metrics: Metrics) -> Self {
        let report = EngineReport::begin();
        let tracker = Self { state: Arc::new(Mutex::new(State { report, failing: [None, None] })), reports, metrics };
        tracker.publish();
        tracker
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes counters; they are published with the next [`Self::publish`].
    pub fn count(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state().report.progress);
    }

    /// Enters a phase and tells at once.
    pub fn enter(&self, phase: PhaseKind, failure: Option<Failure>) {
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

    pub fn phase(&self) -> PhaseKind {
        self.state().report.phase
    }

    /// Notes that a part fails; returns for how long it has done nothing else.
    pub fn fails(&self, part: Part, failure: &Failure) -> Duration {
        let mut state = self.state();
        let since = state.failing[part as usize].as_ref().map_or_else(Instant::now, |(since, _)| *since);
        state.failing[part as usize] = Some((since, failure.clone()));
        if part == Part::Applier && since.elapsed() >= WORTH_TELLING && state.report.phase == PhaseKind::Synced {
            // Nothing tells how far behind it is by now.
            state.report.phase = PhaseKind::CatchingUp;
        }
        since.elapsed()
    }

    /// Notes that a part does its work.
    pub fn works(&self, part: Part) {
        self.state().failing[part as usize] = None;
    }

    pub fn publish(&self) {
        let report = {
            let mut state = self.state();
            let lasting = state.failing.iter().flatten().find(|(since, _)| since.elapsed() >= WORTH_TELLING);
            state.report.progress.waiting =
                lasting.map(|(_, failure)| Waiting { code: failure.code, message: failure.message.clone() });
            state.report.clone()
        };
        self.metrics.follow(&report.progress);
        self.reports.send_replace(report);
    }
}
