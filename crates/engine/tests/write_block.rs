//! The source's writes are blocked without harm to anybody, or not at all.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use limosa_model::{
    ErrorCode, PhaseKind, Secret,
    cutover::{CutoverOptions, RunOptions},
    protocol::Directive,
};
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const BLOCK: CutoverOptions = CutoverOptions { block_source_writes: true, reversible: false };

/// Within this much a cutover that is refused is ready again.
const PROMPTLY: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_named_and_nobody_else_waits_for_it() {
    let Pair { source, destination, from, to } = Pair::start().await;
    from.database("app").collection("a").insert_many((0..10).map(|n| doc! {"_id": n})).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    settings.steering.set(RunOptions { cutover: BLOCK, ..RunOptions::default() });
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let teller = Client::with_uri_str(format!("{}&appName=teller", source.uri())).await.expect("a client");
    let mut session = teller.start_session().await.expect("a session");
    session.start_transaction().await.expect("starts");
    let accounts = teller.database("app").collection::<Document>("a");
    accounts.insert_one(doc! {"_id": "open"}).session(&mut session).await.expect("inserts");
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    settings.steering.set(RunOptions { cutover: BLOCK, rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    let foreseen = rehearsal.findings.iter().find(|f| f.code == ErrorCode::WriteBlockRefused);
    assert!(foreseen.is_some_and(|f| f.evidence.contains("teller")), "{rehearsal:?}");

    let reader = from.clone();
    let reads = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        loop {
            let began = Instant::now();
            let found = reader.database("app").collection::<Document>("a").find_one(doc! {"_id": 1}).await;
            longest = longest.max(began.elapsed());
            if longest > PROMPTLY || found.is_ok_and(|d| d.is_some_and(|d| d.contains_key("last"))) {
                return longest;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    run.order(Directive::CutOver);
    run.reach(PhaseKind::CuttingOver).await;
    let back = timeout(PROMPTLY, run.reach(PhaseKind::Synced)).await.expect("gives up");
    let failure = back.failure.expect("says why");
    assert!(failure.code == ErrorCode::WriteBlockRefused && failure.message.contains("teller"), "{failure}");
    session.abort_transaction().await.expect("aborts");
    let accounts = from.database("app").collection::<Document>("a");
    accounts.update_one(doc! {"_id": 1}, doc! {"$set": {"last": true}}).await.expect("nothing is blocked");
    let longest = reads.await.expect("ends");
    assert!(longest < Duration::from_secs(4), "a read waited for {longest:?}");
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_block_writes_is_ready_again_at_once() {
    let source = ReplicaSet::builder().auth(true).start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let from = source.client().await;
    let create = doc! {"createUser": "mover", "pwd": "mover", "roles": ["readAnyDatabase", "clusterMonitor"]};
    from.database("admin").run_command(create).await.expect("creates");
    from.database("app").collection("a").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.source_uri = Secret::new(source.uri_with(Some(("mover", "mover"))));
    settings.steering.set(RunOptions { cutover: BLOCK, ..RunOptions::default() });
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.order(Directive::CutOver);
    let back = timeout(PROMPTLY, run.wait_until(|r| r.phase == PhaseKind::Synced && r.failure.is_some()));
    let failure = back.await.expect("is ready again").failure.expect("says why");
    assert_eq!(failure.code, ErrorCode::WriteBlockRefused, "{failure}");
    assert!(failure.message.contains("setUserWriteBlockMode"), "{failure}");
    settings.steering.set(RunOptions::default());
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
}
