//! An engine that dies and is started again.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use limosa_model::{AgentId, Epoch, PhaseKind};
use limosa_testkit::{compare, workload::Workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_goes_on_in_every_phase_and_the_old_one_is_fenced_out() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let payload = "p".repeat(500);
    for part in 0..8 {
        let documents: Vec<Document> =
            (0..10_000).map(|n| doc! {"_id": part * 10_000 + n, "payload": &payload}).collect();
        from.database("kill").collection(&format!("c{part}")).insert_many(documents).await.expect("inserts");
    }
    let writers = Workload::start(&from, "kill", 11, 3);
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    for phase in
        [PhaseKind::Copying, PhaseKind::Copying, PhaseKind::BuildingIndexes, PhaseKind::CatchingUp, PhaseKind::Synced]
    {
        let mut run = Run::start(&settings);
        run.reach(phase).await;
        run.kill().await;
        settings.epoch = settings.epoch.next();
    }
    let mut first = Run::start(&settings);
    first.reach(PhaseKind::Synced).await;
    // Another agent, with an empty disk, takes over; the first one can't write any more.
    let other = tempfile::tempdir().expect("a directory");
    let taker = limosa_engine::Settings {
        epoch: Epoch(settings.epoch.0 + 1),
        agent_id: AgentId::generate(),
        data_dir: other.path().to_owned(),
        ..settings.clone()
    };
    let run = Run::start(&taker);
    assert_eq!(first.end().await, limosa_engine::Outcome::Stopped);
    let acknowledged = writers.stop("kill").await.expect("writes");
    run.cut_over().await;
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["kill"]).await.expect("equal");
}
