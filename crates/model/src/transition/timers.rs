//! What happens because time passed: the end of the time to cut over, its warnings, and a host that is silent.

use super::{Change, Request};
use crate::{ErrorCode, Phase, Timestamp, history::HistoryEvent, progress::Waiting, transition::IllegalTransition};

/// A host is silent for so long that an operator should know: another one would have taken its migration over by now.
pub const SILENCE_TOLD_SECONDS: i64 = 30;

/// Seconds before the end of the time to cut over at which the user is warned, the last first.
pub(super) const CUTOVER_WARNINGS: [i64; 2] = [3600, CUTOVER_WARNED_SECONDS];

/// As long as more than this is left of it, a tick changes nothing.
pub const CUTOVER_WARNED_SECONDS: i64 = 86_400;

impl Change<'_> {
    pub(super) fn tick(&mut self) {
        match self.cutover_ends() {
            Some(at) if at <= self.now => {
                self.next.phase = Phase::Expired;
                self.next.lease = None;
            }
            ends => {
                if let Some(at) = ends {
                    self.warn_of_end(at);
                }
                self.note_silence();
            }
        }
    }

    pub(super) fn extend(&mut self, seconds: i64) -> Result<(), IllegalTransition> {
        let Some(at) = self.cutover_ends() else { return self.not_now(Request::Extend) };
        let at = at.plus_seconds(seconds);
        (self.next.carried.cutover_by, self.next.carried.cutover_warned) = (Some(at), None);
        match &mut self.next.phase {
            Phase::Synced { expires_at } => *expires_at = at,
            Phase::Paused { expires_at, .. } => *expires_at = Some(at),
            _ => {}
        }
        Ok(())
    }

    /// When the time to cut over ends, where that clock runs: from the first time that it was synced to the cutover.
    fn cutover_ends(&self) -> Option<Timestamp> {
        match self.before.phase {
            Phase::Synced { expires_at } => Some(expires_at),
            Phase::Paused { expires_at, .. } => expires_at,
            Phase::Scheduled | Phase::Preparing | Phase::Copying | Phase::BuildingIndexes | Phase::CatchingUp => {
                self.before.carried.cutover_by
            }
            Phase::CuttingOver
            | Phase::Finalizing
            | Phase::Complete
            | Phase::Failed { .. }
            | Phase::Expired
            | Phase::Cancelled { .. } => None,
        }
    }

    fn warn_of_end(&mut self, ends_at: Timestamp) {
        let left = ends_at.seconds_since(self.now);
        let due = CUTOVER_WARNINGS.into_iter().find(|w| left <= *w);
        let warned = self.next.carried.cutover_warned;
        if let Some(due) = due.filter(|due| warned.is_none_or(|warned| *due < warned)) {
            self.next.carried.cutover_warned = Some(due);
            self.record(HistoryEvent::CutoverDeadlineNear { hours: due / 3600, ends_at });
        }
    }

    /// Records once that a host is silent; its next report ends it.
    fn note_silence(&mut self) {
        let silent = self.next.silent_seconds(self.now).filter(|seconds| *seconds >= SILENCE_TOLD_SECONDS);
        let Some(seconds) = silent else { return };
        if self.next.progress.waiting.as_ref().is_some_and(|waiting| waiting.code == ErrorCode::HostSilent) {
            return;
        }
        let before = self.next.progress.clone();
        self.next.progress.waiting = Some(Waiting { code: ErrorCode::HostSilent, message: self.next.silence(seconds) });
        self.note_waiting(&before);
    }
}
