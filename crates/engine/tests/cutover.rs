//! The cutover: rehearsed, with the source's writes blocked, rolled back.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use limosa_engine::{Outcome, failpoint};
use limosa_model::{
    ErrorCode, PhaseKind,
    cutover::{CutoverOptions, RunOptions},
    protocol::Directive,
};
use limosa_testkit::compare;
use mongodb::Client;
use std::time::Instant;

/// With the source's writes blocked.
const BLOCK: CutoverOptions = CutoverOptions { block_source_writes: true, reversible: false };

async fn seed(client: &Client) {
    let db = client.database("app");
    for name in ["a", "b"] {
        let documents: Vec<Document> = (0..5_000).map(|n| doc! {"_id": n, "u": n, "p": "p".repeat(100)}).collect();
        db.collection(name).insert_many(documents).await.expect("inserts");
        let indexes = doc! {"createIndexes": name, "indexes": [
            {"key": {"u": 1}, "name": "u", "unique": true}, {"key": {"at": 1}, "name": "at", "expireAfterSeconds": 60},
        ]};
        db.run_command(indexes).await.expect("indexes");
    }
}

/// Writes to the source until it refuses, then to the destination until it is allowed: the pause that an application
/// sees, in milliseconds, and how many writes the source took.
async fn write_on(from: Client, to: Client) -> (u64, i32) {
    let mut written = 0;
    loop {
        let document = doc! {"_id": format!("w{written}"), "u": -1 - written};
        match from.database("app").collection("a").insert_one(document).await {
            Ok(_) => written += 1,
            Err(_) => break,
        }
    }
    let refused = Instant::now();
    // Its last document there, its index unique: the destination is what the source was.
    loop {
        let listed = to.database("app").run_command(doc! {"listIndexes": "b"}).await.map(|l| l.to_string());
        let ready = listed.is_ok_and(|l| l.contains("unique"));
        let last = doc! {"_id": format!("w{}", written - 1)};
        if ready && to.database("app").collection::<Document>("a").find_one(last).await.is_ok_and(|d| d.is_some()) {
            return (refused.elapsed().as_millis() as u64, written);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsed_cutover_blocks_the_source_and_an_application_waits_as_long_as_foreseen() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let steering = settings.steering.clone();
    let mut run = Run::start(&settings);
    let before = run.reach(PhaseKind::Synced).await;
    assert_eq!(before.rehearsal, None);
    let indexes = async || to.database("app").run_command(doc! {"listIndexes": "a"}).await.expect("lists").to_string();
    let listed = indexes().await;
    steering.set(RunOptions { cutover: BLOCK, rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    assert!(rehearsal.would_complete && rehearsal.findings.is_empty(), "{rehearsal:?}");
    let steps: Vec<&str> = rehearsal.steps.iter().map(|s| s.step.as_str()).collect();
    let all = ["1 block writes", "2 drain", "3 definitions", "4 verify", "5 finalize indexes", "6 confirm"];
    assert_eq!(steps, all);
    assert_eq!(indexes().await, listed, "a rehearsal changes nothing");
    from.database("app")
        .collection("a")
        .insert_one(doc! {"_id": "free", "u": -1_000_000})
        .await
        .expect("nothing is blocked");

    let writer = tokio::spawn(write_on(from.clone(), to.clone()));
    let progress = run.cut_over().await;
    let (pause, written) = writer.await.expect("ends");
    let (measured, foreseen) = (progress.write_pause_millis, rehearsal.predicted_pause_millis);
    eprintln!("an application waited {pause} ms after {written} writes; measured {measured:?}, foreseen {foreseen:?}");
    assert!(pause < 5_000 && measured.is_some_and(|ms| ms < 5_000), "{pause} {measured:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
    // Complete: the source stays blocked, the destination doesn't know of it.
    let late = from.database("app").collection("a").insert_one(doc! {"_id": "late", "u": -2_000_000}).await;
    assert!(late.expect_err("is blocked").to_string().contains("blocked"));
    to.database("app").collection("a").insert_one(doc! {"_id": "new", "u": -2_000_000}).await.expect("inserts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_fails_lets_the_source_write_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.steering.set(RunOptions { cutover: BLOCK, ..RunOptions::default() });
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    // Somebody else's collection: nothing that Limosa may remove.
    to.database("app").collection("theirs").insert_one(doc! {"_id": 1}).await.expect("inserts");
    settings.steering.set(RunOptions { cutover: BLOCK, rehearsal: 1, ..RunOptions::default() });
    let rehearsal = run.rehearsed(1).await;
    assert!(!rehearsal.would_complete && rehearsal.findings[0].subject == "app.theirs", "{rehearsal:?}");
    run.order(Directive::CutOver);
    match run.end().await {
        Outcome::Failed(failure) => assert!(failure.message.contains("app.theirs"), "{failure}"),
        other => panic!("{other:?}"),
    }
    from.database("app").collection("a").insert_one(doc! {"_id": "again", "u": -1}).await.expect("it writes again");
    to.database("app").collection::<Document>("theirs").drop().await.expect("drops");
    settings.epoch = settings.epoch.next();
    Run::start(&settings).cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_writes_are_named() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let writer = tokio::spawn({
        let from = from.clone();
        async move {
            for n in 0.. {
                let _ =
                    from.database("app").collection("b").insert_one(doc! {"_id": format!("late-{n}"), "u": -n}).await;
            }
        }
    });
    run.order(Directive::CutOver);
    run.reach(PhaseKind::CuttingOver).await;
    let failure = run.reach(PhaseKind::Synced).await.failure.expect("is told why");
    assert_eq!(failure.code, ErrorCode::SourceWrittenDuringCutover);
    assert!(failure.message.contains("app.b") && failure.message.contains(r#"(_id "late-"#), "{failure}");
    writer.abort();
    run.order(Directive::Run);
    run.reach_quietly(PhaseKind::Synced).await;
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_50_000_writes_on_the_destination_the_way_back_leads_to_the_same() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let forth = settings(&source, &destination, dir.path());
    let reversible = CutoverOptions { block_source_writes: true, reversible: true };
    forth.steering.set(RunOptions { cutover: reversible, ..RunOptions::default() });
    let record = Run::start(&forth).cut_over_and_tell().await.record.expect("is told");
    let turning_point = record.turning_point.expect("there is a way back");
    let app = to.database("app");
    // Before the way back is taken up, and while it is followed.
    let bulk = async |first: i32, last: i32| {
        for from in (first..last).step_by(5_000) {
            let documents: Vec<Document> =
                (from..from + 5_000).map(|n| doc! {"_id": n, "n": n, "p": "q".repeat(50)}).collect();
            app.collection("bulk").insert_many(documents).await.expect("inserts");
        }
    };
    bulk(0, 25_000).await;
    let mut back = limosa_engine::Settings {
        migration_id: limosa_model::MigrationId::generate(),
        source_uri: forth.destination_uri.clone(),
        destination_uri: forth.source_uri.clone(),
        reversal_from: Some(turning_point),
        steering: limosa_engine::ControlHandle::default(),
        ..forth.clone()
    };
    let mut run = Run::start(&back);
    bulk(25_000, 45_000).await;
    app.collection::<Document>("bulk")
        .update_many(doc! {"n": {"$lt": 4_000}}, doc! {"$inc": {"n": 1}})
        .await
        .expect("updates");
    app.collection::<Document>("bulk").delete_many(doc! {"n": {"$gte": 44_000}}).await.expect("deletes");
    let first = run.reach(PhaseKind::Synced).await.progress;
    // An unclean end of it, too.
    run.kill().await;
    back.epoch = back.epoch.next();
    let mut run = Run::start(&back);
    // Unique values that change hands.
    for n in (0..400).step_by(2) {
        let (x, y) = (doc! {"_id": n}, doc! {"_id": n + 1});
        let a = app.collection::<Document>("a");
        a.update_one(x.clone(), doc! {"$set": {"u": -1 - n}}).await.expect("updates");
        a.update_one(y, doc! {"$set": {"u": n}}).await.expect("updates");
        a.update_one(x, doc! {"$set": {"u": n + 1}}).await.expect("updates");
    }
    app.run_command(doc! {"createIndexes": "bulk", "indexes": [{"key": {"n": 1}, "name": "n"}]})
        .await
        .expect("indexes");
    run.reach(PhaseKind::Synced).await;
    // Corruption is found in this direction as well.
    let spoilt = from.database("app").collection::<Document>("bulk");
    spoilt.update_one(doc! {"_id": 7_000}, doc! {"$set": {"n": -7}}).await.expect("updates");
    run.count(|p| p.documents_repaired >= 1).await;
    let progress = run.cut_over().await;
    let applied = first.events_applied + progress.events_applied;
    eprintln!("the way back: {applied} changes, {} ms", progress.write_pause_millis.unwrap_or(-1));
    assert!(applied >= 50_000 && progress.documents_copied == 0, "{first:?} {progress:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_at_any_step_is_succeeded_by_one_that_is_synced_again_and_can_cut_over() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.steering.set(RunOptions { cutover: BLOCK, ..RunOptions::default() });
    let writes = from.database("app").collection("a");
    for (n, step) in failpoint::STEPS_NOTED.into_iter().enumerate() {
        let armed = failpoint::arm(step, settings.migration_id);
        let mut run = Run::start(&settings);
        run.reach(PhaseKind::Synced).await;
        run.order(Directive::CutOver);
        armed.reached().await;
        let blocked = n > 0;
        let during = writes.insert_one(doc! {"_id": format!("during {step}"), "u": -1 - 10 * n as i32}).await;
        assert_eq!(during.is_err(), blocked, "{step}");
        run.kill().await;
        settings.epoch = settings.epoch.next();
        let mut run = Run::start(&settings);
        run.reach(PhaseKind::Synced).await;
        // Back to where it was: the source takes writes, and what was made final is put off again.
        writes.insert_one(doc! {"_id": format!("after {step}"), "u": -2 - 10 * n as i32}).await.expect("inserts");
        let listed = to.database("app").run_command(doc! {"listIndexes": "a"}).await.expect("lists").to_string();
        assert!(!listed.contains("\"unique\": true"), "{step}: {listed}");
        run.kill().await;
        settings.epoch = settings.epoch.next();
    }
    Run::start(&settings).cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}
