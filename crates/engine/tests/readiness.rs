//! When a migration may be called ready: once little is left for the verifier to look at, and everything was compared.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use limosa_model::{ErrorCode, PhaseKind, Progress, protocol::Directive};
use limosa_testkit::compare;
use mongodb::{Client, Collection};
use std::time::Duration;

/// More documents than may be left to look at when a migration is ready.
const MANY: i32 = 60_000;

fn collection(client: &Client, name: &str) -> Collection<Document> {
    client.database("app").collection(name)
}

async fn fill(client: &Client, name: &str, documents: i32, bytes: usize) {
    let payload = "p".repeat(bytes);
    let all: Vec<Document> = (0..documents).map(|n| doc! {"_id": n, "n": 0, "p": &payload}).collect();
    collection(client, name).insert_many(all).await.expect("inserts");
}

/// Commands of the engine alone are treated so, those on `ns` alone if it is given.
async fn fail(client: &Client, mode: impl Into<bson::Bson>, commands: &[&str], ns: Option<&str>, how: Document) {
    let mut data = doc! {"failCommands": commands, "appName": "limosa"};
    data.extend(ns.map(|ns| ("namespace".to_owned(), ns.into())));
    data.extend(how);
    let command = doc! {"configureFailPoint": "failCommand", "mode": mode.into(), "data": data};
    client.database("admin").run_command(command).await.expect("the server has this failpoint");
}

async fn heal(client: &Client) {
    let command = doc! {"configureFailPoint": "failCommand", "mode": "off"};
    client.database("admin").run_command(command).await.expect("the server has this failpoint");
}

