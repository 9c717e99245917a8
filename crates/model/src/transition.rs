//! Decides what a migration becomes when something happens. Pure: the store writes the result in one compare-and-swap,
//! and only then are the actions carried out.

use crate::{
    AgentId, Epoch, ErrorCode, Failure, Identities, Limits, Migration, Phase, PhaseKind, Progress, Timestamp,
    cutover::{CutoverOptions, Rehearsal, RehearsalState},
    progress::{MissingIndex, Waiting},
    state::{Heard, Lease},
};

/// How long a synced migration waits for its cutover, unless configured otherwise.
pub const CUTOVER_WINDOW_SECONDS: i64 = 120 * 3600;

/// Something that happened to a migration.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An agent asks for it.
    Claim {
        /// Who.
        agent: AgentId,
        /// The lease it would get.
        lease_seconds: i64,
    },
    /// The agent tells where it is. Renews the lease.
    Report {
        /// Who.
        agent: AgentId,
        /// Its epoch.
        epoch: Epoch,
        /// Where the engine is.
        phase: PhaseKind,
        /// How far.
        progress: Box<Progress>,
        /// Why it stopped, with `PhaseKind::Failed`; why it went back to `Synced`, after a cutover that failed.
        failure: Option<Failure>,
        /// The renewed lease.
        lease_seconds: i64,
        /// How long it waits for its cutover, once synced.
        window_seconds: i64,
    },
    /// The user says how to cut over.
    ChooseCutover(CutoverOptions),
    /// The user asks what a cutover would do.
    Rehearse,
    /// The agent that holds the migration went through a rehearsal.
    Rehearsed {
        /// Who.
        agent: AgentId,
        /// Its epoch.
        epoch: Epoch,
        /// What it found.
        rehearsal: Rehearsal,
    },
    /// The agent that holds the migration has found out between which clusters it goes.
    Identified {
        /// Who.
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

/// What is to be done because of a transition, after it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Append to the migration's events.
    Record {
        /// What, in a few words.
        kind: &'static str,
        /// More of it, for people.
        message: String,
    },
}

