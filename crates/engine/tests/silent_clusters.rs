//! A cluster that answers nothing, or whose writes don't arrive: nothing is ready, the lag is true or unknown, and
//! `waiting` names who is to blame.

use crate::support::{Pair, Run, scraped, settings};
use bson::{Document, doc};
use limosa_engine::{EngineReport, Metrics, Outcome, Tuning};
use limosa_model::{Failure, PhaseKind, protocol::Directive};
use limosa_testkit::{Network, ReplicaSet, compare, workload::Workload};
use mongodb::Client;
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How soon what stands still is named.
const NAMED_WITHIN: Duration = Duration::from_secs(10);

async fn seed(client: &Client, db: &str) {
    let all: Vec<Document> = (0..500).map(|n| doc! {"_id": n, "n": n}).collect();
    client.database(db).collection("one").insert_many(all).await.expect("inserts");
}

async fn write(client: &Client, db: &str, id: &str) {
    let write = doc! {"insert": "one", "documents": [{"_id": id}], "writeConcern": {"w": 1}};
    client.database(db).run_command(write).await.expect("inserts");
}

fn is_held(report: &EngineReport, code: &str) -> bool {
    report.phase != PhaseKind::Synced && report.progress.waiting.as_ref().is_some_and(|w| w.code.name() == code)
}

/// Waits until it isn't ready any more and says why; panics when that takes longer than it may.
async fn is_named(run: &mut Run, code: &str) -> EngineReport {
    match tokio::time::timeout(NAMED_WITHIN, run.wait_until(|report| is_held(report, code))).await {
        Ok(report) => report,
        Err(_) => panic!("{code} was not named in time: {:?}", run.report()),
    }
}

async fn is_ready_again(run: &mut Run) {
    run.wait_until(|report| report.phase == PhaseKind::Synced && report.progress.waiting.is_none()).await;
}

fn shown_lag(metrics: &Metrics) -> Option<String> {
    let text = scraped(metrics);
    text.lines().find_map(|line| line.strip_prefix("limosa_engine_lag_seconds ")).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_stopped_is_named_and_the_lag_grows() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "stopped").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    destination.stop(0);
    write(&from, "stopped", "while it is stopped").await;
    let named = is_named(&mut run, "DESTINATION_UNREACHABLE").await;
    let before = named.progress.lag_seconds.expect("the source is measured");
    // The source is written to no more: what isn't applied gets older all the same.
    run.count(|p| p.lag_seconds.is_some_and(|lag| lag >= before + 3)).await;
    destination.resume(0);
    is_ready_again(&mut run).await;
    run.cut_over().await;
    compare(&from, &to, &["stopped"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_stopped_is_named_and_a_cutover_is_refused_meanwhile() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "gone").await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    source.stop(0);
    let named = is_named(&mut run, "SOURCE_UNREACHABLE").await;
    assert_eq!(named.progress.lag_seconds, None, "nobody can know it");
    assert!(shown_lag(&settings.metrics).is_none_or(|lag| lag == "NaN"), "{:?}", shown_lag(&settings.metrics));
    // An order that comes too late is heard, and answered.
    run.order(Directive::CutOver);
    let refused = run.wait_until(|report| report.failure.is_some()).await;
    assert_ne!(refused.phase, PhaseKind::Synced);
    assert_eq!(refused.failure.map(|failure| failure.code.name()), Some("SOURCE_UNREACHABLE"));
    run.order(Directive::Run);
    source.resume(0);
    is_ready_again(&mut run).await;
    run.cut_over().await;
    compare(&from, &to, &["gone"]).await.expect("equal");
}

/// The server answers everything but the change stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_stream_that_is_silent_is_named() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "mute").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let block = doc! {
        "failCommands": ["getMore", "aggregate"], "blockConnection": true, "blockTimeMS": 30_000, "appName": "limosa",
    };
    let admin = from.database("admin");
    admin
        .run_command(doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": block})
        .await
        .expect("is set");
    write(&from, "mute", "unheard").await;
    let named = is_named(&mut run, "SOURCE_STREAM_SILENT").await;
    let before = named.progress.lag_seconds.expect("the source says what it has");
    run.count(|p| p.lag_seconds.is_some_and(|lag| lag >= before + 3)).await;
    admin.run_command(doc! {"configureFailPoint": "failCommand", "mode": "off"}).await.expect("is set");
    is_ready_again(&mut run).await;
    run.cut_over().await;
    compare(&from, &to, &["mute"]).await.expect("equal");
}

