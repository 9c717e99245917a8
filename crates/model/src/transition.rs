//! Decides what a migration becomes when something happens. Pure: the store writes the result and the entries of its
//! history in one compare-and-swap.

mod report;
mod timers;

pub use timers::{CUTOVER_WARNED_SECONDS, SILENCE_TOLD_SECONDS};

use crate::{
    AgentId, Epoch, Failure, Identities, Limits, Migration, Phase, PhaseKind, Progress, Timestamp,
    cutover::{CutoverOptions, Rehearsal, RehearsalState},
    history::HistoryEvent,
    state::{Heard, Lease},
};
use std::fmt;

/// How long a synced migration waits for its cutover, unless configured otherwise.
pub const CUTOVER_WINDOW_SECONDS: i64 = 120 * 3600;

/// Something that happened to a migration.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An agent asks for it.
    Claim {
        /// The agent.
        agent: AgentId,
        /// The lease that it would get, in seconds.
        lease_seconds: i64,
    },
    /// The agent reports where it is. Renews the lease.
    Report(Report),
    /// The user chooses how to cut over.
    ChooseCutover(CutoverOptions),
    /// The user asks what a cutover would do.
    Rehearse,
    /// The agent that holds the migration went through a rehearsal.
    Rehearsed {
        /// The agent that reports.
        agent: AgentId,
        /// Its epoch.
        epoch: Epoch,
        /// What it found.
        rehearsal: Rehearsal,
    },
    /// The agent that holds the migration has found out between which clusters it goes.
    Identified {
        /// The agent that reports.
        agent: AgentId,
        /// Its epoch.
        epoch: Epoch,
        /// What both clusters are.
        identities: Box<Identities>,
    },
    /// The user asks for the cutover.
    CutOver,
    /// The user wants the cutover under way to end: back to ready.
    AbortCutover,
    /// The user pauses.
    Pause,
    /// The user continues, also after a failure.
    Resume {
        /// Copy again: what the destination has is compared and only what differs is written.
        recopy: bool,
    },
    /// The user gives up.
    Cancel {
        /// Whether what was copied is removed.
        drop_copied: bool,
    },
    /// The user wants more time for the cutover.
    Extend {
        /// How much more.
        seconds: i64,
    },
    /// The user changes how much it may take.
    Limit(Limits),
    /// Time went by.
    Tick,
}

/// What an agent reports of its migration.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The agent that reports.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The engine's phase.
    pub phase: PhaseKind,
    /// The engine's counters.
    pub progress: Box<Progress>,
    /// Why it stopped, with `PhaseKind::Failed`; why it went back to `Synced`, after a cutover that failed.
    pub failure: Option<Failure>,
    /// The renewed lease, in seconds.
    pub lease_seconds: i64,
    /// How long it waits for its cutover once synced, in seconds.
    pub window_seconds: i64,
}

/// A user's request, or an agent's, that a phase may not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`Event::Claim`].
    Claim,
    /// [`Event::ChooseCutover`].
    ChooseCutover,
    /// [`Event::Rehearse`].
    Rehearse,
    /// [`Event::CutOver`].
    CutOver,
    /// [`Event::AbortCutover`].
    AbortCutover,
    /// [`Event::Pause`].
    Pause,
    /// [`Event::Resume`].
    Resume,
    /// [`Event::Resume`] with `recopy`, of a reverse migration.
    RecopyReverse,
    /// [`Event::Cancel`].
    Cancel,
    /// [`Event::Extend`].
    Extend,
    /// [`Event::Limit`].
    Limit,
}

impl fmt::Display for Request {
    /// What follows "it can't".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "be claimed",
            Self::ChooseCutover => "have its cutover options changed",
            Self::Rehearse => "be rehearsed",
            Self::CutOver => "be cut over",
            Self::AbortCutover => "end a cutover, since none is under way",
            Self::Pause => "be paused",
            Self::Resume => "be resumed",
            Self::RecopyReverse => "have its copy made again: a reverse migration copies nothing",
            Self::Cancel => "be cancelled",
            Self::Extend => "be extended",
            Self::Limit => "have its limits changed",
        })
    }
}

/// The event doesn't fit the phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// A user's request that the phase doesn't allow.
    #[error("a migration in phase {phase:?} can't {request}{}", instead(*phase))]
    NotNow {
        /// The phase that it is in.
        phase: PhaseKind,
        /// The request.
        request: Request,
    },
    /// A user's request that no agent is known to receive.
    #[error("it can't {request}: its migration host {host} has reported nothing for {seconds} s")]
    HostSilent {
        /// The migration host.
        host: String,
        /// How long ago it reported last, in seconds.
        seconds: i64,
        /// The request.
        request: Request,
    },
    /// A user's request that depends on what the current run hasn't said yet.
    #[error("it can't {request}: its migration host {host} has taken it on and not reported yet how far it is")]
    Unknown {
        /// The migration host.
        host: String,
        /// The request.
        request: Request,
    },
    /// The reporter doesn't hold the lease, or another does.
    #[error("the lease is held by another agent or a later epoch")]
    Fenced,
}