/// The event doesn't fit the phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// A user's request that the phase doesn't allow.
    #[error("a migration in phase {phase:?} can't {verb}{}", instead(*phase))]
    NotNow {
        /// Where it is.
        phase: PhaseKind,
        /// What was asked.
        verb: &'static str,
    },
    /// A user's request that nobody is known to hear.
    #[error("it can't {verb}: its migration host {host} has reported nothing for {seconds} s")]
    HostSilent {
        /// Which.
        host: String,
        /// Since its last report.
        seconds: i64,
        /// What was asked.
        verb: &'static str,
    },
    /// A user's request that depends on what the current run hasn't said yet.
    #[error("it can't {verb}: its migration host {host} has taken it on and not reported yet how far it is")]
    Unknown {
        /// Which.
        host: String,
        /// What was asked.
        verb: &'static str,
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

/// What `migration` becomes when `event` happens at `now`.
pub fn step(
    migration: &Migration,
    event: Event,
    now: Timestamp,
) -> Result<(Migration, Vec<Action>), IllegalTransition> {
    let mut next = migration.clone();
    let kind = migration.phase.kind();
    let not_now = |verb| Err(IllegalTransition::NotNow { phase: kind, verb });
    let mut actions = Vec::new();
    match event {
        Event::Claim { agent, lease_seconds } => {
            if (kind.is_final() && !migration.carried.to_remove) || kind == PhaseKind::Paused {
                return not_now("be claimed");
            }
            if migration.lease.as_ref().is_some_and(|lease| lease.agent != agent && lease.until > now) {
                return Err(IllegalTransition::Fenced);
            }
            next.epoch = migration.epoch.next();
            next.lease = Some(Lease { agent, epoch: next.epoch, until: now.plus_seconds(lease_seconds) });
            next.heard = Some(Heard { at: now, epoch: None });
            if !migration.carried.to_remove {
                actions.push(record("claimed", format!("agent {agent} with epoch {}", next.epoch.0)));
            }
        }
        Event::Report { agent, epoch, phase, progress, failure, lease_seconds, window_seconds } => {
            let held = migration.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch);
            if !held {
                return Err(IllegalTransition::Fenced);
            }
            next.lease = Some(Lease { agent, epoch, until: now.plus_seconds(lease_seconds) });
            next.heard = Some(Heard { at: now, epoch: Some(epoch) });
            tell_of_waiting(&migration.progress, &progress, &mut actions);
            tell_of_repairs(&migration.progress, &progress, &mut actions);
            tell_of_indexes(&migration.progress, &progress, &mut actions);
            next.progress = *progress;
            warn_of_oplog(&mut next, &mut actions);
            if phase == PhaseKind::Synced && next.carried.cutover_by.is_none() {
                next.carried.cutover_by = Some(now.plus_seconds(window_seconds));
                // A span that is no longer than a warning's is not warned of at its beginning.
                next.carried.cutover_warned = CUTOVER_WARNINGS.into_iter().rev().find(|w| window_seconds <= *w);
            }
            let expires_at = next.carried.cutover_by.unwrap_or_else(|| now.plus_seconds(window_seconds));
            if let Some(phase) = reported(migration, phase, failure, expires_at, &mut actions) {
                next.phase = phase;
            }
            if phase == PhaseKind::Cancelled && next.carried.to_remove {
                next.carried.to_remove = false;
                actions.push(record("removed", "what was copied is gone from the destination".to_owned()));
            }
            if next.phase.kind().is_final() && !next.carried.to_remove {
                next.lease = None;
            }
        }
        Event::ChooseCutover(options) => match kind {
            PhaseKind::CuttingOver | PhaseKind::Finalizing => return not_now("be told how to cut over"),
            _ if kind.is_final() && kind != PhaseKind::Failed => return not_now("be told how to cut over"),
            _ => next.cutover = options,
        },
        Event::Rehearse => match (&migration.phase, &migration.rehearsal) {
            // The one that is under way answers this request too.
            (Phase::Synced { .. }, Some(known)) if known.state == RehearsalState::Pending => {}
            (Phase::Synced { .. }, known) => {
                is_heard(migration, now, "be rehearsed")?;
                let number = known.as_ref().map_or(0, |known| known.number) + 1;
                next.rehearsal = Some(Rehearsal { number, requested_at: now.rfc3339(), ..Rehearsal::default() });
                actions.push(record("rehearsal", format!("number {number} asked for")));
            }
            _ => return not_now("be rehearsed"),
        },
        Event::Rehearsed { agent, epoch, rehearsal } => {
            let held = migration.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch);
            let wanted = migration.rehearsal.as_ref().filter(|known| known.state == RehearsalState::Pending);
            if let (true, Some(wanted)) = (held, wanted.filter(|wanted| wanted.number == rehearsal.number)) {
                let requested_at = wanted.requested_at.clone();
                let pause = rehearsal.predicted_pause_millis.unwrap_or(0);
                let would = if rehearsal.would_complete { "would complete" } else { "would be rolled back" };
                actions.push(record("rehearsal", format!("the cutover {would}, after {pause} ms")));
                let ended_at = Some(now.rfc3339());
                next.rehearsal = Some(Rehearsal { requested_at, ended_at, state: RehearsalState::Done, ..rehearsal });
            }
        }
        Event::Identified { agent, epoch, identities } => {
            let held = migration.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch);
            if !held {
                return Err(IllegalTransition::Fenced);
            }
            // For good: a later agent is held to it.
            if next.carried.identities.is_none() {
                let Identities { source, destination } = &*identities;
                actions.push(record("identified", format!("from {source} to {destination}")));
                next.carried.identities = Some(*identities);
            }
        }
        Event::CutOver => match migration.phase {
            Phase::Synced { .. } => {
                is_heard(migration, now, "be cut over")?;
                next.phase = Phase::CuttingOver;
            }
            Phase::CuttingOver | Phase::Finalizing => {}
            _ => return not_now("be cut over"),
        },
        Event::AbortCutover => match migration.phase {
            Phase::CuttingOver | Phase::Finalizing if migration.carried.abort_cutover => {}
            Phase::CuttingOver | Phase::Finalizing => {
                next.carried.abort_cutover = true;
                actions.push(record("abort", "the cutover is to end, back to ready".to_owned()));
            }
            _ => return not_now("end a cutover, since none is under way"),
        },
        Event::Pause => match migration.phase {
            Phase::Paused { .. } => {}
            Phase::Synced { expires_at } => next.phase = Phase::Paused { from: kind, expires_at: Some(expires_at) },
            Phase::Scheduled | Phase::Preparing | Phase::Copying | Phase::BuildingIndexes | Phase::CatchingUp => {
                next.phase = Phase::Paused { from: kind, expires_at: migration.carried.cutover_by };
            }
            _ => return not_now("be paused"),
        },
        Event::Resume { .. } if !kind.may_resume() => return not_now("be resumed"),
        Event::Resume { recopy: true } if migration.reversal.is_some() => {
            return not_now("have its copy made again: a reverse migration copies nothing");
        }
        Event::Resume { recopy } => {
            if kind == PhaseKind::Failed || recopy {
                // It will be synced again, and has its whole time from then.
                (next.carried.cutover_by, next.carried.cutover_warned) = (None, None);
            }
            if recopy {
                next.carried.recopies += 1;
                actions.push(record("recopy", "the copy is made again".to_owned()));
            }
            next.phase = Phase::Scheduled;
            next.lease = None;
            next.progress.waiting = None;
        }
        Event::Cancel { drop_copied } => match kind {
            // What nobody could remove yet may stay after all.
            PhaseKind::Cancelled => next.carried.to_remove &= drop_copied,
            PhaseKind::Finalizing | PhaseKind::Complete => return not_now("be cancelled"),
            _ => {
                next.phase = Phase::Cancelled { drop_copied };
                // Without an agent that ever had it there is nothing; a way back copied nothing.
                next.carried.to_remove = drop_copied && migration.epoch.0 > 0 && migration.reversal.is_none();
            }
        },
        Event::Extend { seconds } => match cutover_ends(migration) {
            Some(at) => {
                let at = at.plus_seconds(seconds);
                (next.carried.cutover_by, next.carried.cutover_warned) = (Some(at), None);
                match &mut next.phase {
                    Phase::Synced { expires_at } => *expires_at = at,
                    Phase::Paused { expires_at, .. } => *expires_at = Some(at),
                    _ => {}
                }
            }
            None => return not_now("be extended"),
        },
        Event::Limit(limits) => {
            if kind.is_final() {
                return not_now("be limited");
            }
            next.limits = limits;
            if limits != migration.limits {
                actions.push(record("limits", limits.to_string()));
            }
        }
        Event::Tick => match cutover_ends(migration) {
            Some(at) if at <= now => {
                next.phase = Phase::Expired;
                next.lease = None;
            }
            ends => {
                if let Some(at) = ends {
                    warn_of_end(&mut next, at, now, &mut actions);
                }
                tell_of_silence(&mut next, now, &mut actions);
            }
        },
    }
    if !matches!(next.phase, Phase::CuttingOver | Phase::Finalizing) {
        next.carried.abort_cutover = false;
    }
    if next.phase.kind() != kind {
        next.phase_since = now;
        actions.push(record("phase", format!("{kind:?} to {:?}", next.phase.kind())));
    }
    Ok((next, actions))
}

