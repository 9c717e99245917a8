//! What expires by itself: on the destination nothing does before the cutover is through.

use crate::support::{Pair, Run, fail_command, index_names, indexes_of, metric, settings, until};
use bson::{Document, doc};
use limosa_engine::failpoint;
use limosa_model::{ErrorCode, PhaseKind, cutover::RunOptions, protocol::Directive};
use limosa_testkit::ReplicaSet;
use mongodb::Client;

async fn set_parameter(client: &Client, name: &str, value: impl Into<bson::Bson>) {
    let command = doc! {"setParameter": 1, name: value.into()};
    client.database("admin").run_command(command).await.expect("sets");
}

/// How often the server has looked for what expired.
async fn passes(client: &Client) -> i64 {
    metric(client, &["ttl", "passes"]).await
}

/// The option `expireAfterSeconds` of a collection.
async fn expiry_of(client: &Client, coll: &str) -> Option<bson::Bson> {
    let listed = client.database("app").run_command(doc! {"listCollections": 1, "filter": {"name": coll}}).await;
    let listed = listed.expect("lists");
    let batch = listed.get_document("cursor").expect("is there").get_array("firstBatch").expect("is there");
    let entry = batch[0].as_document().expect("a document");
    entry.get_document("options").expect("is there").get("expireAfterSeconds").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_cutover_leaves_no_expiry_on() {
    let Pair { source, destination, from, to } = Pair::start().await;
    set_parameter(&from, "ttlMonitorEnabled", false).await;
    set_parameter(&to, "ttlMonitorSleepSecs", 1).await;
    let app = from.database("app");
    let old = bson::DateTime::from_millis(limosa_model::Timestamp::now().0 - 24 * 3_600_000);
    let commands = [
        doc! {"create": "ts", "timeseries": {"timeField": "at"}, "expireAfterSeconds": 60},
        doc! {"create": "cl", "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 60},
        doc! {"createIndexes": "ttl", "indexes": [{"key": {"at": 1}, "name": "at", "expireAfterSeconds": 60}]},
        doc! {"createIndexes": "u", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]},
    ];
    for command in commands {
        app.run_command(command).await.expect("is taken");
    }
    let measured: Vec<Document> = (0..300).map(|n| doc! {"at": old, "n": n}).collect();
    app.collection("ts").insert_many(measured).await.expect("inserts");
    let millis = old.timestamp_millis();
    let by_date = (0..50).map(|n| doc! {"_id": bson::DateTime::from_millis(millis + n)});
    app.collection("cl").insert_many(by_date).await.expect("inserts");
    app.collection("ttl").insert_many((0..50).map(|n| doc! {"_id": n, "at": old})).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;

    let hold = doc! {"failCommands": ["collMod"], "blockConnection": true, "blockTimeMS": 3_000};
    fail_command(&to, doc! {"times": 1}, hold).await;
    run.order(Directive::CutOver);
    run.reach(PhaseKind::CuttingOver).await;
    run.reach(PhaseKind::Finalizing).await;
    app.collection("u").insert_one(doc! {"_id": "late"}).await.expect("inserts");
    let failure = run.reach(PhaseKind::Synced).await.failure.expect("says why");
    assert_eq!(failure.code, ErrorCode::SourceWrittenDuringCutover, "{failure}");
    assert_eq!((expiry_of(&to, "ts").await, expiry_of(&to, "cl").await), (None, None));
    let before = passes(&to).await;
    until("the destination looked for what expired", async || passes(&to).await >= before + 3).await;
    for (coll, expected) in [("ts", 300), ("cl", 50), ("ttl", 50)] {
        let left = to.database("app").collection::<Document>(coll).count_documents(doc! {}).await.expect("counts");
        assert_eq!(left, expected, "{coll}");
    }
    assert_eq!(run.report().progress.documents_repaired, 0);

    // An engine that dies in the last step leaves it on; the next one takes it back.
    set_parameter(&to, "ttlMonitorEnabled", false).await;
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    let armed = failpoint::arm(failpoint::STEPS_NOTED[5], settings.migration_id);
    run.order(Directive::CutOver);
    armed.reached().await;
    assert!(expiry_of(&to, "ts").await.is_some() && expiry_of(&to, "cl").await.is_some());
    run.kill().await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    assert_eq!((expiry_of(&to, "ts").await, expiry_of(&to, "cl").await), (None, None));

    run.cut_over().await;
    for coll in ["ts", "cl"] {
        assert!(expiry_of(&to, coll).await.is_some(), "{coll}");
    }
    let ttl = indexes_of(&to, "app", "ttl").await.pop().expect("has two");
    assert_eq!(ttl.get_i32("expireAfterSeconds").ok(), Some(60), "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_expire_are_built_on_5_0_before_the_cutover() {
    let source = ReplicaSet::builder().version("4.4.2").start().await.expect("starts");
    let destination = ReplicaSet::builder().version("5.0.4").start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    let app = from.database("app");
    let now = bson::DateTime::from_millis(limosa_model::Timestamp::now().0);
    app.collection("c")
        .insert_many((0..50).map(|n| doc! {"_id": n, "at": now, "by": now, "p": n}))
        .await
        .expect("inserts");
    let index = async |index: Document| {
        app.run_command(doc! {"createIndexes": "c", "indexes": [index]}).await.expect("indexes");
    };
    index(doc! {"key": {"at": 1}, "name": "at", "expireAfterSeconds": 3_600}).await;
    index(doc! {"key": {"by": 1}, "name": "never", "expireAfterSeconds": f64::NAN}).await;
    index(doc! {"key": {"p": 1}, "name": "p"}).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    assert_eq!(index_names(&to, "app", "c").await, ["_id_", "at", "never", "p"]);
    // It expires from now on, under its name.
    app.run_command(doc! {"dropIndexes": "c", "index": "p"}).await.expect("drops");
    index(doc! {"key": {"p": 1}, "name": "p", "expireAfterSeconds": 7_200}).await;
    settings.steering.set(RunOptions { rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    assert!(rehearsal.would_complete, "{rehearsal:?}");
    run.cut_over().await;
    let expiry = async |name: &str| {
        let all = indexes_of(&to, "app", "c").await;
        let own = all.into_iter().find(|index| index.get_str("name").is_ok_and(|own| own == name)).expect("is there");
        own.get_i32("expireAfterSeconds").map(i64::from).or_else(|_| own.get_i64("expireAfterSeconds")).ok()
    };
    assert_eq!((expiry("at").await, expiry("p").await), (Some(3_600), Some(7_200)));
    let never = expiry("never").await;
    assert!(never.is_some_and(|seconds| seconds >= 1_700_000_000), "{never:?}");
}