/// Primary, secondary and arbiter, the secondary down: what is written is acknowledged, and no change stream shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_majority_that_stands_still_is_named_and_nothing_is_ready() {
    let (source, destination) = tokio::join!(ReplicaSet::builder().members(3).arbiter().start(), ReplicaSet::start());
    let (mut source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "held").await;
    let primary = source.primary_index().await.expect("has a primary");
    let secondary = 1 - primary;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    source.kill(secondary);
    write(&from, "held", "acknowledged by one").await;
    let named = is_named(&mut run, "SOURCE_MAJORITY_STALLED").await;
    let before = named.progress.lag_seconds.expect("is measured by the newest write");
    run.count(|p| p.lag_seconds.is_some_and(|lag| lag >= before + 5)).await;
    // A run that begins meanwhile isn't ready either, however often it looks.
    run.kill().await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    is_named(&mut run, "SOURCE_MAJORITY_STALLED").await;
    assert!(shown_lag(&settings.metrics).is_some_and(|lag| lag != "0"), "{:?}", shown_lag(&settings.metrics));
    source.restart(secondary).await.expect("comes back");
    is_ready_again(&mut run).await;
    run.cut_over().await;
    compare(&from, &to, &["held"]).await.expect("equal");
}

/// A cluster's files are put back: what was read of it since isn't there any more.
async fn put_back(set: &mut ReplicaSet, saved: &Path) {
    set.kill(0);
    let files = set.files(0);
    std::fs::remove_dir_all(&files).expect("removes");
    copy(saved, &files);
    set.restart(0).await.expect("comes back");
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("runs");
    assert!(done.success());
}

/// A source, and where its files of some time ago are.
async fn with_a_backup(db: &str) -> (Pair, tempfile::TempDir) {
    let mut pair = Pair::start().await;
    seed(&pair.from, db).await;
    let backup = tempfile::tempdir().expect("a directory");
    pair.source.kill(0);
    copy(&pair.source.files(0), &backup.path().join("files"));
    pair.source.restart(0).await.expect("comes back");
    pair.from = pair.source.client().await;
    write(&pair.from, db, "not in the backup").await;
    (pair, backup)
}

fn is_rewound(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.code.name() == "SOURCE_REWOUND")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_files_were_put_back_between_two_runs_is_refused() {
    let (mut pair, backup) = with_a_backup("rewound").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&pair.source, &pair.destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    // Until the checkpoint knows.
    tokio::time::sleep(Duration::from_secs(3)).await;
    run.kill().await;
    put_back(&mut pair.source, &backup.path().join("files")).await;
    // By now its newest write is later than all that was read of it.
    write(&pair.source.client().await, "rewound", "of another history").await;
    settings.epoch = settings.epoch.next();
    let outcome = Run::start(&settings).end().await;
    assert!(is_rewound(&outcome), "{outcome:?}");
    // The copy can be made again.
    settings.epoch = settings.epoch.next();
    settings.recopies = 1;
    Run::start(&settings).cut_over().await;
    compare(&pair.source.client().await, &pair.to, &["rewound"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_files_are_put_back_during_a_run_is_noticed() {
    let (mut pair, backup) = with_a_backup("back").await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&pair.source, &pair.destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    put_back(&mut pair.source, &backup.path().join("files")).await;
    write(&pair.source.client().await, "back", "of another history").await;
    let outcome = run.end().await;
    assert!(is_rewound(&outcome), "{outcome:?}");
}

/// However many parts meet an outage, it is waited for once and reported once.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_charged_once_against_the_patience() {
    let source = ReplicaSet::builder().proxied().start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let from = source.client().await;
    seed(&from, "once").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let patience = Duration::from_secs(20);
    settings.tuning = Tuning { patience, ..Tuning::default() };
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    source.proxy(0).set(Network::Cut);
    let began = Instant::now();
    let Outcome::Failed(Failure { message, .. }) = run.end().await else { panic!("it can't continue") };
    let took = began.elapsed();
    assert_eq!(message.matches("still failing after").count(), 1, "{message}");
    assert!(patience <= took && took < patience * 2, "{took:?}: {message}");
}

/// More is written to the source than the way to the destination carries.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_the_destination_cannot_follow_is_said_with_both_rates() {
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let from = source.client().await;
    seed(&from, "load").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    destination.proxy(0).set(Network::Narrow(Duration::from_millis(1), 20_000));
    let writers = Workload::start(&from, "load", 3, 2);
    let told = |report: &EngineReport| {
        let progress = &report.progress;
        is_held(report, "DESTINATION_TOO_SLOW")
            && progress.applied_events_per_second < progress.source_events_per_second
    };
    let told = run.wait_until(told).await.progress;
    let (read, applied) = (told.source_events_per_second, told.applied_events_per_second);
    let (Some(read), Some(applied)) = (read, applied) else { panic!("no rates: {told:?}") };
    let message = told.waiting.expect("waits").message;
    let rates = format!("{read} changes a second are read from the source, {applied} a second are applied");
    assert!(message.contains(&rates), "{message}");
    destination.proxy(0).set(Network::Whole);
    writers.stop("load").await.expect("writes");
    is_ready_again(&mut run).await;
    run.cut_over().await;
}
