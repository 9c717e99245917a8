//! The counters while a migration runs, and their way out to whoever watches.

use crate::EngineReport;
use limosa_model::{Failure, PhaseKind, Progress};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Shared by all parts of one migration.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    state: Arc<Mutex<EngineReport>>,
    reports: watch::Sender<EngineReport>,
}

impl Tracker {
    pub fn new(reports: watch::Sender<EngineReport>) -> Self {
        let begin = EngineReport { phase: PhaseKind::Preparing, progress: Progress::default(), failure: None };
        let tracker = Self { state: Arc::new(Mutex::new(begin)), reports };
        tracker.publish();
        tracker
    }

    /// Changes counters; they are published with the next [`Self::publish`].
    pub fn count(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).progress);
    }

    /// Enters a phase and tells at once.
    pub fn enter(&self, phase: PhaseKind, failure: Option<Failure>) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.phase = phase;
            state.failure = failure;
        }
        self.publish();
    }

    pub fn phase(&self) -> PhaseKind {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).phase
    }

    pub fn publish(&self) {
        let report = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.reports.send_replace(report);
    }
}
