//! What may become of a migration, and what may not.

use super::*;
use crate::{
    ErrorCode, GroupId, MigrationId,
    progress::MissingIndex,
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
        limits: Limits::default(),
        phase: Phase::Scheduled,
        lease: None,
        epoch: Epoch(0),
        progress: Progress::default(),
        created_at: NOW,
        phase_since: NOW,
        cutover: CutoverOptions::default(),
        rehearsal: None,
        carried: Default::default(),
        reversal: None,
        heard: None,
        filter: crate::NamespaceFilter::default(),
    }
}

fn claim(m: &Migration, agent: AgentId, now: Timestamp) -> Result<Migration, IllegalTransition> {
    apply_event(m, Event::Claim { agent, lease_seconds: 20 }, now).map(|(next, _)| next)
}

fn report(m: &Migration, agent: AgentId, phase: PhaseKind) -> Result<Migration, IllegalTransition> {
    let failure = (phase == PhaseKind::Failed).then(|| Failure::new(ErrorCode::ServerError, "broke"));
    let progress = Box::new(Progress { documents_copied: 7, ..Progress::default() });
    let event = Event::Report(Report {
        agent,
        epoch: m.epoch,
        phase,
        progress,
        failure,
        lease_seconds: 20,
        window_seconds: CUTOVER_WINDOW_SECONDS,
    });
    apply_event(m, event, NOW).map(|(next, _)| next)
}

fn user(m: &Migration, event: Event) -> Result<Migration, IllegalTransition> {
    apply_event(m, event, NOW).map(|(next, _)| next)
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
        assert_eq!(refused, Err(IllegalTransition::NotNow { phase, request: Request::CutOver }));
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
    let event = Event::Report(Report {
        agent,
        epoch: cutting.epoch,
        phase: PhaseKind::Synced,
        progress: Box::default(),
        failure: Some(Failure::new(ErrorCode::SourceWrittenDuringCutover, "a write")),
        lease_seconds: 20,
        window_seconds: 60,
    });
    let (back, actions) = apply_event(&cutting, event, NOW).expect("holds the lease");
    // The clock that began when it was synced first continues.
    assert_eq!(back.phase, Phase::Synced { expires_at: NOW.plus_seconds(CUTOVER_WINDOW_SECONDS) });
    assert!(actions.contains(&HistoryEvent::Failed {
        code: ErrorCode::SourceWrittenDuringCutover,
        message: "a write".to_owned()
    }));
}

#[test]
fn a_cutover_is_ended_on_request_until_its_agent_has_said_that_it_is() {
    let agent = AgentId::generate();
    assert!(user(&at(agent, PhaseKind::Synced), Event::AbortCutover).is_err(), "none is under way");
    for phase in [PhaseKind::CuttingOver, PhaseKind::Finalizing] {
        let cutting = user(&at(agent, PhaseKind::Synced), Event::CutOver).expect("synced");
        let cutting = report(&cutting, agent, phase).expect("holds the lease");
        assert!(!cutting.wishes().abort_cutover);
        let ended = user(&cutting, Event::AbortCutover).expect("one is under way");
        assert_eq!((ended.phase.kind(), ended.wishes().abort_cutover), (phase, true));
        assert_eq!(user(&ended, Event::AbortCutover).expect("again"), ended);
        // An agent that doesn't know of it yet continues, and one that was faster is through.
        assert!(report(&ended, agent, PhaseKind::Finalizing).expect("holds the lease").wishes().abort_cutover);
        assert_eq!(report(&ended, agent, PhaseKind::Complete).expect("done").phase, Phase::Complete);
        for back in [PhaseKind::Synced, PhaseKind::CatchingUp] {
            let event = Event::Report(Report {
                agent,
                epoch: ended.epoch,
                phase: back,
                progress: Box::default(),
                failure: Some(Failure::new(ErrorCode::CutoverAborted, "on request")),
                lease_seconds: 20,
                window_seconds: 60,
            });
            let (back, _) = apply_event(&ended, event, NOW).expect("holds the lease");
            assert_eq!((back.directive(agent, back.epoch), back.wishes().abort_cutover), (Directive::Run, false));
        }
    }
}