/// Waits until a command of the engine on `coll` is under way.
async fn under_way(client: &Client, command: &str, coll: &str) {
    let field = format!("command.{command}");
    let filter = doc! {"currentOp": 1, field: coll, "appName": "limosa"};
    loop {
        let reply = client.database("admin").run_command(filter.clone()).await.expect("tells");
        if reply.get_array("inprog").is_ok_and(|all| !all.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_updates_of_the_same_documents_is_looked_at_once_each_and_before_it_is_ready() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "hot", MANY, 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.kill().await;
    for _ in 0..2 {
        let all = collection(&from, "hot").update_many(doc! {}, doc! {"$inc": {"n": 1}}).await.expect("updates");
        assert_eq!(all.modified_count, MANY as u64);
    }
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    let mut most = 0;
    let mut seen = |p: &Progress| {
        most = most.max(p.documents_dirty);
        false
    };
    let ready = loop {
        let report = run.report();
        seen(&report.progress);
        if report.phase == PhaseKind::Synced {
            break report;
        }
        tokio::time::timeout(Duration::from_millis(200), run.wait_until(|r| r.phase == PhaseKind::Synced)).await.ok();
    };
    assert!(most <= MANY as u64, "{most} entries for {MANY} documents");
    assert!(most > 0, "nothing was ever dirty");
    assert!(ready.progress.documents_dirty <= 40_000, "ready with {} to look at", ready.progress.documents_dirty);
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_renamed_while_it_is_to_be_compared_is_compared_under_its_new_name() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "a", 500, 100).await;
    fill(&from, "moved", 500, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::BuildingIndexes).await;
    // The verifier reads the first collection for some seconds.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 6000};
    fail(&from, "alwaysOn", &["find"], Some("app.a"), slow).await;
    let spoilt = collection(&to, "moved").delete_one(doc! {"_id": 7}).await.expect("deletes");
    assert_eq!(spoilt.deleted_count, 1);
    under_way(&from, "find", "a").await;
    let rename = doc! {"renameCollection": "app.moved", "to": "app.renamed"};
    from.database("admin").run_command(rename).await.expect("renames");
    let seen = run.wait_until(|r| r.progress.documents_repaired == 1 || r.progress.verification_passes >= 2).await;
    assert_eq!(seen.progress.documents_repaired, 1, "the pass left it out: {:?}", seen.progress);
    heal(&from).await;
    let record = run.cut_over_and_tell().await.record.expect("is told");
    let own = record.namespaces.iter().find(|own| own.verification.namespace == "app.renamed").expect("is told");
    assert_eq!(own.verification.documents_compared, 500, "{own:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_does_not_wait_for_the_verifier_to_plan_a_pass() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "c", 500, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let slow = doc! {"blockConnection": true, "blockTimeMS": 30_000};
    fail(&from, "alwaysOn", &["aggregate"], Some("app.c"), slow).await;
    under_way(&from, "aggregate", "c").await;
    let progress = run.cut_over().await;
    heal(&from).await;
    assert!(progress.write_pause_millis.is_some_and(|pause| pause < 20_000), "{progress:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_goes_while_a_cutover_compares_takes_it_back_to_ready() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "a", 500, 100).await;
    fill(&from, "gone", 500, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let slow = doc! {"blockConnection": true, "blockTimeMS": 4000};
    fail(&from, "alwaysOn", &["count"], Some("app.gone"), slow).await;
    run.order(Directive::CutOver);
    under_way(&from, "count", "gone").await;
    collection(&from, "gone").drop().await.expect("drops");
    let report = run.wait_until(|r| r.failure.is_some()).await;
    let failure = report.failure.expect("is told");
    assert_eq!((report.phase, failure.code), (PhaseKind::Synced, ErrorCode::SourceWrittenDuringCutover), "{failure}");
    heal(&from).await;
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_the_verifier_meets_is_told_and_waited_out() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "c", 500, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    // OperationFailed, which nothing else takes for passing by itself.
    fail(&from, "alwaysOn", &["find"], Some("app.c"), doc! {"errorCode": 96}).await;
    let told = run.wait_until(|r| r.progress.waiting.is_some()).await;
    let waiting = told.progress.waiting.expect("is told");
    assert!(waiting.message.contains("96") || waiting.message.contains("verif"), "{}", waiting.message);
    heal(&from).await;
    let passes = run.report().progress.verification_passes;
    run.count(|p| p.waiting.is_none() && p.verification_passes > passes).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_the_server_refuses_is_no_failure_and_the_copy_is_cut_otherwise() {
    let Pair { source, destination, from, to } = Pair::start().await;
    for first in (0..800).step_by(100) {
        let payload = "p".repeat(100_000);
        let all: Vec<Document> = (first..first + 100).map(|n| doc! {"_id": n, "p": &payload}).collect();
        collection(&from, "c").insert_many(all).await.expect("inserts");
    }
    let dir = tempfile::tempdir().expect("a directory");
    // The first one asks for the size.
    fail(&from, doc! {"skip": 1}, &["aggregate"], Some("app.c"), doc! {"errorCode": 28799}).await;
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Copying).await;
    let ranges = to.database("__limosa").collection::<Document>("ranges");
    let ranges = ranges.count_documents(doc! {"source": "app.c"}).await.expect("counts");
    assert_eq!(ranges, 2);
    heal(&from).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_while_a_collection_is_copied_over_what_was_there_deletes_nothing() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "c", 500, 100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.kill().await;
    settings.epoch = settings.epoch.next();
    settings.recopies = 1;
    // The second read of a range asks which documents the source still has.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 4000};
    fail(&from, doc! {"skip": 1}, &["find"], Some("app.c"), slow).await;
    let mut run = Run::start(&settings);
    // A long command is shown cut off, as text.
    let shown = doc! {"currentOp": 1, "appName": "limosa"};
    while !from.database("admin").run_command(shown.clone()).await.expect("tells").to_string().contains("$in") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rename = doc! {"renameCollection": "app.c", "to": "app.d"};
    from.database("admin").run_command(rename).await.expect("renames");
    run.reach(PhaseKind::Synced).await;
    heal(&from).await;
    let seen = run.count(|p| p.verification_passes >= 2 || p.documents_repaired > 0).await;
    assert_eq!(seen.documents_repaired, 0, "{seen:?}");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}
