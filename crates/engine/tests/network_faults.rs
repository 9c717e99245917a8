//! Servers and networks that break while a migration runs.

use crate::support::{Run, settings};
use bson::{Document, doc};
use limosa_engine::{EngineReport, Outcome, Tuning};
use limosa_model::{ErrorCode, Failure, PhaseKind};
use limosa_testkit::{Network, ReplicaSet, compare, workload::Workload};
use mongodb::Client;
use std::time::Duration;

async fn seed(client: &Client, db: &str, documents: i32) {
    let payload = "p".repeat(500);
    for (name, first) in [("one", 0), ("two", documents)] {
        let all: Vec<Document> =
            (first..first + documents).map(|n| doc! {"_id": n, "n": n, "payload": &payload}).collect();
        client.database(db).collection(name).insert_many(all).await.expect("inserts");
        let index = doc! {"createIndexes": name, "indexes": [{"key": {"n": 1}, "name": "n_1", "unique": true}]};
        client.database(db).run_command(index).await.expect("indexes");
    }
}

/// The write landed and its answer was lost, for every command with which anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_any_write_changes_nothing() {
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "answers", 5_000).await;
    let capped = doc! {"create": "ring", "capped": true, "size": 8192};
    from.database("answers").run_command(capped).await.expect("creates");
    from.database("answers").collection("ring").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let proxy = destination.proxy(0);
    let lose = |commands: &[&str]| commands.iter().for_each(|command| proxy.lose_answer_to(command));
    lose(&["insert", "insert", "insert", "update", "update", "update", "create", "create", "createIndexes"]);
    lose(&["commitTransaction", "commitTransaction", "commitTransaction", "delete"]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::CatchingUp).await;
    let writers = Workload::start(&from, "answers", 8, 2);
    run.reach(PhaseKind::Synced).await;
    lose(&["update", "commitTransaction", "renameCollection", "drop", "dropIndexes", "create", "createIndexes"]);
    from.database("answers").collection("old").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let rename = doc! {"renameCollection": "answers.old", "to": "answers.new"};
    from.database("admin").run_command(rename).await.expect("renames");
    from.database("answers").collection::<Document>("new").drop().await.expect("drops");
    let index = doc! {"createIndexes": "one", "indexes": [{"key": {"x": 1}, "name": "x_1"}]};
    from.database("answers").run_command(index).await.expect("indexes");
    from.database("answers").run_command(doc! {"dropIndexes": "one", "index": "x_1"}).await.expect("drops");
    from.database("answers").collection("ring").insert_one(doc! {"_id": 2}).await.expect("inserts");
    let acknowledged = writers.stop("answers").await.expect("writes");
    lose(&["collMod", "collMod"]);
    run.cut_over().await;
    assert!(proxy.lost() >= 15, "only {} answers were lost", proxy.lost());
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["answers"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_far_away_is_written_to_compressed() {
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.direct(0).await.expect("connects"));
    seed(&from, "far", 5_000).await;
    destination.proxy(0).set(Network::Slow(Duration::from_millis(8)));
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    run.cut_over().await;
    let status = to.database("admin").run_command(doc! {"serverStatus": 1}).await.expect("answers");
    let part = |document: &Document, name: &str| document.get_document(name).expect(name).clone();
    let zstd = ["network", "compression", "zstd", "decompressor"].into_iter().fold(status, |d, name| part(&d, name));
    let (taken, unpacked) = (zstd.get_i64("bytesIn").expect("is told"), zstd.get_i64("bytesOut").expect("is told"));
    assert!(unpacked > 5_000_000 && taken < unpacked / 5, "{taken} bytes for {unpacked}");
    compare(&from, &to, &["far"]).await.expect("equal");
}

