//! An engine that dies at each place where that would hurt, and another that goes on.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use limosa_engine::{Settings, failpoint};
use limosa_model::{PhaseKind, protocol::Directive};
use limosa_testkit::{ReplicaSet, compare, workload::Workload};
use mongodb::Client;

async fn seed(client: &Client, db: &str) {
    let payload = "p".repeat(400);
    for name in ["alpha", "beta"] {
        let documents: Vec<Document> =
            (0..6_000).map(|n| doc! {"_id": format!("seed-{n}"), "u": n, "payload": &payload}).collect();
        client.database(db).collection(name).insert_many(documents).await.expect("inserts");
        let indexes = doc! {"createIndexes": name, "indexes": [
            {"key": {"u": 1}, "name": "u_1", "unique": true, "partialFilterExpression": {"u": {"$exists": true}}},
            {"key": {"n": 1}, "name": "n_1"},
        ]};
        client.database(db).run_command(indexes).await.expect("indexes");
    }
    // So that no definition is in the stream but those of the test.
    client.database(db).create_collection("gamma").await.expect("creates");
    for name in ["old", "renamed"] {
        client.database(db).collection(name).insert_one(doc! {"_id": name}).await.expect("inserts");
    }
    client.database(db).run_command(doc! {"create": "ring", "capped": true, "size": 4096}).await.expect("creates");
    let documents: Vec<Document> = (0..100).map(|n| doc! {"_id": n, "payload": "x".repeat(50)}).collect();
    client.database(db).collection("ring").insert_many(documents).await.expect("inserts");
}

/// Runs until `name` is reached, lets the engine die there, and sees the migration through with another.
async fn dies_at(name: &'static str, source: &ReplicaSet, destination: &ReplicaSet) {
    let (from, to) = (source.client().await, destination.client().await);
    let db = format!("hazard_{}", name.replace(' ', "_"));
    seed(&from, &db).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(source, destination, dir.path());
    settings.filter.include = vec![format!("{db}.*").parse().expect("a pattern")];
    let scope = match name {
        failpoint::INDEXES_BUILT | failpoint::UNIQUE_PREPARED => format!("{db}.beta"),
        _ => settings.migration_id.to_string(),
    };
    let armed = failpoint::arm(name, scope);
    let writers = Workload::start(&from, &db, 3, 2);
    let mut run = Run::start(&settings);
    if [failpoint::UNIQUE_PREPARED, failpoint::CUT_OVER].contains(&name) {
        run.reach(PhaseKind::Synced).await;
        let acknowledged = writers.stop(&db).await.expect("writes");
        run.order(Directive::CutOver);
        armed.reached().await;
        run.kill().await;
        settings.epoch = settings.epoch.next();
        let run = Run::start(&settings);
        finish(run, &settings, &from, &to, &db, acknowledged).await;
        return;
    }
    if [failpoint::INTENT_NOTED, failpoint::DEFINITION_APPLIED].contains(&name) {
        run.reach(PhaseKind::Synced).await;
        let rename = doc! {"renameCollection": format!("{db}.old"), "to": format!("{db}.renamed"), "dropTarget": true};
        from.database("admin").run_command(rename).await.expect("renames");
    }
    tokio::time::timeout(std::time::Duration::from_secs(60), armed.reached())
        .await
        .unwrap_or_else(|_| panic!("never came to {name:?}, is at {:?}", run.report()));
    run.kill().await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let acknowledged = writers.stop(&db).await.expect("writes");
    finish(run, &settings, &from, &to, &db, acknowledged).await;
}

async fn finish(
    run: Run,
    settings: &Settings,
    from: &Client,
    to: &Client,
    db: &str,
    acknowledged: limosa_testkit::workload::Acknowledged,
) {
    run.cut_over().await;
    acknowledged.check(from).await.expect("the source has what it acknowledged");
    acknowledged.check(to).await.expect("acknowledged writes are there");
    compare(from, to, &[db]).await.unwrap_or_else(|e| panic!("{db} ({}): {e}", settings.migration_id));
    from.database(db).drop().await.expect("drops");
    to.database(db).drop().await.expect("drops");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_at_a_hazard_is_succeeded_without_loss() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    for name in failpoint::ALL {
        eprintln!("dies at: {name}");
        dies_at(name, &source, &destination).await;
    }
}

