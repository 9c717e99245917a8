//! Cutovers that end as ready again: on request, for a reason that passes, or because the destination refuses a view.

use crate::support::{Pair, Run, fail_command, indexes_of, settings};
use bson::doc;
use limosa_model::{
    ErrorCode, PhaseKind,
    cutover::{CutoverOptions, RunOptions},
    protocol::Directive,
};
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;
use std::time::Duration;
use tokio::time::timeout;

const BLOCK: CutoverOptions = CutoverOptions { block_source_writes: true, reversible: false };

/// Much less than what holds the cutover up.
const PROMPTLY: Duration = Duration::from_secs(20);

async fn seed(client: &Client) {
    let app = client.database("app");
    app.collection("u").insert_many((0..100).map(|n| doc! {"_id": n, "u": n})).await.expect("inserts");
    let unique = doc! {"createIndexes": "u", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]};
    app.run_command(unique).await.expect("indexes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_ends_on_request_wherever_it_is() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    settings.steering.set(RunOptions { cutover: BLOCK, ..RunOptions::default() });
    let mut run = Run::start(&settings);
    for (n, held) in ["collMod", "listCollections", "listIndexes"].into_iter().enumerate() {
        run.reach_quietly(PhaseKind::Synced).await;
        let hold = doc! {"failCommands": [held], "blockConnection": true, "blockTimeMS": 30_000};
        fail_command(&to, doc! {"times": 1}, hold).await;
        run.order(Directive::CutOver);
        run.reach(if n == 0 { PhaseKind::Finalizing } else { PhaseKind::CuttingOver }).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        settings.steering.set(RunOptions { cutover: BLOCK, abort_cutover: true, ..RunOptions::default() });
        let wanted = run.wait_until(|r| r.phase == PhaseKind::Synced && r.failure.is_some());
        let back = timeout(PROMPTLY, wanted).await.unwrap_or_else(|_| panic!("{held} holds it up"));
        assert_eq!(back.failure.map(|f| f.code), Some(ErrorCode::CutoverAborted), "{held}");
        // It has been heard.
        settings.steering.set(RunOptions { cutover: BLOCK, ..RunOptions::default() });
        run.order(Directive::Run);
        from.database("app").collection("u").insert_one(doc! {"u": -1 - n as i32}).await.expect("nothing is blocked");
        let u = indexes_of(&to, "app", "u").await.pop().expect("has two");
        assert!(!u.get_bool("unique").unwrap_or(false), "{held}: {u}");
    }
    fail_command(&to, "off", doc! {"failCommands": ["collMod"]}).await;
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_for_a_reason_that_passes_is_ready_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    // A collection that was dropped in the middle of it, and an operation that the server gave up.
    let uuid = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] };
    let gone =
        doc! {"db": "app", "collectionUUID": uuid, "expectedCollection": "u", "actualCollection": bson::Bson::Null};
    for (code, more, told) in [(361, gone, ErrorCode::CollectionLost), (96, doc! {}, ErrorCode::ServerError)] {
        let mut failing = doc! {"failCommands": ["collMod"], "errorCode": code};
        if !more.is_empty() {
            failing.insert("errorExtraInfo", more);
        }
        fail_command(&to, doc! {"times": 1}, failing).await;
        let failure = run.cut_over_in_vain().await;
        assert!(failure.code == told && failure.message.contains(&format!("code {code}")), "{failure}");
        assert!(!failure.message.contains("Error {"), "{failure}");
        run.order(Directive::Run);
        run.reach_quietly(PhaseKind::Synced).await;
    }
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_the_destination_refuses_is_rehearsed_and_named() {
    let source = ReplicaSet::builder().version("5.0.4").start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from).await;
    // An option of a regular expression that 5.0 takes and 6.0 doesn't.
    let odd = doc! {"$match": {"a": {"$regex": "x", "$options": "gz"}}};
    from.database("app").run_command(doc! {"create": "odd", "viewOn": "u", "pipeline": [odd]}).await.expect("creates");
    let plain = doc! {"create": "plain", "viewOn": "u", "pipeline": [{"$match": {"u": 1}}]};
    from.database("app").run_command(plain).await.expect("creates");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    settings.steering.set(RunOptions { rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    let refused: Vec<_> = rehearsal.findings.iter().filter(|f| f.is_error()).collect();
    assert!(refused.len() == 1 && refused[0].subject == "app.odd", "{rehearsal:?}");
    assert!(!refused[0].evidence.contains("Error {"), "{rehearsal:?}");
    let views = to.database("app").list_collection_names().await.expect("lists");
    assert!(!views.contains(&"plain".to_owned()), "a rehearsal changes nothing");
    let failure = run.cut_over_in_vain().await;
    assert!(failure.message.contains("app.odd"), "{failure}");
    from.database("app").run_command(doc! {"drop": "odd"}).await.expect("drops");
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_may_not_make_indexes_unique_is_rehearsed_and_builds_them() {
    let source = ReplicaSet::builder().version("5.0.4").start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from).await;
    let older = doc! {"setFeatureCompatibilityVersion": "5.0"};
    to.database("admin").run_command(older).await.expect("is set");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    settings.steering.set(RunOptions { rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    let foreseen = rehearsal.findings.iter().find(|f| f.code == ErrorCode::UniqueBuiltAtCutover);
    assert!(rehearsal.would_complete && foreseen.is_some(), "{rehearsal:?}");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}
