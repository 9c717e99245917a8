//! The destination's indexes between the copy and the cutover: what is dropped there comes again before the pause, and
//! what can't be built is known before it.

use crate::support::{Pair, Run, fail_command, hold_reads, index_names, indexes_of, settings, until};
use bson::{Document, doc};
use limosa_model::{ErrorCode, PhaseKind, cutover::RunOptions, protocol::Directive};
use limosa_testkit::{ReplicaSet, compare};

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_no_index_causes_leaves_the_indexes_alone() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let app = from.database("app");
    app.collection("c")
        .insert_many((0..100).map(|n| doc! {"_id": n, "a": n, "b": n, "t": "x"}))
        .await
        .expect("inserts");
    let indexes = doc! {"createIndexes": "c", "indexes": [
        {"key": {"a": 1}, "name": "a"}, {"key": {"a": 1, "b": 1}, "name": "ab"}, {"key": {"t": "text"}, "name": "t"},
    ]};
    app.run_command(indexes).await.expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let before = index_names(&to, "app", "c").await;
    assert_eq!(before, ["_id_", "a", "ab", "t"]);
    for code in [13, 14_031, 8_000] {
        let failing = doc! {"failCommands": ["update", "insert"], "errorCode": code};
        fail_command(&to, "alwaysOn", failing).await;
        app.collection("c").insert_one(doc! {"_id": format!("new {code}"), "a": 1, "b": 1}).await.expect("inserts");
        // Long enough for several tries.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        fail_command(&to, "off", doc! {"failCommands": ["update"]}).await;
        assert_eq!(index_names(&to, "app", "c").await, before, "code {code}");
        if code == 8_000 {
            break; // it ends the run, as no wait helps
        }
        let arrived = doc! {"_id": format!("new {code}")};
        until("the document is there", async || {
            let found = to.database("app").collection::<Document>("c").find_one(arrived.clone()).await;
            found.is_ok_and(|found| found.is_some())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_in_the_way_is_built_again_before_the_cutover() {
    let source = ReplicaSet::builder().version("5.0.4").start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    let app = from.database("app");
    app.collection("c").insert_one(doc! {"_id": 1, "a": 1, "b": 1}).await.expect("inserts");
    from.database("0hold").collection("x").insert_one(doc! {"_id": 1}).await.expect("inserts");
    hold_reads(&from, "0hold.x", true).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.tuning.copy_workers = 1;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Copying).await;
    // A document that no index over both fields takes, which then becomes one that it does.
    app.collection("c").insert_one(doc! {"_id": 2, "a": [1, 2], "b": [1, 2]}).await.expect("inserts");
    app.collection::<Document>("c").update_one(doc! {"_id": 2}, doc! {"$set": {"a": 1}}).await.expect("updates");
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1, "b": 1}, "name": "ab"}]};
    app.run_command(index).await.expect("indexes");
    hold_reads(&from, "0hold.x", false).await;
    run.reach(PhaseKind::Synced).await;
    until("the index is back", async || index_names(&to, "app", "c").await == ["_id_", "ab"]).await;
    assert_eq!(run.report().phase, PhaseKind::Synced);
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_built_while_one_of_three_members_is_down() {
    let source = ReplicaSet::start().await.expect("starts");
    let mut destination = ReplicaSet::builder().members(3).cache_gb(0.25).start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    from.database("app")
        .collection("c")
        .insert_many((0..1_000).map(|n| doc! {"_id": n, "a": n}))
        .await
        .expect("inserts");
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a"}]};
    from.database("app").run_command(index).await.expect("indexes");
    let primary = destination.primary_index().await.expect("has one");
    destination.kill((primary + 1) % 3);
    let dir = tempfile::tempdir().expect("a directory");
    let run = Run::start(&settings(&source, &destination, dir.path()));
    run.cut_over().await;
    assert_eq!(index_names(&to, "app", "c").await, ["_id_", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_the_destination_does_not_know_is_found_before_anything_is_copied() {
    let source = ReplicaSet::builder().version("4.4.2").start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let from = source.client().await;
    from.database("app").collection("c").insert_one(doc! {"_id": 1, "at": [1, 2], "b": 1}).await.expect("inserts");
    let index = doc! {"key": {"at": "geoHaystack", "b": 1}, "name": "hay", "bucketSize": 1};
    from.database("app").run_command(doc! {"createIndexes": "c", "indexes": [index]}).await.expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let findings = limosa_engine::preflight(&settings).await;
    let found = findings.iter().find(|f| f.code == ErrorCode::IndexBuildFailed);
    let found = found.unwrap_or_else(|| panic!("{findings:?}"));
    assert!(found.is_error() && found.evidence.contains("hay") && found.evidence.contains("app.c"), "{found:?}");
    // Migrated all the same: said at once, and by a rehearsal; a cutover is refused, and in the server's own words.
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    settings.steering.set(RunOptions { rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    let foreseen = rehearsal.findings.iter().find(|f| f.code == ErrorCode::IndexBuildFailed);
    assert!(foreseen.is_some_and(|f| f.is_error() && f.evidence.contains("hay")), "{rehearsal:?}");
    let failure = run.cut_over_in_vain().await;
    assert!(failure.code == ErrorCode::IndexBuildFailed && failure.message.contains("hay"), "{failure}");
    for dump in ["Error {", "kind:", "Some("] {
        assert!(!failure.message.contains(dump), "{failure}");
    }
    // What is told to be done helps at once; the stream of this source doesn't show it.
    from.database("app").run_command(doc! {"dropIndexes": "c", "index": "hay"}).await.expect("drops");
    run.order(Directive::Run);
    run.wait_until(|r| r.failure.is_none()).await;
    run.cut_over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_final_is_deferred_again_without_creating_a_collection() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let app = from.database("app");
    app.collection("u").insert_one(doc! {"_id": 1, "u": 1}).await.expect("inserts");
    let unique = doc! {"createIndexes": "u", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]};
    app.run_command(unique).await.expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    // The change of the index fails after a while.
    let failing = doc! {"failCommands": ["collMod"], "errorCode": 96, "blockConnection": true, "blockTimeMS": 3_000};
    fail_command(&to, doc! {"times": 1}, failing).await;
    run.order(Directive::CutOver);
    run.reach(PhaseKind::Finalizing).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let made = doc! {"create": "fresh", "validator": {"n": {"$gte": 0}}};
    app.run_command(made).await.expect("creates");
    let index = doc! {"createIndexes": "fresh", "indexes": [{"key": {"n": 1}, "name": "n"}]};
    app.run_command(index).await.expect("indexes");
    app.collection("fresh").insert_one(doc! {"_id": 1, "n": 1}).await.expect("inserts");
    let back = run.wait_until(|r| r.phase == PhaseKind::Synced && r.failure.is_some()).await;
    let failure = back.failure.expect("says why");
    assert_eq!(failure.code, ErrorCode::ServerError, "{failure}");
    until("the new collection is there", async || {
        let found = to.database("app").collection::<Document>("fresh").find_one(doc! {"_id": 1}).await;
        found.is_ok_and(|found| found.is_some())
    })
    .await;
    let listed = to.database("app").run_command(doc! {"listCollections": 1, "filter": {"name": "fresh"}}).await;
    let listed = listed.expect("lists").to_string();
    assert!(listed.contains("$gte"), "it was made without its options: {listed}");
    // One that is made without them is dropped when the event comes.
    let oplog = to.database("local").collection::<Document>("oplog.rs");
    let made = oplog.count_documents(doc! {"op": "c", "ns": "app.$cmd", "o.create": "fresh"}).await.expect("counts");
    assert_eq!(made, 1, "it was made before its event came");
    let u = indexes_of(&to, "app", "u").await.pop().expect("has two");
    assert!(!u.get_bool("unique").unwrap_or(false) && !u.get_bool("prepareUnique").unwrap_or(false), "{u}");
}