/// A range of the copy that is marked is not copied again.
#[tokio::test(flavor = "multi_thread")]
async fn only_ranges_in_flight_are_copied_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    for n in 0..30 {
        let documents: Vec<Document> = (0..2_000).map(|i| doc! {"_id": i, "n": n}).collect();
        from.database("ranges").collection(&format!("c{n}")).insert_many(documents).await.expect("inserts");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let done = async || {
        let filter = doc! {"_id.migration": settings.migration_id.to_string(), "done": true};
        to.database("__limosa").collection::<Document>("ranges").count_documents(filter).await.expect("counts")
    };
    let run = Run::start(&settings);
    let began = std::time::Instant::now();
    while done().await < 10 {
        assert!(began.elapsed().as_secs() < 60, "the copy never came to ten ranges");
    }
    run.kill().await;
    let kept = done().await;
    let filter = doc! {"_id.migration": settings.migration_id.to_string(), "done": true};
    let once = |d: &Document| d.get_i32("confirmed").unwrap_or(0);
    settings.epoch = settings.epoch.next();
    let run = Run::start(&settings);
    run.cut_over().await;
    let ranges = to.database("__limosa").collection::<Document>("ranges");
    let all: Vec<Document> =
        futures::TryStreamExt::try_collect(ranges.find(filter).await.expect("reads")).await.expect("reads");
    assert_eq!(all.len(), 30);
    // Confirmed twice: written by the first engine, and again by the second.
    let twice = all.iter().filter(|d| once(d) > 1).count() as u64;
    assert!(twice <= 30 - kept && twice <= 2, "{twice} ranges were copied twice, {kept} were done");
    compare(&from, &to, &["ranges"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_lost_history_the_copy_is_made_again_and_what_is_equal_stays() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "lost").await;
    from.database("lost").collection("gone").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.order(Directive::Pause);
    assert_eq!(run.end().await, limosa_engine::Outcome::Stopped);
    // What happens now is in no oplog that is read later: the checkpoint's token is made one of long ago.
    let alpha = from.database("lost").collection::<Document>("alpha");
    alpha.delete_many(doc! {"u": {"$lt": 500}}).await.expect("deletes");
    alpha.update_many(doc! {"u": {"$lt": 1000}}, doc! {"$set": {"n": 7}}).await.expect("updates");
    alpha.insert_one(doc! {"_id": "late"}).await.expect("inserts");
    from.database("lost").collection::<Document>("gone").drop().await.expect("drops");
    from.database("lost").collection::<Document>("ring").insert_one(doc! {"_id": "r"}).await.expect("inserts");
    let id = doc! {"_id": settings.migration_id.to_string()};
    let old = doc! {"$set": {"token": {"_data": "820000000100000001292904"}, "spool": "none"}};
    to.database("__limosa").collection::<Document>("migrations").update_one(id, old).await.expect("updates");
    settings.epoch = settings.epoch.next();
    match Run::start(&settings).end().await {
        limosa_engine::Outcome::Failed(failure) => {
            assert_eq!(failure.code, limosa_model::ErrorCode::HistoryLost, "{failure}");
        }
        other => panic!("{other:?}"),
    }
    let ops = async || {
        let status = to.database("admin").run_command(doc! {"serverStatus": 1}).await.expect("answers");
        let metrics =
            status.get_document("metrics").expect("is there").get_document("document").expect("is there").clone();
        metrics.get_i64("inserted").unwrap_or(0) + metrics.get_i64("updated").unwrap_or(0)
    };
    let before = ops().await;
    settings.epoch = settings.epoch.next();
    settings.recopies = 1;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let written = ops().await - before;
    assert!(written < 2_000, "{written} documents were written where about 700 differ");
    run.cut_over().await;
    compare(&from, &to, &["lost"]).await.expect("equal");
}
