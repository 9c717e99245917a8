//! Decides what a migration becomes when something happens. Pure: the store writes the result in one compare-and-swap,
//! and only then are the actions carried out.

use crate::{AgentId, Epoch, Failure, Migration, Phase, PhaseKind, Progress, Timestamp, state::Lease};

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
        progress: Progress,
        /// Why it stopped, with `PhaseKind::Failed`; why it went back to `Synced`, after a cutover that failed.
        failure: Option<Failure>,
        /// The renewed lease.
        lease_seconds: i64,
        /// How long it waits for its cutover, once synced.
        window_seconds: i64,
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
        Event::Report { agent, epoch, phase, progress, failure, lease_seconds, window_seconds } => {
            let held = migration.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch);
            if !held {
                return Err(IllegalTransition::Fenced);
            }
            next.lease = Some(Lease { agent, epoch, until: now.plus_seconds(lease_seconds) });
            next.progress = progress;
            if let Some(phase) = reported(migration, phase, failure, now.plus_seconds(window_seconds), &mut actions) {
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
    expires_at: Timestamp,
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
mod tests {
    use super::*;
    use crate::{
        ErrorCode, GroupId, MigrationId,
        protocol::Directive,
        state::{DestinationRef, SourceRef},
    };

    const NOW: Timestamp = Timestamp(1_000_000);

    fn fresh() -> Migration {
        let group_id = GroupId::generate();
        Migration {
            id: MigrationId::generate(),
            group_id,
            source: SourceRef {
                group_id,
                cluster_name: "old".to_owned(),
                managed_authentication: true,
                ca_certificate_path: None,
                ssl: false,
            },
            destination: DestinationRef {
                group_id,
                cluster_name: "new".to_owned(),
                hostname_schema_type: Default::default(),
                private_link_id: None,
            },
            migration_host: "host".to_owned(),
            drop_destination_data: false,
            phase: Phase::Scheduled,
            lease: None,
            epoch: Epoch(0),
            progress: Progress::default(),
            created_at: NOW,
            phase_since: NOW,
        }
    }

    fn claim(m: &Migration, agent: AgentId, now: Timestamp) -> Result<Migration, IllegalTransition> {
        step(m, Event::Claim { agent, lease_seconds: 20 }, now).map(|(next, _)| next)
    }

    fn report(m: &Migration, agent: AgentId, phase: PhaseKind) -> Result<Migration, IllegalTransition> {
        let failure = (phase == PhaseKind::Failed).then(|| Failure::new(ErrorCode::ServerError, "broke"));
        let progress = Progress { documents_copied: 7, ..Progress::default() };
        let event = Event::Report {
            agent,
            epoch: m.epoch,
            phase,
            progress,
            failure,
            lease_seconds: 20,
            window_seconds: CUTOVER_WINDOW_SECONDS,
        };
        step(m, event, NOW).map(|(next, _)| next)
    }

    fn user(m: &Migration, event: Event) -> Result<Migration, IllegalTransition> {
        step(m, event, NOW).map(|(next, _)| next)
    }

    /// Claimed by `agent` and reported to be in `phase`.
    fn at(agent: AgentId, phase: PhaseKind) -> Migration {
        let claimed = claim(&fresh(), agent, NOW).expect("free");
        report(&claimed, agent, phase).expect("holds the lease")
    }

    #[test]
    fn one_agent_holds_a_migration_and_a_late_one_is_fenced_out() {
        let (a, b) = (AgentId::generate(), AgentId::generate());
        let first = claim(&fresh(), a, NOW).expect("free");
        assert_eq!(claim(&first, b, NOW.plus_seconds(19)), Err(IllegalTransition::Fenced));
        let second = claim(&first, b, NOW.plus_seconds(20)).expect("the lease lapsed");
        assert_eq!(second.epoch, Epoch(2));
        let mut late = second.clone();
        late.epoch = Epoch(1);
        assert_eq!(report(&late, a, PhaseKind::Complete), Err(IllegalTransition::Fenced));
        assert_eq!(second.directive(a, Epoch(1)), Directive::Stop);
        assert_eq!(second.directive(b, Epoch(2)), Directive::Run);
        // Its own holder may claim again after a restart: with a new epoch, which shuts out what it was before.
        assert_eq!(claim(&second, b, NOW.plus_seconds(21)).expect("its own").epoch, Epoch(3));
    }

    #[test]
    fn a_cutover_is_taken_only_when_synced_and_twice_is_once() {
        let agent = AgentId::generate();
        for phase in [PhaseKind::Preparing, PhaseKind::Copying, PhaseKind::BuildingIndexes, PhaseKind::CatchingUp] {
            let refused = user(&at(agent, phase), Event::CutOver);
            assert_eq!(refused, Err(IllegalTransition::NotNow { phase, verb: "be cut over" }));
        }
        let cutting = user(&at(agent, PhaseKind::Synced), Event::CutOver).expect("synced");
        assert_eq!(cutting.phase, Phase::CuttingOver);
        assert_eq!(user(&cutting, Event::CutOver).expect("again").phase, Phase::CuttingOver);
        // A report that was sent before the agent knew doesn't take it back.
        assert_eq!(report(&cutting, agent, PhaseKind::Synced).expect("late").phase, Phase::CuttingOver);
        let done = report(&cutting, agent, PhaseKind::Complete).expect("done");
        assert_eq!((done.phase.kind(), done.lease.clone()), (PhaseKind::Complete, None));
        assert_eq!(report(&done, agent, PhaseKind::Failed), Err(IllegalTransition::Fenced));
    }

    #[test]
    fn a_cutover_that_failed_goes_back_with_its_reason() {
        let agent = AgentId::generate();
        let cutting = user(&at(agent, PhaseKind::Synced), Event::CutOver).expect("synced");
        let event = Event::Report {
            agent,
            epoch: cutting.epoch,
            phase: PhaseKind::Synced,
            progress: Progress::default(),
            failure: Some(Failure::new(ErrorCode::SourceWrittenDuringCutover, "a write")),
            lease_seconds: 20,
            window_seconds: 60,
        };
        let (back, actions) = step(&cutting, event, NOW).expect("holds the lease");
        assert_eq!(back.phase, Phase::Synced { expires_at: NOW.plus_seconds(60) });
        assert!(
            actions.iter().any(|Action::Record { kind, message }| *kind == "failure" && message.contains("a write"))
        );
    }

    #[test]
    fn pause_keeps_the_timer_and_resume_waits_for_an_agent() {
        let agent = AgentId::generate();
        let until = NOW.plus_seconds(CUTOVER_WINDOW_SECONDS);
        let paused = user(&at(agent, PhaseKind::Synced), Event::Pause).expect("synced");
        assert_eq!(paused.phase, Phase::Paused { from: PhaseKind::Synced, expires_at: Some(until) });
        assert_eq!(paused.directive(agent, paused.epoch), Directive::Pause);
        assert_eq!(report(&paused, agent, PhaseKind::Synced).expect("late").phase, paused.phase);
        assert!(claim(&paused, agent, NOW).is_err());
        let resumed = user(&paused, Event::Resume).expect("paused");
        assert_eq!((&resumed.phase, &resumed.lease), (&Phase::Scheduled, &None));
        let (expired, _) = step(&paused, Event::Tick, until).expect("a tick");
        assert_eq!(expired.phase, Phase::Expired);
        let (early, _) = step(&paused, Event::Tick, until.plus_seconds(-1)).expect("a tick");
        assert_eq!(early.phase, paused.phase);
    }

    #[test]
    fn nothing_follows_an_end_but_a_resume_after_a_failure() {
        let agent = AgentId::generate();
        let failed = at(agent, PhaseKind::Failed);
        assert!(matches!(&failed.phase, Phase::Failed { failure } if failure.message == "broke"));
        assert_eq!(user(&failed, Event::Resume).expect("after a failure").phase, Phase::Scheduled);
        let complete = at(agent, PhaseKind::Complete);
        for event in [
            Event::Resume,
            Event::Pause,
            Event::CutOver,
            Event::Cancel { drop_copied: true },
            Event::Extend { seconds: 1 },
        ] {
            assert!(user(&complete, event.clone()).is_err(), "{event:?}");
        }
        let cancelled = user(&at(agent, PhaseKind::Copying), Event::Cancel { drop_copied: true }).expect("copying");
        assert_eq!(cancelled.directive(agent, cancelled.epoch), Directive::Cancel { drop_copied: true });
    }
}