/// Somebody's order is for an agent that is there and has said that it can carry it out.
fn is_heard(migration: &Migration, now: Timestamp, verb: &'static str) -> Result<(), IllegalTransition> {
    let host = || migration.migration_host.clone();
    match migration.silent_seconds(now) {
        Some(seconds) => Err(IllegalTransition::HostSilent { host: host(), seconds, verb }),
        None if migration.is_known(now) => Ok(()),
        None => Err(IllegalTransition::Unknown { host: host(), verb }),
    }
}

/// A host is silent for so long that somebody should know: another one would have taken its migration over by now.
pub const SILENCE_TOLD_SECONDS: i64 = 30;

/// Tells once of a host that is silent; its next report ends it.
fn tell_of_silence(next: &mut Migration, now: Timestamp, actions: &mut Vec<Action>) {
    let Some(seconds) = next.silent_seconds(now).filter(|seconds| *seconds >= SILENCE_TOLD_SECONDS) else { return };
    if next.progress.waiting.as_ref().is_some_and(|waiting| waiting.code == ErrorCode::HostSilent) {
        return;
    }
    let mut told = next.progress.clone();
    told.waiting = Some(Waiting { code: ErrorCode::HostSilent, message: next.silence(seconds) });
    tell_of_waiting(&next.progress, &told, actions);
    next.progress = told;
}

