//! Decides what a migration becomes when something happens. Pure: the store writes the result in one compare-and-swap,
//! and only then are the actions carried out.

use crate::{AgentId, Epoch, Failure, Migration, Phase, PhaseKind, Progress, Timestamp, state::Lease};

/// How long a synced migration waits for its cutover.
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
        progress: Progress,
        /// Why it stopped, with `PhaseKind::Failed`; why it went back to `Synced`, after a cutover that failed.
        failure: Option<Failure>,
        /// The renewed lease.
        lease_seconds: i64,
    },
    /// The user asks for the cutover.
    CutOver,
    /// The user pauses.
    Pause,
    /// The user goes on, also after a failure.
    Resume,
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
    #[error("a migration in phase {phase:?} can't {verb}")]
    NotNow {
        /// Where it is.
        phase: PhaseKind,
        /// What was asked.
        verb: &'static str,
    },
    /// The reporter doesn't hold the lease, or another does.
    #[error("the lease is held by another agent or a later epoch")]
    Fenced,
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
            if kind.is_final() || kind == PhaseKind::Paused {
                return not_now("be claimed");
            }
            if migration.lease.as_ref().is_some_and(|lease| lease.agent != agent && lease.until > now) {
                return Err(IllegalTransition::Fenced);
            }
            next.epoch = migration.epoch.next();
            next.lease = Some(Lease { agent, epoch: next.epoch, until: now.plus_seconds(lease_seconds) });
            actions.push(record("claimed", format!("agent {agent} with epoch {}", next.epoch.0)));
        }
        Event::Report { agent, epoch, phase, progress, failure, lease_seconds } => {
            let held = migration.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch);
            if !held {
                return Err(IllegalTransition::Fenced);
            }
            next.lease = Some(Lease { agent, epoch, until: now.plus_seconds(lease_seconds) });
            next.progress = progress;
            if let Some(phase) = reported(migration, phase, failure, now, &mut actions) {
                next.phase = phase;
            }
            if next.phase.kind().is_final() {
                next.lease = None;
            }
        }
        Event::CutOver => match migration.phase {
            Phase::Synced { .. } => next.phase = Phase::CuttingOver,
            Phase::CuttingOver | Phase::Finalizing => {}
            _ => return not_now("be cut over"),
        },
        Event::Pause => match migration.phase {
            Phase::Paused { .. } => {}
            Phase::Synced { expires_at } => next.phase = Phase::Paused { from: kind, expires_at: Some(expires_at) },
            Phase::Scheduled | Phase::Preparing | Phase::Copying | Phase::BuildingIndexes | Phase::CatchingUp => {
                next.phase = Phase::Paused { from: kind, expires_at: None };
            }
            _ => return not_now("be paused"),
        },
        Event::Resume => match migration.phase {
            Phase::Paused { .. } | Phase::Failed { .. } => {
                next.phase = Phase::Scheduled;
                next.lease = None;
            }
            _ => return not_now("be resumed"),
        },
        Event::Cancel { drop_copied } => match kind {
            PhaseKind::Cancelled => {}
            PhaseKind::Finalizing | PhaseKind::Complete => return not_now("be cancelled"),
            _ => next.phase = Phase::Cancelled { drop_copied },
        },
        Event::Extend { seconds } => match migration.phase {
            Phase::Synced { expires_at } => next.phase = Phase::Synced { expires_at: expires_at.plus_seconds(seconds) },
            Phase::Paused { from, expires_at: Some(at) } => {
                next.phase = Phase::Paused { from, expires_at: Some(at.plus_seconds(seconds)) };
            }
            _ => return not_now("be extended"),
        },
        Event::Tick => match migration.phase {
            Phase::Synced { expires_at } | Phase::Paused { expires_at: Some(expires_at), .. } if expires_at <= now => {
                next.phase = Phase::Expired;
                next.lease = None;
            }
            _ => {}
        },
    }
    if next.phase.kind() != kind {
        next.phase_since = now;
        actions.push(record("phase", format!("{kind:?} to {:?}", next.phase.kind())));
    }
    Ok((next, actions))
}

/// The phase after an agent's report; `None` where the user's wish stands above what the agent, which may not know of
/// it yet, says.
fn reported(
    migration: &Migration,
    phase: PhaseKind,
    failure: Option<Failure>,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> Option<Phase> {
    let current = &migration.phase;
    match current {
        Phase::Paused { .. } | Phase::Cancelled { .. } | Phase::Expired | Phase::Complete | Phase::Failed { .. } => {
            return None;
        }
        Phase::CuttingOver | Phase::Finalizing => {
            let back = failure.is_some() && phase == PhaseKind::Synced;
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
            _ => Phase::Synced { expires_at: now.plus_seconds(CUTOVER_WINDOW_SECONDS) },
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
