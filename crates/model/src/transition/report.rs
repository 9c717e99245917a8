//! What an agent's report makes of a migration, and what its history gets because of it.

use super::{Change, Report, timers::CUTOVER_WARNINGS};
use crate::{
    Failure, Phase, PhaseKind, Progress,
    history::HistoryEvent,
    progress::MissingIndex,
    state::{Heard, Lease},
    transition::IllegalTransition,
};

/// Seconds left of the source's oplog at which the user is warned, the last first.
const OPLOG_WARNINGS: [i64; 3] = [600, 3600, 6 * 3600];

impl Change<'_> {
    pub(super) fn report(&mut self, report: Report) -> Result<(), IllegalTransition> {
        let Report { agent, epoch, phase, progress, failure, lease_seconds, window_seconds } = report;
        if !self.is_held_by(agent, epoch) {
            return Err(IllegalTransition::Fenced);
        }
        self.next.lease = Some(Lease { agent, epoch, until: self.now.plus_seconds(lease_seconds) });
        self.next.heard = Some(Heard { at: self.now, epoch: Some(epoch) });
        self.next.progress = *progress;
        let before = &self.before.progress;
        self.note_waiting(before);
        self.note_repairs(before);
        self.note_indexes(before);
        self.warn_of_oplog();
        self.start_cutover_window(phase, window_seconds);
        if counts(&self.before.phase, phase, failure.is_some()) {
            self.enter(phase, failure, window_seconds);
        }
        if phase == PhaseKind::Cancelled && self.next.carried.to_remove {
            self.next.carried.to_remove = false;
            self.record(HistoryEvent::CopiedDataRemoved);
        }
        if self.next.phase.kind().is_final() && !self.next.carried.to_remove {
            self.next.lease = None;
        }
        Ok(())
    }

    /// The time to cut over runs from the first time that it is synced.
    fn start_cutover_window(&mut self, phase: PhaseKind, window_seconds: i64) {
        if phase == PhaseKind::Synced && self.next.carried.cutover_by.is_none() {
            self.next.carried.cutover_by = Some(self.now.plus_seconds(window_seconds));
            // A window that is no longer than a warning's is not warned of at its beginning.
            self.next.carried.cutover_warned = CUTOVER_WARNINGS.into_iter().rev().find(|w| window_seconds <= *w);
        }
    }

    /// Takes over the phase that a report names.
    fn enter(&mut self, phase: PhaseKind, failure: Option<Failure>, window_seconds: i64) {
        if let Some(Failure { code, message, .. }) = &failure {
            self.record(HistoryEvent::Failed { code: *code, message: message.clone() });
        }
        self.next.phase = match phase {
            PhaseKind::Scheduled | PhaseKind::Paused | PhaseKind::Cancelled | PhaseKind::Expired => return,
            PhaseKind::Preparing => Phase::Preparing,
            PhaseKind::Copying => Phase::Copying,
            PhaseKind::BuildingIndexes => Phase::BuildingIndexes,
            PhaseKind::CatchingUp => Phase::CatchingUp,
            PhaseKind::Synced => Phase::Synced {
                expires_at: match (&self.before.phase, self.next.carried.cutover_by) {
                    (Phase::Synced { expires_at }, _) => *expires_at,
                    (_, Some(cutover_by)) => cutover_by,
                    (_, None) => self.now.plus_seconds(window_seconds),
                },
            },
            PhaseKind::CuttingOver => Phase::CuttingOver,
            PhaseKind::Finalizing => Phase::Finalizing,
            PhaseKind::Complete => Phase::Complete,
            PhaseKind::Failed => Phase::Failed { failure: failure.unwrap_or_else(Failure::unknown) },
        };
    }

    /// What has to be fixed, when that begins, changes or ends.
    pub(super) fn note_waiting(&mut self, before: &Progress) {
        let event = match (&before.waiting, &self.next.progress.waiting) {
            (Some(a), Some(b)) if a.code == b.code => return,
            (_, Some(waiting)) => HistoryEvent::WaitingBegan { code: waiting.code, message: waiting.message.clone() },
            (Some(waiting), None) => HistoryEvent::WaitingEnded { code: waiting.code },
            (None, None) => return,
        };
        self.record(event);
    }

    /// Documents that the verifier found different: the first one, and then whenever there are ten times as many.
    fn note_repairs(&mut self, before: &Progress) {
        let count = self.next.progress.documents_repaired;
        if count.checked_ilog10() > before.documents_repaired.checked_ilog10() {
            self.record(HistoryEvent::DocumentsRepaired { count });
        }
    }

    /// Indexes that came to be missing on the destination, and that none is missing any more.
    fn note_indexes(&mut self, before: &Progress) {
        let known = |one: &&MissingIndex| {
            before.missing_indexes.iter().any(|b| (&b.namespace, &b.name) == (&one.namespace, &one.name))
        };
        let now = self.next.progress.missing_indexes.clone();
        for MissingIndex { namespace, name, reason } in now.iter().filter(|one| !known(one)).cloned() {
            self.record(HistoryEvent::IndexMissing { namespace, name, reason });
        }
        if now.is_empty() && !before.missing_indexes.is_empty() {
            self.record(HistoryEvent::IndexesComplete);
        }
    }

    fn warn_of_oplog(&mut self) {
        let Some(left) = self.next.progress.oplog_window_seconds else { return };
        let warned = self.next.carried.oplog_warned;
        match OPLOG_WARNINGS.into_iter().find(|w| left <= *w) {
            Some(due) if warned.is_none_or(|warned| due < warned) => {
                self.next.carried.oplog_warned = Some(due);
                self.record(HistoryEvent::OplogShort { seconds_left: left });
            }
            // Twice as much, so that a window that goes up and down is warned of once.
            None if left > 2 * OPLOG_WARNINGS[OPLOG_WARNINGS.len() - 1] => self.next.carried.oplog_warned = None,
            _ => {}
        }
    }
}

/// Whether the phase of an agent's report counts: a user's order stands above what the agent, which may not know of it
/// yet, reports.
fn counts(current: &Phase, reported: PhaseKind, has_failure: bool) -> bool {
    match current {
        Phase::Paused { .. } | Phase::Cancelled { .. } | Phase::Expired | Phase::Complete | Phase::Failed { .. } => {
            false
        }
        Phase::CuttingOver | Phase::Finalizing => {
            let back = has_failure && matches!(reported, PhaseKind::Synced | PhaseKind::CatchingUp);
            let forth = [PhaseKind::CuttingOver, PhaseKind::Finalizing, PhaseKind::Complete, PhaseKind::Failed];
            back || forth.contains(&reported)
        }
        Phase::Scheduled
        | Phase::Preparing
        | Phase::Copying
        | Phase::BuildingIndexes
        | Phase::CatchingUp
        | Phase::Synced { .. } => true,
    }
}