#[test]
fn indexes_that_are_missing_are_told_once_and_that_they_are_back() {
    let agent = AgentId::generate();
    let synced = at(agent, PhaseKind::Synced);
    let told = |m: &Migration, missing: &[&str]| {
        let one = |name: &&str| MissingIndex { namespace: "app.c".into(), name: (*name).into(), reason: "no".into() };
        let progress = Progress { missing_indexes: missing.iter().map(one).collect(), ..Progress::default() };
        let (epoch, progress) = (m.epoch, Box::new(progress));
        let (phase, failure, lease_seconds, window_seconds) = (PhaseKind::Synced, None, 20, 60);
        let event = Event::Report(Report { agent, epoch, phase, progress, failure, lease_seconds, window_seconds });
        let (next, actions) = apply_event(m, event, NOW).expect("holds the lease");
        let of_indexes = actions.iter().filter(|event| event.kind() == "index").count();
        (next, of_indexes)
    };
    let (one, first) = told(&synced, &["a"]);
    let (same, again) = told(&one, &["a"]);
    let (none, back) = told(&same, &[]);
    assert_eq!((first, again, back, told(&none, &[]).1), (1, 0, 1, 0));
}

#[test]
fn a_rehearsal_is_asked_for_once_answered_once_and_by_its_holder() {
    let agent = AgentId::generate();
    assert!(user(&at(agent, PhaseKind::Copying), Event::Rehearse).is_err());
    let synced = at(agent, PhaseKind::Synced);
    assert_eq!(synced.wishes().rehearsal, 0);
    let asked = user(&synced, Event::Rehearse).expect("synced");
    let asked = user(&asked, Event::Rehearse).expect("again");
    assert_eq!(asked.wishes().rehearsal, 1);
    let result = |number| Rehearsal { number, would_complete: true, ..Rehearsal::default() };
    let answer = |m: &Migration, epoch, number| {
        user(m, Event::Rehearsed { agent, epoch, rehearsal: result(number) }).expect("no harm")
    };
    for (epoch, number) in [(Epoch(0), 1), (asked.epoch, 2)] {
        assert_eq!(answer(&asked, epoch, number), asked, "late, or of another");
    }
    let done = answer(&asked, asked.epoch, 1);
    let rehearsal = done.rehearsal.clone().expect("is there");
    assert_eq!((rehearsal.state, rehearsal.would_complete), (RehearsalState::Done, true));
    assert_eq!(answer(&done, done.epoch, 1), done, "told again");
    assert_eq!(user(&done, Event::Rehearse).expect("synced").wishes().rehearsal, 2);
}

#[test]
fn how_to_cut_over_is_said_before_it_begins() {
    let agent = AgentId::generate();
    let options = CutoverOptions { block_source_writes: true, reversible: false };
    let chosen = user(&at(agent, PhaseKind::Copying), Event::ChooseCutover(options)).expect("copying");
    assert_eq!(chosen.wishes().cutover, options);
    let cutting = user(&at(agent, PhaseKind::Synced), Event::CutOver).expect("synced");
    assert!(user(&cutting, Event::ChooseCutover(options)).is_err());
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
    let resumed = user(&paused, Event::Resume { recopy: false }).expect("paused");
    assert_eq!((&resumed.phase, &resumed.lease), (&Phase::Scheduled, &None));
    let (expired, _) = apply_event(&paused, Event::Tick, until).expect("a tick");
    assert_eq!(expired.phase, Phase::Expired);
    let (early, _) = apply_event(&paused, Event::Tick, until.plus_seconds(-1)).expect("a tick");
    assert_eq!(early.phase, paused.phase);
}

