//! Disks that fill up or turn read-only, on the agent and on the destination, and a certificate that expires: it waits,
//! says what for, and continues when that is fixed.

use crate::support::{Pair, Run, settings};
use bson::{Binary, doc, spec::BinarySubtype};
use limosa_engine::{Outcome, Tuning};
use limosa_model::{ErrorCode, PhaseKind, protocol::Directive};
use limosa_testkit::{Network, ReplicaSet, compare, disk::SmallDisk};
use mongodb::Client;
use std::time::{Duration, Instant};

/// A megabyte of what nothing can compress, under each of `numbers`.
async fn write(client: &Client, db: &str, numbers: std::ops::Range<i32>) {
    for n in numbers {
        let mut bytes = vec![0; 1024 * 1024];
        rand::fill(bytes.as_mut_slice());
        let payload = Binary { subtype: BinarySubtype::Generic, bytes };
        client.database(db).collection("c").insert_one(doc! {"_id": n, "payload": payload}).await.expect("inserts");
    }
}

fn small_memory() -> Tuning {
    Tuning { spool_memory_bytes: 1024 * 1024, spool_disk_bytes: 16 * 1024 * 1024, ..Tuning::default() }
}

impl Run {
    async fn waits_for(&mut self, codes: &[ErrorCode]) {
        let waits = self.wait_until(|r| r.progress.waiting.as_ref().is_some_and(|w| codes.contains(&w.code))).await;
        assert!(waits.progress.waiting.is_some_and(|w| !w.message.is_empty()));
    }

    async fn goes_on(&mut self) {
        self.wait_until(|report| report.progress.waiting.is_none() && report.phase == PhaseKind::Synced).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_pauses_the_reader_until_the_destination_has_caught_up() {
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    write(&from, "spool", 0..2).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.tuning = small_memory();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    destination.proxy(0).set(Network::Cut);
    write(&from, "spool", 2..50).await;
    run.waits_for(&[ErrorCode::SpoolFull]).await;
    let waiting = run.report().progress.spool_bytes;
    assert!(waiting < 3 * settings.tuning.spool_disk_bytes, "{waiting} bytes wait");
    destination.proxy(0).set(Network::Whole);
    run.goes_on().await;
    run.cut_over().await;
    compare(&from, &to, &["spool"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_agent_is_waited_out() {
    let Some(disk) = SmallDisk::mount(96).expect("a mount point") else { return };
    let Pair { source, destination, from, to } = Pair::start().await;
    write(&from, "full", 0..2).await;
    let mut settings = settings(&source, &destination, disk.path());
    settings.tuning = small_memory();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    disk.fill().expect("fills");
    write(&from, "full", 2..30).await;
    run.waits_for(&[ErrorCode::LocalStorage]).await;
    disk.free().expect("frees");
    run.goes_on().await;
    run.cut_over().await;
    compare(&from, &to, &["full"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_of_the_agent_is_waited_out() {
    let Some(disk) = SmallDisk::mount(96).expect("a mount point") else { return };
    let Pair { source, destination, from, to } = Pair::start().await;
    write(&from, "readonly", 0..2).await;
    let mut settings = settings(&source, &destination, disk.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.order(Directive::Pause);
    assert_eq!(run.end().await, Outcome::Stopped);
    // Whatever the engine had open is closed a moment after it has ended.
    let began = Instant::now();
    while let Err(error) = disk.set_read_only(true) {
        assert!(began.elapsed().as_secs() < 10, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.waits_for(&[ErrorCode::LocalStorage]).await;
    write(&from, "readonly", 2..4).await;
    disk.set_read_only(false).expect("is writable");
    run.goes_on().await;
    run.cut_over().await;
    compare(&from, &to, &["readonly"]).await.expect("equal");
}

/// A server whose disk is full ends itself; with room again, and started again, it continues where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_destination_is_waited_out() {
    let Some(disk) = SmallDisk::mount(480).expect("a mount point") else { return };
    let source = ReplicaSet::start().await.expect("starts");
    let mut destination = ReplicaSet::builder().dir(disk.path()).start().await.expect("starts");
    let from = source.client().await;
    write(&from, "full", 0..2).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    disk.fill().expect("fills");
    write(&from, "full", 2..60).await;
    let direct = destination.direct(0).await.expect("connects");
    // The next checkpoint of the server would come within a minute.
    let _ = direct.database("admin").run_command(doc! {"fsync": 1}).await;
    run.waits_for(&[ErrorCode::DestinationUnreachable, ErrorCode::DestinationNotWritable]).await;
    disk.free().expect("frees");
    destination.restart(0).await.expect("comes back");
    run.goes_on().await;
    run.cut_over().await;
    let to = destination.client().await;
    compare(&from, &to, &["full"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_of_the_destination_is_waited_out() {
    let life = Duration::from_secs(25);
    let source = ReplicaSet::start().await.expect("starts");
    let began = Instant::now();
    let mut destination = ReplicaSet::builder().tls_for(life).start().await.expect("starts");
    let from = source.client().await;
    write(&from, "expired", 0..2).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    assert!(began.elapsed() < life, "this machine is too slow for a certificate of {life:?}");
    // What is connected stays so, and a session that is taken up again isn't looked at either: an agent that was
    // restarted knows none.
    run.kill().await;
    tokio::time::sleep(life.saturating_sub(began.elapsed()) + Duration::from_secs(1)).await;
    write(&from, "expired", 2..4).await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.waits_for(&[ErrorCode::DestinationUnreachable]).await;
    let told = run.report().progress.waiting.map(|w| w.message).unwrap_or_default();
    assert!(told.contains("certificate") && told.contains("xpired"), "{told}");
    destination.renew_certificate().expect("is replaced");
    destination.restart(0).await.expect("comes back");
    run.goes_on().await;
    run.cut_over().await;
    let to = destination.client().await;
    compare(&from, &to, &["expired"]).await.expect("equal");
}