/// Seconds before the end of the time to cut over at which the user is warned, the last first.
const CUTOVER_WARNINGS: [i64; 2] = [3600, CUTOVER_WARNED_SECONDS];

/// As long as more than this is left of it, a tick changes nothing.
pub const CUTOVER_WARNED_SECONDS: i64 = 86_400;

/// Seconds left of the source's oplog at which the user is warned, the last first.
const OPLOG_WARNINGS: [i64; 3] = [600, 3600, 6 * 3600];

/// When the time to cut over ends, where that clock runs: from the first time that it was synced to the cutover.
fn cutover_ends(migration: &Migration) -> Option<Timestamp> {
    match migration.phase {
        Phase::Synced { expires_at } => Some(expires_at),
        Phase::Paused { expires_at, .. } => expires_at,
        Phase::Scheduled | Phase::Preparing | Phase::Copying | Phase::BuildingIndexes | Phase::CatchingUp => {
            migration.carried.cutover_by
        }
        Phase::CuttingOver
        | Phase::Finalizing
        | Phase::Complete
        | Phase::Failed { .. }
        | Phase::Expired
        | Phase::Cancelled { .. } => None,
    }
}

fn warn_of_end(next: &mut Migration, at: Timestamp, now: Timestamp, actions: &mut Vec<Action>) {
    let left = at.seconds_since(now);
    let due = CUTOVER_WARNINGS.into_iter().find(|w| left <= *w);
    if let Some(due) = due.filter(|due| next.carried.cutover_warned.is_none_or(|warned| *due < warned)) {
        next.carried.cutover_warned = Some(due);
        let hours = due / 3600;
        let message =
            format!("the time to cut over ends in less than {hours} h, at {}: cut over, or extend it", at.rfc3339());
        actions.push(record("warning", message));
    }
}

fn warn_of_oplog(next: &mut Migration, actions: &mut Vec<Action>) {
    let Some(left) = next.progress.oplog_window_seconds else { return };
    match OPLOG_WARNINGS.into_iter().find(|w| left <= *w) {
        Some(due) if next.carried.oplog_warned.is_none_or(|warned| due < warned) => {
            next.carried.oplog_warned = Some(due);
            let message = format!(
                "the source's oplog reaches back only {left} s further than where it is read; enlarge it (replSetResizeOplog)"
            );
            actions.push(record("warning", message));
        }
        // Twice as much, so that a window that goes up and down is told of once.
        None if left > 2 * OPLOG_WARNINGS[OPLOG_WARNINGS.len() - 1] => next.carried.oplog_warned = None,
        _ => {}
    }
}

