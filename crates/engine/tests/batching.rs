//! Changes that are gathered while others are being written.

use crate::support::{Pair, Run, hold_reads, settings};
use bson::{Document, doc};
use limosa_engine::Metrics;
use limosa_model::{AgentId, PhaseKind};
use limosa_testkit::compare;
use mongodb::Client;
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::time::Duration;

/// How many changes of documents were taken up.
fn updates(metrics: &Metrics) -> u64 {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("encodes");
    let of = |line: &str| line.strip_prefix("change_events_total{kind=\"update\"} ")?.parse().ok();
    text.lines().find_map(of).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_keep_their_order_when_changes_wait_behind_a_document_that_is_read_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let collection = from.database("order").collection::<Document>("c");
    collection.insert_one(doc! {"_id": 1, "deep": {"n": 0}, "c": 0}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    hold_reads(&from, "order.c", true).await;
    // The first can only be applied by reading the document again, which sees the others' result.
    let one = doc! {"_id": 1};
    for (n, change) in
        [doc! {"$set": {"deep.n": 1}}, doc! {"$unset": {"c": ""}}, doc! {"$set": {"c": 1}}, doc! {"$set": {"d": 1}}]
            .into_iter()
            .enumerate()
    {
        collection.update_one(one.clone(), change).await.expect("updates");
        let taken_up = async {
            while updates(&settings.metrics) <= n as u64 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), taken_up).await.expect("changes are gathered meanwhile");
    }
    hold_reads(&from, "order.c", false).await;
    assert_eq!(run.cut_over().await.documents_repaired, 0, "they came in another order");
    compare(&from, &to, &["order"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_midst_of_others_transactions_is_waited_out() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let collection = from.database("midst").collection::<Document>("c");
    let documents: Vec<Document> = (0..1_000).map(|n| doc! {"_id": n, "n": 0}).collect();
    collection.insert_many(documents).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let refuse = |mode: &str| {
        doc! {"configureFailPoint": "failCommand", "mode": mode, "data": {
            "failCommands": ["commitTransaction"], "errorCode": 13,
        }}
    };
    for round in 1..=4 {
        // The first lane whose commit is refused for good ends the others where they are, one of them in a transaction
        // with some luck.
        to.database("admin").run_command(refuse("alwaysOn")).await.expect("the server has this failpoint");
        collection.update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.expect("updates");
        run.wait_until(|report| report.progress.waiting.is_some()).await;
        to.database("admin").run_command(refuse("off")).await.expect("the server has this failpoint");
        run.count(|progress| progress.events_applied >= round * 1_000 && progress.waiting.is_none()).await;
    }
    run.cut_over().await;
    compare(&from, &to, &["midst"]).await.expect("equal");
}

/// A reply of the source is larger than a window: it is applied in parts, and the place that is noted may be within it.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_the_middle_of_a_reply_is_succeeded_without_loss() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let collection = from.database("within").collection("c");
    collection.insert_one(doc! {"_id": -1}).await.expect("inserts");
    let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let mut settings = settings(&source, &destination, dirs[0].path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let checkpoint = to.database("__limosa").collection::<Document>("migrations");
    let payload = "p".repeat(16 * 1024);
    // What was written while nobody read comes in the largest replies, and commits are so slow that the place is noted
    // between two windows of one. Then the engine dies once more, and continues once on the same disk, once on another,
    // which has nothing but the place that was noted.
    for (round, dir) in (0..).zip(&dirs) {
        run.kill().await;
        for first in (0..4_000).step_by(1_000).map(|first| round * 4_000 + first) {
            let some: Vec<Document> = (first..first + 1_000).map(|n| doc! {"_id": n, "p": &payload}).collect();
            collection.insert_many(some).await.expect("inserts");
        }
        slow_commits(&to, true).await;
        settings.epoch = settings.epoch.next();
        run = Run::start(&settings);
        let within = async {
            while !checkpoint
                .find_one(doc! {})
                .await
                .expect("reads")
                .is_some_and(|noted| noted.get_i64("index").is_ok_and(|index| index > 0))
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), within).await.expect("a place within a reply is noted");
        run.kill().await;
        slow_commits(&to, false).await;
        settings.data_dir = dir.path().to_owned();
        settings.epoch = settings.epoch.next();
        settings.agent_id = AgentId::generate();
        run = Run::start(&settings);
        run.reach(PhaseKind::Synced).await;
    }
    assert_eq!(run.cut_over().await.documents_repaired, 0);
    compare(&from, &to, &["within"]).await.expect("equal");
}

async fn slow_commits(to: &Client, slow: bool) {
    let failpoint = doc! {"configureFailPoint": "failCommand", "mode": if slow { "alwaysOn" } else { "off" }, "data": {
        "failCommands": ["commitTransaction"], "blockConnection": true, "blockTimeMS": 500,
    }};
    to.database("admin").run_command(failpoint).await.expect("the server has this failpoint");
}