/// What someone can do where no request helps.
fn instead(phase: PhaseKind) -> &'static str {
    if phase != PhaseKind::Finalizing {
        return "";
    }
    ": the destination's indexes are being changed, and it ends as complete or rolled back; to have it ready again \
     at once, end the cutover ('limosa migrations abort-cutover'); what holds it up, if anything does, is in its progress \
     as 'waiting'"
}

/// What `migration` becomes when `event` happens at `now`, and what its history gets.
pub fn apply_event(
    migration: &Migration,
    event: Event,
    now: Timestamp,
) -> Result<(Migration, Vec<HistoryEvent>), IllegalTransition> {
    let mut change = Change { before: migration, next: migration.clone(), now, history: Vec::new() };
    match event {
        Event::Claim { agent, lease_seconds } => change.claim(agent, lease_seconds)?,
        Event::Report(report) => change.report(report)?,
        Event::Rehearsed { agent, epoch, rehearsal } => change.rehearsed(agent, epoch, rehearsal),
        Event::Identified { agent, epoch, identities } => change.identified(agent, epoch, identities)?,
        Event::ChooseCutover(options) => change.choose_cutover(options)?,
        Event::Rehearse => change.rehearse()?,
        Event::CutOver => change.cut_over()?,
        Event::AbortCutover => change.abort_cutover()?,
        Event::Pause => change.pause()?,
        Event::Resume { recopy } => change.resume(recopy)?,
        Event::Cancel { drop_copied } => change.cancel(drop_copied)?,
        Event::Extend { seconds } => change.extend(seconds)?,
        Event::Limit(limits) => change.limit(limits)?,
        Event::Tick => change.tick(),
    }
    Ok(change.end())
}

/// A migration that is about to become another.
struct Change<'a> {
    before: &'a Migration,
    next: Migration,
    now: Timestamp,
    history: Vec<HistoryEvent>,
}