/// What has to be fixed, when that begins, changes or ends.
fn tell_of_waiting(before: &Progress, now: &Progress, actions: &mut Vec<Action>) {
    match (&before.waiting, &now.waiting) {
        (Some(a), Some(b)) if a.code == b.code => {}
        (_, Some(waiting)) => {
            let message = format!("{}: {}. {}", waiting.code.name(), waiting.message, waiting.code.remedy());
            actions.push(record("waiting", message));
        }
        (Some(waiting), None) => actions.push(record("goesOn", format!("{} is over", waiting.code.name()))),
        (None, None) => {}
    }
}

/// Indexes that came to be missing on the destination, and that none is missing any more.
fn tell_of_indexes(before: &Progress, now: &Progress, actions: &mut Vec<Action>) {
    let known = |one: &&MissingIndex| {
        before.missing_indexes.iter().any(|b| (&b.namespace, &b.name) == (&one.namespace, &one.name))
    };
    for one in now.missing_indexes.iter().filter(|one| !known(one)) {
        let message = format!("the destination lacks index {} of {}: {}", one.name, one.namespace, one.reason);
        actions.push(record("index", message));
    }
    if now.missing_indexes.is_empty() && !before.missing_indexes.is_empty() {
        actions.push(record("index", "the destination has all indexes again".to_owned()));
    }
}

/// Documents that the verifier found different: the first one, and then whenever there are ten times as many.
fn tell_of_repairs(before: &Progress, now: &Progress, actions: &mut Vec<Action>) {
    let count = now.documents_repaired;
    if count.checked_ilog10() > before.documents_repaired.checked_ilog10() {
        let message = format!(
            "{count} documents differed on the destination and were written again: somebody else changes them there; \
             find that writer before the cutover"
        );
        actions.push(record("repaired", message));
    }
}

/// The phase after an agent's report; `None` where the user's wish stands above what the agent, which may not know of
/// it yet, says.
fn reported(
    migration: &Migration,
    phase: PhaseKind,
    failure: Option<Failure>,
    expires_at: Timestamp,
    actions: &mut Vec<Action>,
) -> Option<Phase> {
    let current = &migration.phase;
    match current {
        Phase::Paused { .. } | Phase::Cancelled { .. } | Phase::Expired | Phase::Complete | Phase::Failed { .. } => {
            return None;
        }
        Phase::CuttingOver | Phase::Finalizing => {
            let back = failure.is_some() && matches!(phase, PhaseKind::Synced | PhaseKind::CatchingUp);
            if !back
                && !matches!(
                    phase,
                    PhaseKind::CuttingOver | PhaseKind::Finalizing | PhaseKind::Complete | PhaseKind::Failed
                )
            {
                return None;
            }
        }
        Phase::Scheduled
        | Phase::Preparing
        | Phase::Copying
        | Phase::BuildingIndexes
        | Phase::CatchingUp
        | Phase::Synced { .. } => {}
    }
    if let Some(failure) = &failure {
        actions.push(record("failure", format!("{}: {}", failure.code.name(), failure.message)));
    }
    Some(match phase {
        PhaseKind::Scheduled | PhaseKind::Paused | PhaseKind::Cancelled | PhaseKind::Expired => return None,
        PhaseKind::Preparing => Phase::Preparing,
        PhaseKind::Copying => Phase::Copying,
        PhaseKind::BuildingIndexes => Phase::BuildingIndexes,
        PhaseKind::CatchingUp => Phase::CatchingUp,
        PhaseKind::Synced => match current {
            Phase::Synced { expires_at } => Phase::Synced { expires_at: *expires_at },
            _ => Phase::Synced { expires_at },
        },
        PhaseKind::CuttingOver => Phase::CuttingOver,
        PhaseKind::Finalizing => Phase::Finalizing,
        PhaseKind::Complete => Phase::Complete,
        PhaseKind::Failed => Phase::Failed { failure: failure.unwrap_or_else(Failure::unknown) },
    })
}

fn record(kind: &'static str, message: String) -> Action {
    Action::Record { kind, message }
}

#[cfg(test)]
mod tests;
