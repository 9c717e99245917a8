//! How much a migration takes of its clusters.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use limosa_model::{Limits, PhaseKind, cutover::RunOptions};
use limosa_testkit::{ReplicaSet, compare};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_is_kept_and_takes_effect_while_it_runs() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let payload = "p".repeat(1000);
    // Ten megabytes: eighty seconds at one megabit a second.
    let documents: Vec<Document> = (0..10_000).map(|n| doc! {"_id": n, "payload": &payload}).collect();
    from.database("slow").collection("c").insert_many(documents).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let slow = Limits { max_destination_write_mbps: Some(1), ..Limits::default() };
    let settings = settings(&source, &destination, dir.path());
    settings.steering.set(RunOptions { limits: slow, ..RunOptions::default() });
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Copying).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let copied = to.database("slow").collection::<Document>("c").count_documents(doc! {}).await.expect("counts");
        // What is under way when the bound is reached comes on top: two batches of a megabyte, and one being read.
        let most = 3_000 + (began.elapsed().as_secs_f64() * 125.0) as u64 + 1_000;
        assert!(copied <= most, "{copied} documents of a kilobyte after {:?}", began.elapsed());
    }
    assert_eq!(run.report().phase, PhaseKind::Copying);
    settings.steering.set(RunOptions::default());
    run.cut_over().await;
    assert!(began.elapsed() < Duration::from_secs(60), "the bound was not lifted: {:?}", began.elapsed());
    compare(&from, &to, &["slow"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_may_read_from_a_secondary_and_misses_nothing() {
    let source = ReplicaSet::builder().members(3).start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    let documents: Vec<Document> = (0..5_000).map(|n| doc! {"_id": n}).collect();
    from.database("aside").collection("c").insert_many(documents).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.tuning.copy_reads = limosa_engine::tuning::ReadFrom::Secondary;
    Run::start(&settings).cut_over().await;
    compare(&from, &to, &["aside"]).await.expect("equal");
}