impl Change<'_> {
    fn kind(&self) -> PhaseKind {
        self.before.phase.kind()
    }

    fn not_now(&self, request: Request) -> Result<(), IllegalTransition> {
        Err(IllegalTransition::NotNow { phase: self.kind(), request })
    }

    fn record(&mut self, event: HistoryEvent) {
        self.history.push(event);
    }

    /// What holds whatever happened.
    fn end(mut self) -> (Migration, Vec<HistoryEvent>) {
        if !matches!(self.next.phase, Phase::CuttingOver | Phase::Finalizing) {
            self.next.carried.abort_cutover = false;
        }
        let (from, to) = (self.kind(), self.next.phase.kind());
        if from != to {
            self.next.phase_since = self.now;
            self.record(HistoryEvent::PhaseChanged { from, to });
        }
        (self.next, self.history)
    }

    /// Whether this agent, with this epoch, holds the lease.
    fn is_held_by(&self, agent: AgentId, epoch: Epoch) -> bool {
        self.before.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch)
    }

    fn claim(&mut self, agent: AgentId, lease_seconds: i64) -> Result<(), IllegalTransition> {
        let (kind, before) = (self.kind(), self.before);
        if (kind.is_final() && !before.carried.to_remove) || kind == PhaseKind::Paused {
            return self.not_now(Request::Claim);
        }
        if before.lease.as_ref().is_some_and(|lease| lease.agent != agent && lease.until > self.now) {
            return Err(IllegalTransition::Fenced);
        }
        let epoch = before.epoch.next();
        self.next.epoch = epoch;
        self.next.lease = Some(Lease { agent, epoch, until: self.now.plus_seconds(lease_seconds) });
        self.next.heard = Some(Heard { at: self.now, epoch: None });
        if !before.carried.to_remove {
            self.record(HistoryEvent::Claimed { agent, epoch });
        }
        Ok(())
    }

    fn identified(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        identities: Box<Identities>,
    ) -> Result<(), IllegalTransition> {
        if !self.is_held_by(agent, epoch) {
            return Err(IllegalTransition::Fenced);
        }
        // They are never replaced: a later agent is held to them.
        if self.next.carried.identities.is_none() {
            self.next.carried.identities = Some((*identities).clone());
            self.record(HistoryEvent::Identified { identities });
        }
        Ok(())
    }

    fn choose_cutover(&mut self, options: CutoverOptions) -> Result<(), IllegalTransition> {
        match self.kind() {
            PhaseKind::CuttingOver | PhaseKind::Finalizing => return self.not_now(Request::ChooseCutover),
            kind if kind.is_final() && kind != PhaseKind::Failed => return self.not_now(Request::ChooseCutover),
            _ => self.next.cutover = options,
        }
        Ok(())
    }

    fn rehearse(&mut self) -> Result<(), IllegalTransition> {
        match (&self.before.phase, &self.before.rehearsal) {
            // The one that is under way answers this request too.
            (Phase::Synced { .. }, Some(known)) if known.state == RehearsalState::Pending => Ok(()),
            (Phase::Synced { .. }, known) => {
                self.is_received(Request::Rehearse)?;
                let number = known.as_ref().map_or(0, |known| known.number) + 1;
                let requested_at = self.now.rfc3339();
                self.next.rehearsal = Some(Rehearsal { number, requested_at, ..Rehearsal::default() });
                self.record(HistoryEvent::RehearsalRequested { number });
                Ok(())
            }
            _ => self.not_now(Request::Rehearse),
        }
    }

    fn rehearsed(&mut self, agent: AgentId, epoch: Epoch, rehearsal: Rehearsal) {
        let wanted = self.before.rehearsal.as_ref().filter(|known| known.state == RehearsalState::Pending);
        let Some(wanted) = wanted.filter(|wanted| wanted.number == rehearsal.number) else { return };
        if !self.is_held_by(agent, epoch) {
            return;
        }
        let requested_at = wanted.requested_at.clone();
        self.record(HistoryEvent::RehearsalDone {
            would_complete: rehearsal.would_complete,
            predicted_pause_millis: rehearsal.predicted_pause_millis.unwrap_or(0),
        });
        let ended_at = Some(self.now.rfc3339());
        self.next.rehearsal = Some(Rehearsal { requested_at, ended_at, state: RehearsalState::Done, ..rehearsal });
    }

    fn cut_over(&mut self) -> Result<(), IllegalTransition> {
        match self.before.phase {
            Phase::Synced { .. } => {
                self.is_received(Request::CutOver)?;
                self.next.phase = Phase::CuttingOver;
                Ok(())
            }
            Phase::CuttingOver | Phase::Finalizing => Ok(()),
            _ => self.not_now(Request::CutOver),
        }
    }

    fn abort_cutover(&mut self) -> Result<(), IllegalTransition> {
        match self.before.phase {
            Phase::CuttingOver | Phase::Finalizing if self.before.carried.abort_cutover => Ok(()),
            Phase::CuttingOver | Phase::Finalizing => {
                self.next.carried.abort_cutover = true;
                self.record(HistoryEvent::CutoverAbortRequested);
                Ok(())
            }
            _ => self.not_now(Request::AbortCutover),
        }
    }

    fn pause(&mut self) -> Result<(), IllegalTransition> {
        let from = self.kind();
        let expires_at = match self.before.phase {
            Phase::Paused { .. } => return Ok(()),
            Phase::Synced { expires_at } => Some(expires_at),
            Phase::Scheduled | Phase::Preparing | Phase::Copying | Phase::BuildingIndexes | Phase::CatchingUp => {
                self.before.carried.cutover_by
            }
            _ => return self.not_now(Request::Pause),
        };
        self.next.phase = Phase::Paused { from, expires_at };
        Ok(())
    }

    fn resume(&mut self, recopy: bool) -> Result<(), IllegalTransition> {
        if !self.kind().may_resume() {
            return self.not_now(Request::Resume);
        }
        if recopy && self.before.reversal.is_some() {
            return self.not_now(Request::RecopyReverse);
        }
        if self.kind() == PhaseKind::Failed || recopy {
            // It will be synced again, and has its whole time from then.
            (self.next.carried.cutover_by, self.next.carried.cutover_warned) = (None, None);
        }
        if recopy {
            self.next.carried.recopies += 1;
            self.record(HistoryEvent::RecopyRequested);
        }
        self.next.phase = Phase::Scheduled;
        self.next.lease = None;
        self.next.progress.waiting = None;
        Ok(())
    }

    fn cancel(&mut self, drop_copied: bool) -> Result<(), IllegalTransition> {
        match self.kind() {
            // What no agent could remove yet may stay after all.
            PhaseKind::Cancelled => self.next.carried.to_remove &= drop_copied,
            PhaseKind::Finalizing | PhaseKind::Complete => return self.not_now(Request::Cancel),
            _ => {
                self.next.phase = Phase::Cancelled { drop_copied };
                // Without an agent that ever had it there is nothing; a reverse migration copied nothing.
                let copied = self.before.epoch.0 > 0 && self.before.reversal.is_none();
                self.next.carried.to_remove = drop_copied && copied;
            }
        }
        Ok(())
    }

    fn limit(&mut self, limits: Limits) -> Result<(), IllegalTransition> {
        if self.kind().is_final() {
            return self.not_now(Request::Limit);
        }
        self.next.limits = limits;
        if limits != self.before.limits {
            self.record(HistoryEvent::LimitsChanged { limits });
        }
        Ok(())
    }

    /// A user's order is for an agent that is there and has reported that it can carry it out.
    fn is_received(&self, request: Request) -> Result<(), IllegalTransition> {
        let host = || self.before.migration_host.clone();
        match self.before.silent_seconds(self.now) {
            Some(seconds) => Err(IllegalTransition::HostSilent { host: host(), seconds, request }),
            None if self.before.is_known(self.now) => Ok(()),
            None => Err(IllegalTransition::Unknown { host: host(), request }),
        }
    }
}

#[cfg(test)]
mod tests;
