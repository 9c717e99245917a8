//! What is written to the source while its cutover is rehearsed or carried out.

use crate::support::{Pair, Run, fail_command, metric, settings, until};
use bson::{Document, doc};
use limosa_model::{ErrorCode, PhaseKind, cutover::RunOptions, protocol::Directive};
use limosa_testkit::compare;
use mongodb::Client;
use std::time::Duration;
use tokio::{task::JoinHandle, time::timeout};

/// Within this much a cutover that is refused gives up.
const PROMPTLY: Duration = Duration::from_secs(20);

async fn seed(client: &Client) {
    let documents: Vec<Document> = (0..100).map(|n| doc! {"_id": n, "list": [0, 1]}).collect();
    client.database("app").collection("c").insert_many(documents).await.expect("inserts");
}

/// Updates elements of arrays without end: no delta carries them, each document is read again from the source.
async fn update_arrays(uri: &str) -> JoinHandle<()> {
    let client = Client::with_uri_str(format!("{uri}&appName=shop")).await.expect("a client");
    tokio::spawn(async move {
        let collection = client.database("app").collection::<Document>("c");
        for n in 0_i64.. {
            let _ = collection.update_one(doc! {"_id": n % 100}, doc! {"$set": {"list.0": n}}).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_under_load_ends_and_names_the_writes_and_the_writers() {
    let Pair { source, destination, from, .. } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let writer = update_arrays(&source.uri()).await;
    run.count(|p| p.documents_refetched > 100).await;
    settings.steering.set(RunOptions { rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    writer.abort();
    assert!(!rehearsal.would_complete && rehearsal.steps.len() == 5, "{rehearsal:?}");
    let written = rehearsal.findings.iter().find(|f| f.code == ErrorCode::SourceWrittenDuringCutover);
    let written = written.unwrap_or_else(|| panic!("{rehearsal:?}"));
    assert!(written.is_error() && written.evidence.contains("app.c"), "{written:?}");
    assert!(written.evidence.contains("a second") && written.evidence.contains("shop at 127.0.0.1:"), "{written:?}");
    // With nobody writing it is quiet.
    let quiet = async |number: u32, run: &mut Run| {
        settings.steering.set(RunOptions { rehearsal: number, ..RunOptions::default() });
        run.rehearsed(number).await.findings.is_empty()
    };
    let mut number = 1;
    until("a rehearsal without writes", async || {
        number += 1;
        quiet(number, &mut run).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_gives_up_at_the_first_late_write_whatever_kind_it_is() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let writer = update_arrays(&source.uri()).await;
    run.count(|p| p.documents_refetched > 100).await;
    run.order(Directive::CutOver);
    run.reach(PhaseKind::CuttingOver).await;
    let back = timeout(PROMPTLY, run.reach(PhaseKind::Synced)).await.expect("gives up while the writer continues");
    writer.abort();
    let failure = back.failure.expect("says why");
    assert!(failure.code == ErrorCode::SourceWrittenDuringCutover && failure.message.contains("app.c"), "{failure}");
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_expire_on_the_source_are_no_late_writes() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let expiring = async |on: bool| {
        let command = doc! {"setParameter": 1, "ttlMonitorEnabled": on};
        from.database("admin").run_command(command).await.expect("sets");
    };
    let often = doc! {"setParameter": 1, "ttlMonitorSleepSecs": 1};
    from.database("admin").run_command(often).await.expect("sets");
    let passes = async || metric(&from, &["ttl", "passes"]).await;
    // A pause of a minute that began before has to end first.
    until("the source looks every second", async || passes().await >= 1).await;
    expiring(false).await;
    let app = from.database("app");
    // Half of them have expired, the others won't for a day.
    let day = 24 * 3_600_000;
    let at =
        |n: i32| bson::DateTime::from_millis(limosa_model::Timestamp::now().0 + if n % 2 == 0 { -day } else { day });
    let sessions: Vec<Document> = (0..2_000).map(|n| doc! {"_id": n, "at": at(n)}).collect();
    app.collection("sess").insert_many(sessions).await.expect("inserts");
    app.collection("u").insert_one(doc! {"_id": 1, "u": 1}).await.expect("inserts");
    for (coll, index) in [
        ("sess", doc! {"key": {"at": 1}, "name": "at", "expireAfterSeconds": 60}),
        ("u", doc! {"key": {"u": 1}, "name": "u", "unique": true}),
    ] {
        app.run_command(doc! {"createIndexes": coll, "indexes": [index]}).await.expect("indexes");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let count =
        async |filter: Document| app.collection::<Document>("sess").count_documents(filter).await.expect("counts");
    let hold = || {
        fail_command(
            &to,
            doc! {"times": 1},
            doc! {
                "failCommands": ["collMod"], "blockConnection": true, "blockTimeMS": 4_000,
            },
        )
    };

    // An application's own deletion is a late write, of what can expire too.
    hold().await;
    run.order(Directive::CutOver);
    run.reach(PhaseKind::Finalizing).await;
    app.collection::<Document>("sess").delete_one(doc! {"_id": 1}).await.expect("deletes");
    let failure = run.reach(PhaseKind::Synced).await.failure.expect("says why");
    assert!(failure.code == ErrorCode::SourceWrittenDuringCutover && failure.message.contains("app.sess"), "{failure}");
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;

    hold().await;
    run.order(Directive::CutOver);
    run.reach(PhaseKind::Finalizing).await;
    expiring(true).await;
    until("all have expired", async || count(doc! {}).await == 999).await;
    expiring(false).await;
    assert_eq!(run.report().phase, PhaseKind::Finalizing, "the cutover was not held for long enough");
    let refused = run.report().failure;
    assert_eq!(run.end().await, limosa_engine::Outcome::Complete, "{refused:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}