#[test]
fn the_timer_survives_an_agents_restart_and_warns_a_day_and_an_hour_before_its_end() {
    let agent = AgentId::generate();
    let synced = at(agent, PhaseKind::Synced);
    let end = NOW.plus_seconds(CUTOVER_WINDOW_SECONDS);
    let again = claim(&synced, agent, NOW).expect("its own");
    let again = report(&again, agent, PhaseKind::CatchingUp).expect("holds the lease");
    let tick = |m: &Migration, before: i64| apply_event(m, Event::Tick, end.plus_seconds(-before)).expect("a tick");
    let mut now = again;
    let mut told = Vec::new();
    for before in [90_000, 86_400, 80_000, 3601, 3600, 10, 1] {
        let (next, actions) = tick(&now, before);
        now = next;
        // Its host says nothing all the time, which is told too.
        told.extend(actions.iter().filter(|event| event.kind() == "warning").map(|_| before));
    }
    assert_eq!(told, [86_400, 3600]);
    assert_eq!(tick(&now, 0).0.phase, Phase::Expired);
    let extended = apply_event(&now, Event::Extend { seconds: 7200 }, end).expect("its clock runs").0;
    assert_eq!(tick(&extended, 0).0.phase, Phase::CatchingUp);
    assert_eq!(tick(&extended, -3600).1.len(), 1, "warned again after an extension");
    let synced = report(&extended, agent, PhaseKind::Synced).expect("holds the lease");
    assert_eq!(synced.phase, Phase::Synced { expires_at: end.plus_seconds(7200) });
}

#[test]
fn what_it_waits_for_and_a_shrinking_oplog_are_told_once() {
    let agent = AgentId::generate();
    let mut now = at(agent, PhaseKind::CatchingUp);
    let mut tell = |waiting: Option<ErrorCode>, oplog: i64| {
        let waiting = waiting.map(|code| crate::progress::Waiting { code, message: "down".to_owned() });
        let progress = Box::new(Progress { waiting, oplog_window_seconds: Some(oplog), ..Progress::default() });
        let (epoch, phase) = (now.epoch, PhaseKind::CatchingUp);
        let event = Event::Report(Report {
            agent,
            epoch,
            phase,
            progress,
            failure: None,
            lease_seconds: 20,
            window_seconds: 60,
        });
        let (next, actions) = apply_event(&now, event, NOW).expect("holds the lease");
        now = next;
        actions.iter().map(|event| event.kind().to_owned()).collect::<Vec<_>>()
    };
    let down = Some(ErrorCode::DestinationUnreachable);
    assert_eq!(tell(down, 100_000), ["waiting"]);
    assert!(tell(down, 100_000).is_empty());
    assert_eq!(tell(Some(ErrorCode::DestinationNotWritable), 20_000), ["waiting", "warning"]);
    assert_eq!(tell(None, 20_000), ["goesOn"]);
    assert_eq!(tell(None, 3000), ["warning"]);
    assert!(tell(None, 20_000).is_empty() && tell(None, 3000).is_empty());
    assert!(tell(None, 50_000).is_empty());
    assert_eq!(tell(None, 3000), ["warning"]);
}

#[test]
fn repaired_documents_are_told_of_at_the_first_and_at_ten_times_as_many() {
    let agent = AgentId::generate();
    let mut now = at(agent, PhaseKind::CatchingUp);
    let mut told = Vec::new();
    for documents_repaired in [0, 0, 1, 2, 9, 10, 11, 11, 99, 100, 99, 2500, 2501] {
        let progress = Box::new(Progress { documents_repaired, ..Progress::default() });
        let (epoch, phase) = (now.epoch, PhaseKind::CatchingUp);
        let report = Report { agent, epoch, phase, progress, failure: None, lease_seconds: 20, window_seconds: 60 };
        let (next, events) = apply_event(&now, Event::Report(report), NOW).expect("holds the lease");
        now = next;
        told.extend(events.into_iter().filter_map(|event| match event {
            HistoryEvent::DocumentsRepaired { count } => Some(count),
            _ => None,
        }));
    }
    assert_eq!(told, [1, 10, 100, 2500]);
}

#[test]
fn a_recopy_is_counted_and_has_its_whole_time() {
    let agent = AgentId::generate();
    let failed = report(&at(agent, PhaseKind::Synced), agent, PhaseKind::Failed).expect("holds the lease");
    let again = user(&failed, Event::Resume { recopy: true }).expect("after a failure");
    assert_eq!((again.carried.recopies, again.carried.cutover_by), (1, None));
}