/// In every phase, on either side: reset, cut, silent and slow.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_in_every_phase_loses_nothing() {
    let (source, destination) =
        tokio::join!(ReplicaSet::builder().proxied().start(), ReplicaSet::builder().proxied().start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "broken", 15_000).await;
    let (a, b) = (source.proxy(0), destination.proxy(0));
    let direct = source.direct(0).await.expect("connects");
    let writers = Workload::start(&direct, "broken", 9, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
    run.reach(PhaseKind::Copying).await;
    a.reset();
    b.reset();
    pause(200).await;
    b.set(Network::Cut);
    pause(1500).await;
    b.set(Network::Whole);
    a.set(Network::ToServer);
    pause(1000).await;
    a.set(Network::Cut);
    pause(500).await;
    a.set(Network::Whole);
    run.reach(PhaseKind::CatchingUp).await;
    b.set(Network::Slow(Duration::from_millis(20)));
    a.reset();
    pause(1000).await;
    b.reset();
    b.set(Network::Whole);
    run.reach(PhaseKind::Synced).await;
    b.set(Network::Silent);
    pause(1000).await;
    b.set(Network::Cut);
    a.set(Network::Cut);
    // Long enough to be told.
    let waits = run.wait_until(|report| report.progress.waiting.is_some()).await;
    let code = waits.progress.waiting.map(|w| w.code);
    assert!(
        matches!(code, Some(ErrorCode::SourceUnreachable | ErrorCode::DestinationUnreachable)),
        "{code:?} while both ends are cut off"
    );
    a.set(Network::Whole);
    b.set(Network::Whole);
    run.wait_until(|report| report.progress.waiting.is_none() && report.phase == PhaseKind::Synced).await;
    let acknowledged = writers.stop("broken").await.expect("writes");
    run.order(limosa_model::protocol::Directive::CutOver);
    run.reach(PhaseKind::CuttingOver).await;
    b.reset();
    a.reset();
    assert_eq!(run.end().await, Outcome::Complete);
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["broken"]).await.expect("equal");
}

