//! The verifier spares the source as the copy does: within the same bound, and from the same member.

use crate::support::{Pair, Run, metric, settings};
use bson::{Document, doc};
use limosa_model::{Limits, PhaseKind, cutover::RunOptions};
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;
use std::time::{Duration, Instant};

async fn fill(client: &Client, megabytes: i32) {
    let payload = "p".repeat(10_000);
    let all: Vec<Document> = (0..megabytes * 100).map(|n| doc! {"_id": n, "p": &payload}).collect();
    client.database("app").collection("c").insert_many(all).await.expect("inserts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_over_the_source_keeps_to_its_bound_and_a_cutover_does_not_wait_for_it() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, 6).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    // A megabyte a second: the reads of one pass take six seconds, and its rest more.
    let slow = Limits { max_source_read_mbps: Some(8), ..Limits::default() };
    settings.steering.set(RunOptions { limits: slow, ..RunOptions::default() });
    let passes = run.report().progress.verification_passes;
    run.count(|p| p.verification_passes > passes).await;
    // One may have been under way when the bound was set.
    let began = Instant::now();
    run.count(|p| p.verification_passes > passes + 1).await;
    assert!(began.elapsed() >= Duration::from_secs(6), "a pass took {:?}", began.elapsed());
    let progress = run.cut_over().await;
    assert!(progress.write_pause_millis.is_some_and(|pause| pause < 15_000), "{progress:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

/// Documents that a member has returned since it began.
async fn returned(member: &Client) -> i64 {
    metric(member, &["document", "returned"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_read_from_a_secondary_where_the_copy_does() {
    let source = ReplicaSet::builder().members(3).start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    let all: Vec<Document> = (0..20_000).map(|n| doc! {"_id": n, "n": 0}).collect();
    from.database("app").collection("c").insert_many(all).await.expect("inserts");
    let primary = source.primary_index().await.expect("is one");
    let primary = source.direct(primary).await.expect("connects");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.tuning.copy_reads = limosa_engine::tuning::ReadFrom::Secondary;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let (before, passes) = (returned(&primary).await, run.report().progress.verification_passes);
    // Changes continue meanwhile: a member that is behind must not make them look like mismatches.
    let mut n = 0;
    while run.report().progress.verification_passes < passes + 2 {
        n += 1;
        let some = doc! {"_id": {"$lt": 200}};
        let update = doc! {"$set": {"n": n}};
        from.database("app").collection::<Document>("c").update_many(some, update).await.expect("updates");
    }
    let read = returned(&primary).await - before;
    // The stream is read there, and each secondary reads the oplog: three for each document that was updated.
    assert!(read < 600 * n + 20_000, "the primary returned {read} documents after {n} updates");
    let progress = run.cut_over().await;
    assert_eq!(progress.documents_repaired, 0, "{progress:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}