#[test]
fn nothing_follows_an_end_but_a_resume_after_a_failure() {
    let agent = AgentId::generate();
    let failed = at(agent, PhaseKind::Failed);
    assert!(matches!(&failed.phase, Phase::Failed { failure } if failure.message == "broke"));
    assert_eq!(user(&failed, Event::Resume { recopy: false }).expect("after a failure").phase, Phase::Scheduled);
    let complete = at(agent, PhaseKind::Complete);
    for event in [
        Event::Resume { recopy: false },
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

#[test]
fn what_was_copied_is_removed_by_whoever_comes_once() {
    let (gone, other) = (AgentId::generate(), AgentId::generate());
    let cancelled = user(&at(gone, PhaseKind::Copying), Event::Cancel { drop_copied: true }).expect("copying");
    let later = NOW.plus_seconds(3600);
    let claimed = claim(&cancelled, other, later).expect("there is something left to do");
    let kept = user(&claimed, Event::Cancel { drop_copied: false }).expect("is cancelled already");
    assert!(!kept.carried.to_remove, "it may stay after all");
    let begun = report(&claimed, other, PhaseKind::Preparing).expect("holds the lease");
    assert_eq!(begun.directive(other, begun.epoch), Directive::Cancel { drop_copied: true });
    let done = report(&begun, other, PhaseKind::Cancelled).expect("holds the lease");
    assert_eq!((done.phase.clone(), done.lease.clone()), (Phase::Cancelled { drop_copied: true }, None));
    assert!(claim(&done, other, later).is_err(), "it is removed twice");
    assert_eq!(kept.directive(other, kept.epoch), Directive::Cancel { drop_copied: false });
    let untouched = user(&at(gone, PhaseKind::Copying), Event::Cancel { drop_copied: false }).expect("copying");
    assert!(claim(&untouched, other, later).is_err());
}

#[test]
fn who_can_neither_pause_nor_cancel_is_told_how_it_ends() {
    let finalizing = at(AgentId::generate(), PhaseKind::Finalizing);
    for event in [Event::Pause, Event::Cancel { drop_copied: false }] {
        let told = user(&finalizing, event).expect_err("past the point of no return").to_string();
        assert!(told.contains("ends as complete or rolled back"), "{told}");
    }
}

/// What clients see of it at `now`: whether it is ready, and its lag.
fn seen(m: &Migration, now: Timestamp) -> (bool, Option<i64>) {
    (m.ready_for_cutover(now), m.lag_time_seconds(now))
}

fn synced(agent: AgentId) -> Migration {
    let claimed = claim(&fresh(), agent, NOW).expect("free");
    say(&claimed, agent, PhaseKind::Synced, NOW)
}

fn say(m: &Migration, agent: AgentId, phase: PhaseKind, now: Timestamp) -> Migration {
    let progress =
        Box::new(Progress { lag_seconds: Some(0), oplog_window_seconds: Some(90_000), ..Progress::default() });
    let event = Event::Report(Report {
        agent,
        epoch: m.epoch,
        phase,
        progress,
        failure: None,
        lease_seconds: 20,
        window_seconds: CUTOVER_WINDOW_SECONDS,
    });
    apply_event(m, event, now).expect("holds the lease").0
}

#[test]
fn of_a_silent_host_nothing_is_known_and_no_order_is_taken_for_it() {
    let agent = AgentId::generate();
    let m = synced(agent);
    assert_eq!(seen(&m, NOW.plus_seconds(10)), (true, Some(0)));
    let later = NOW.plus_seconds(43);
    assert_eq!(seen(&m, later), (false, None));
    assert_eq!(m.report_age_seconds(later), Some(43));
    let known = m.known_progress(later);
    assert_eq!((known.lag_seconds, known.oplog_window_seconds), (None, None));
    let waiting = known.waiting.expect("says why");
    assert_eq!(waiting.code, ErrorCode::HostSilent);
    assert_eq!(waiting.message, "the migration host host has reported nothing for 43 s");
    for (event, request) in [(Event::CutOver, Request::CutOver), (Event::Rehearse, Request::Rehearse)] {
        let refused = apply_event(&m, event.clone(), later).expect_err("nobody hears it");
        assert_eq!(refused, IllegalTransition::HostSilent { host: "host".to_owned(), seconds: 43, request });
        apply_event(&m, event, NOW.plus_seconds(9)).expect("it is heard");
    }
}

#[test]
fn a_silence_is_told_once_and_ends_with_the_next_report() {
    let agent = AgentId::generate();
    let tick = |m: &Migration, seconds| apply_event(m, Event::Tick, NOW.plus_seconds(seconds)).expect("is allowed");
    let told = |events: &[HistoryEvent]| {
        events.iter().map(|event| event.kind().to_owned()).filter(|kind| kind != "phase").collect::<Vec<_>>()
    };
    let m = synced(agent);
    assert_eq!(tick(&m, 29), (m.clone(), Vec::new()));
    let (silent, actions) = tick(&m, 30);
    assert_eq!(told(&actions), ["waiting"]);
    assert_eq!(tick(&silent, 31), (silent.clone(), Vec::new()));
    let event = Event::Report(Report {
        agent,
        epoch: silent.epoch,
        phase: PhaseKind::Synced,
        progress: Box::default(),
        failure: None,
        lease_seconds: 20,
        window_seconds: 60,
    });
    let (_, actions) = apply_event(&silent, event, NOW.plus_seconds(40)).expect("holds the lease");
    assert_eq!(told(&actions), ["goesOn"]);
    // One that is paused has nobody who should report.
    let paused = user(&m, Event::Pause).expect("is allowed");
    assert_eq!(paused.silent_seconds(NOW.plus_seconds(600)), None);
    assert_eq!(tick(&paused, 600), (paused.clone(), Vec::new()));
}

#[test]
fn what_an_earlier_run_said_makes_nothing_ready() {
    let (a, b) = (AgentId::generate(), AgentId::generate());
    let m = synced(a);
    let later = NOW.plus_seconds(25);
    let taken = claim(&m, b, later).expect("the lease lapsed");
    assert_eq!((taken.phase.kind(), seen(&taken, later)), (PhaseKind::Synced, (false, None)));
    let refused = apply_event(&taken, Event::CutOver, later).expect_err("the new run hasn't said so");
    assert!(matches!(refused, IllegalTransition::Unknown { .. }), "{refused:?}");
    let again = say(&taken, b, PhaseKind::Synced, later);
    assert_eq!(seen(&again, later), (true, Some(0)));
    // A store of the version before has no such field: the next report brings it.
    let mut stored = serde_json::to_value(&m).expect("is written");
    stored.as_object_mut().expect("an object").remove("heard");
    let stored: Migration = serde_json::from_value(stored).expect("is read");
    assert_eq!(seen(&stored, NOW), (false, None));
    assert_eq!(seen(&say(&stored, a, PhaseKind::Synced, NOW), NOW), (true, Some(0)));
}

#[test]
fn a_cutover_that_the_engine_could_not_begin_goes_back_to_catching_up() {
    let agent = AgentId::generate();
    let cutting = user(&synced(agent), Event::CutOver).expect("synced");
    assert_eq!(report(&cutting, agent, PhaseKind::CatchingUp).expect("late").phase, Phase::CuttingOver);
    let event = Event::Report(Report {
        agent,
        epoch: cutting.epoch,
        phase: PhaseKind::CatchingUp,
        progress: Box::default(),
        failure: Some(Failure::new(ErrorCode::NotReady, "the lag is 40 s")),
        lease_seconds: 20,
        window_seconds: 60,
    });
    let (back, _) = apply_event(&cutting, event, NOW).expect("holds the lease");
    assert_eq!((back.phase.kind(), back.directive(agent, back.epoch)), (PhaseKind::CatchingUp, Directive::Run));
}