/// A primary that acknowledges batches alone, dies, and comes back to roll them back.
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_a_failover_rolled_back_are_copied_again() {
    let source = ReplicaSet::start().await.expect("starts");
    let mut destination = ReplicaSet::builder().members(3).start().await.expect("starts");
    let from = source.client().await;
    let payload = "p".repeat(1000);
    for name in ["one", "two", "three", "four"] {
        for first in (0..20_000).step_by(10_000) {
            let all: Vec<Document> = (first..first + 10_000).map(|n| doc! {"_id": n, "payload": &payload}).collect();
            from.database("rolled").collection(name).insert_many(all).await.expect("inserts");
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    let copied = run.wait_until(|report| report.progress.documents_copied > 1_000).await.progress.documents_copied;
    let primary = destination.primary_index().await.expect("has a primary");
    let others: Vec<usize> = (0..3).filter(|index| *index != primary).collect();
    for other in &others {
        destination.fail_point(*other, "stopReplProducer", "alwaysOn").await.expect("is set");
    }
    // The primary continues acknowledging, alone.
    run.wait_until(|report| report.progress.documents_copied > copied + 5_000).await;
    let alone = newest(&destination, primary).await;
    destination.kill(primary);
    for other in &others {
        destination.fail_point(*other, "stopReplProducer", "off").await.expect("is set");
    }
    destination.primary_index().await.expect("has a new primary");
    destination.restart(primary).await.expect("comes back");
    let to = destination.client().await;
    run.reach(PhaseKind::Synced).await;
    let began = std::time::Instant::now();
    while !destination.log(primary).contains("Transition to ROLLBACK") {
        assert!(began.elapsed().as_secs() < 60, "nothing was rolled back after {alone}");
    }
    let progress = run.cut_over().await;
    assert_eq!(progress.documents_repaired, 0, "what was rolled back was left to the verifier");
    compare(&from, &to, &["rolled"]).await.expect("equal");
}

async fn newest(set: &ReplicaSet, index: usize) -> String {
    let direct = set.direct(index).await.expect("connects");
    let hello = direct.database("admin").run_command(doc! {"hello": 1}).await.expect("answers");
    hello.get_document("lastWrite").map(|w| w.to_string()).unwrap_or_default()
}

/// Step-downs on both sides in every phase.
#[tokio::test(flavor = "multi_thread")]
async fn step_downs_in_every_phase_lose_nothing() {
    let (source, destination) =
        tokio::join!(ReplicaSet::builder().members(3).start(), ReplicaSet::builder().members(3).start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "steps", 10_000).await;
    let writers = Workload::start(&from, "steps", 10, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    for phase in [PhaseKind::Copying, PhaseKind::CatchingUp, PhaseKind::Synced] {
        run.reach(phase).await;
        destination.step_down().await.expect("steps down");
        source.step_down().await.expect("steps down");
    }
    run.reach(PhaseKind::Synced).await;
    let acknowledged = writers.stop("steps").await.expect("writes");
    run.order(limosa_model::protocol::Directive::CutOver);
    run.reach(PhaseKind::CuttingOver).await;
    destination.step_down().await.expect("steps down");
    assert_eq!(run.end().await, Outcome::Complete);
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["steps"]).await.expect("equal");
}

/// Password changed, role revoked: it waits, says for what, and continues when that is fixed.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_and_a_revoked_role_are_waited_out() {
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().auth(true).proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "rights", 2_000).await;
    let admin = to.database("admin");
    let create = doc! {"createUser": "mover", "pwd": "first", "roles": ["root"]};
    admin.run_command(create).await.expect("creates");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.destination_uri = limosa_model::Secret::new(destination.uri_with(Some(("mover", "first"))));
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let waits_for = async |run: &mut Run, code| {
        run.wait_until(|report: &EngineReport| report.progress.waiting.as_ref().is_some_and(|w| w.code == code)).await
    };
    let writes = from.database("rights").collection::<Document>("one");
    // What is authenticated stays so: only new connections see the password.
    admin.run_command(doc! {"updateUser": "mover", "pwd": "second"}).await.expect("updates");
    destination.proxy(0).reset();
    // The administrator's connections are gone as well.
    let admin = destination.client().await.database("admin");
    writes.insert_one(doc! {"_id": "a", "n": -1}).await.expect("inserts");
    let report = waits_for(&mut run, ErrorCode::DestinationAuthenticationFailed).await;
    assert!(!format!("{report:?}").contains("first"), "{report:?}");
    admin.run_command(doc! {"updateUser": "mover", "pwd": "first"}).await.expect("updates");
    run.wait_until(|report| report.progress.waiting.is_none()).await;
    admin
        .run_command(doc! {"updateUser": "mover", "roles": ["readAnyDatabase", "clusterMonitor"]})
        .await
        .expect("updates");
    writes.insert_one(doc! {"_id": "b", "n": -2}).await.expect("inserts");
    waits_for(&mut run, ErrorCode::InsufficientPrivileges).await;
    admin.run_command(doc! {"updateUser": "mover", "roles": ["root"]}).await.expect("updates");
    run.wait_until(|report| report.progress.waiting.is_none()).await;
    run.cut_over().await;
    compare(&from, &to, &["rights"]).await.expect("equal");
}

/// After the patience it has failed with what happened, and everything is kept.
#[tokio::test(flavor = "multi_thread")]
async fn patience_ends_with_what_happened_and_a_resume_goes_on() {
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "patience", 1_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.tuning = Tuning { patience: Duration::from_secs(3), ..Tuning::default() };
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    destination.proxy(0).set(Network::Cut);
    match run.end().await {
        Outcome::Failed(Failure { code, message }) => {
            assert_eq!(code, ErrorCode::DestinationUnreachable, "{message}");
            assert!(message.contains("still failing after"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    destination.proxy(0).set(Network::Whole);
    settings.epoch = settings.epoch.next();
    Run::start(&settings).cut_over().await;
    compare(&from, &to, &["patience"]).await.expect("equal");
}
