//! The verifier beside replication: what somebody else does to the destination is found, repaired and counted.

use crate::support::{Pair, Run, settings};
use bson::{Document, doc};
use futures::TryStreamExt;
use limosa_engine::{Outcome, failpoint};
use limosa_model::{AgentId, Epoch, ErrorCode, PhaseKind, cutover::RunOptions, protocol::Directive};
use limosa_testkit::{compare, workload::Workload};
use mongodb::{Client, Collection};

/// Documents that no writer of a test touches.
const STILL: i32 = 4_000;

async fn seed(client: &Client) {
    let db = client.database("app");
    for command in [
        doc! {"create": "folded", "collation": {"locale": "en", "strength": 2}},
        doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}},
        doc! {"create": "ring", "capped": true, "size": 10_000_000},
        doc! {"create": "ruled", "validator": {"a": 1}, "validationLevel": "strict", "validationAction": "error"},
        doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}},
    ] {
        db.run_command(command).await.expect("is taken");
    }
    for name in ["still", "folded", "clustered", "ring"] {
        let documents: Vec<Document> = (0..STILL).map(|n| doc! {"_id": n, "a": 1, "b": {"c": "x", "n": n}}).collect();
        db.collection(name).insert_many(documents).await.expect("inserts");
    }
    let measured: Vec<Document> =
        (0..300).map(|n| doc! {"t": bson::DateTime::from_millis(n * 60_000), "m": n % 3, "v": n}).collect();
    db.collection("series").insert_many(measured).await.expect("inserts");
    let indexes = doc! {"createIndexes": "still", "indexes": [
        {"key": {"a": 1}, "name": "a"}, {"key": {"b.n": 1}, "name": "n", "unique": true},
    ]};
    db.run_command(indexes).await.expect("indexes");
}

fn still(to: &Client, name: &str) -> Collection<Document> {
    to.database("app").collection(name)
}

async fn set(to: &Client, name: &str, id: i32, update: Document) {
    let done = still(to, name).update_one(doc! {"_id": id}, update).await.expect("updates");
    assert_eq!(done.modified_count, 1, "{name} {id}");
}

/// Six ways to spoil a collection, from document `first` on.
async fn spoil(to: &Client, name: &str, first: i32) -> u64 {
    set(to, name, first, doc! {"$set": {"b.c": "y"}}).await;
    set(to, name, first + 1, doc! {"$set": {"a": 1_i64}}).await;
    let swapped = doc! {"_id": first + 2, "b": {"c": "x", "n": first + 2}, "a": 1};
    still(to, name).replace_one(doc! {"_id": first + 2}, swapped).await.expect("replaces");
    set(to, name, first + 3, doc! {"$rename": {"a": "z"}}).await;
    still(to, name).delete_one(doc! {"_id": first + 4}).await.expect("deletes");
    still(to, name).insert_one(doc! {"_id": STILL + first, "a": 1}).await.expect("inserts");
    6
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_spoils_is_found_in_every_phase_repaired_and_counted() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let bulk: Vec<Document> = (0..60_000).map(|n| doc! {"_id": n, "p": "p".repeat(300)}).collect();
    from.database("app").collection("bulk").insert_many(bulk).await.expect("inserts");
    let writers = Workload::start(&from, "app", 21, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Copying).await;
    // Copied already or still to be copied: the copy leaves what is there. The last ones may still be in the stream.
    let mut spoilt = 0;
    for id in [0, 30_000, 70_000] {
        still(&to, "bulk").replace_one(doc! {"_id": id}, doc! {"_id": id}).upsert(true).await.expect("replaces");
        spoilt += 1;
    }
    run.reach(PhaseKind::CatchingUp).await;
    for name in ["still", "folded", "clustered"] {
        spoilt += spoil(&to, name, 100).await;
    }
    set(&to, "ring", 7, doc! {"$set": {"a": 2}}).await;
    still(&to, "system.buckets.series").delete_one(doc! {}).await.expect("deletes");
    spoilt += 2;
    run.reach(PhaseKind::Synced).await;
    run.count(|p| p.documents_repaired == spoilt).await;
    for name in ["still", "folded"] {
        spoilt += spoil(&to, name, 200).await;
    }
    run.count(|p| p.documents_repaired == spoilt).await;
    for command in [
        doc! {"dropIndexes": "still", "index": "a"},
        doc! {"createIndexes": "still", "indexes": [{"key": {"x": 1}, "name": "x"}]},
        doc! {"collMod": "ruled", "validator": {"a": 5}},
    ] {
        to.database("app").run_command(command).await.expect("is taken");
    }
    let acknowledged = writers.stop("app").await.expect("writes");
    // At the last moment: the number of documents gives it away.
    still(&to, "still").insert_one(doc! {"_id": "late"}).await.expect("inserts");
    still(&to, "clustered").delete_one(doc! {"_id": 300}).await.expect("deletes");
    spoilt += 2;
    let progress = run.cut_over().await;
    assert_eq!(progress.documents_repaired, spoilt, "{progress:?}");
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    // A document that was brought back stands last in a capped collection; none was.
    compare(&from, &to, &["app"]).await.expect("equal");
    assert!(progress.verification_passes >= 2, "{progress:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_differs_again_after_its_repair_ends_the_migration() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let repaired = async |id: i32| {
        while still(&to, "still").find_one(doc! {"_id": id, "a": 1}).await.expect("reads").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let fails = async |run: Run| match run.end().await {
        Outcome::Failed(failure) => {
            assert_eq!(failure.code, ErrorCode::VerificationFailed);
            assert!(failure.message.contains("app.still _id 5 at a"), "{failure}");
        }
        other => panic!("{other:?}"),
    };
    for id in [5, 6] {
        set(&to, "still", id, doc! {"$set": {"a": 2}}).await;
    }
    run.count(|p| p.documents_repaired == 2).await;
    repaired(5).await;
    repaired(6).await;
    set(&to, "still", 5, doc! {"$set": {"a": 3}}).await;
    fails(run).await;
    // Resumed, it writes that document again, and others too.
    set(&to, "still", 6, doc! {"$set": {"a": 3}}).await;
    settings.epoch = settings.epoch.next();
    let run = Run::start(&settings);
    repaired(5).await;
    repaired(6).await;
    // Whoever it is was not stopped.
    set(&to, "still", 5, doc! {"$set": {"a": 4}}).await;
    fails(run).await;
    settings.epoch = settings.epoch.next();
    assert_eq!(Run::start(&settings).cut_over().await.documents_repaired, 2);
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_goes_on_where_it_was_and_begins_anew_on_another_disk() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    set(&to, "still", 5, doc! {"$set": {"a": 2}}).await;
    run.count(|p| p.documents_repaired == 1 && p.verification_passes >= 2).await;
    run.kill().await;
    // The same disk: what was found is known.
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    let progress = run.count(|p| p.verification_passes > 0).await;
    assert!(progress.verification_passes >= 2 && progress.documents_repaired == 1, "{progress:?}");
    run.kill().await;
    // Another agent has it for a while: what the first one noted is worth nothing then.
    let other = tempfile::tempdir().expect("a directory");
    let taker = limosa_engine::Settings {
        epoch: Epoch(settings.epoch.0 + 1),
        agent_id: AgentId::generate(),
        data_dir: other.path().to_owned(),
        ..settings.clone()
    };
    let mut run = Run::start(&taker);
    let progress = run.reach(PhaseKind::Synced).await.progress;
    assert!(progress.verification_passes >= 1 && progress.documents_repaired == 0, "{progress:?}");
    from.database("app").collection("still").insert_one(doc! {"_id": "new", "b": {"n": -1}}).await.expect("inserts");
    run.kill().await;
    settings.epoch = Epoch(taker.epoch.0 + 1);
    let mut run = Run::start(&settings);
    let progress = run.reach(PhaseKind::Synced).await.progress;
    assert!(progress.verification_passes >= 1 && progress.documents_repaired == 0, "{progress:?}");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spoilt_while_indexes_are_built_or_in_a_cutover_is_found_by_who_goes_on() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut spoilt = 0;
    for (at, scope, first) in [
        (failpoint::INDEXES_BUILT, "app.still".to_owned(), 100),
        (failpoint::STEPS_NOTED[3], settings.migration_id.to_string(), 200),
        (failpoint::STEPS_NOTED[5], settings.migration_id.to_string(), 300),
    ] {
        let armed = failpoint::arm(at, scope);
        let mut run = Run::start(&settings);
        if at != failpoint::INDEXES_BUILT {
            run.reach(PhaseKind::Synced).await;
            run.order(Directive::CutOver);
        }
        armed.reached().await;
        for name in ["still", "folded", "clustered"] {
            spoilt += spoil(&to, name, first).await;
        }
        run.kill().await;
        settings.epoch = settings.epoch.next();
        let mut run = Run::start(&settings);
        run.count(|p| p.documents_repaired == spoilt).await;
        run.kill().await;
        settings.epoch = settings.epoch.next();
    }
    let progress = Run::start(&settings).cut_over().await;
    assert_eq!(progress.documents_repaired, spoilt, "{progress:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_order_of_a_capped_collection_is_found_told_and_mended_by_the_cutover() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let rehearse = async |run: &mut Run, number: u32| {
        settings.steering.set(RunOptions { rehearsal: number, ..RunOptions::default() });
        run.rehearsed(number).await
    };
    let first = rehearse(&mut run, 1).await;
    assert!(first.findings.is_empty(), "{first:?}");
    // One is put last; another is gone, and comes last when it is repaired.
    let own = still(&to, "ring").find_one(doc! {"_id": 5}).await.expect("reads").expect("is there");
    still(&to, "ring").delete_one(doc! {"_id": 5}).await.expect("deletes");
    still(&to, "ring").insert_one(own).await.expect("inserts");
    still(&to, "ring").delete_one(doc! {"_id": 900}).await.expect("deletes");
    let progress = run.count(|p| p.documents_repaired == 1).await;
    run.count(|p| p.verification_passes >= progress.verification_passes + 2).await;
    let told = rehearse(&mut run, 2).await;
    assert!(told.would_complete, "{told:?}");
    let finding = told.findings.first().expect("it is told");
    assert_eq!(finding.subject, "app.ring");
    assert!(finding.evidence.contains("_id 5 stands before _id 6 on the source"), "{finding}");
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 1);
    let record = report.record.expect("is told");
    assert!(record.brought_over.iter().any(|line| line.contains("app.ring: copied again")), "{record:?}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_in_the_report_is_that_of_what_the_destination_holds_at_the_end() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.count(|p| p.verification_passes > 0).await;
    for name in ["still", "folded"] {
        set(&from, name, 7, doc! {"$set": {"a": 9}}).await;
    }
    set(&to, "clustered", 8, doc! {"$set": {"a": 9}}).await;
    run.count(|p| p.documents_repaired == 1).await;
    let record = run.cut_over_and_tell().await.record.expect("is told");
    let options = limosa_engine::VerifyOptions {
        source_uri: limosa_model::Secret::new(source.uri()),
        destination_uri: limosa_model::Secret::new(destination.uri()),
        filter: limosa_model::NamespaceFilter::default(),
        sample_percent: None,
        settle_seconds: 0,
        work_dir: dir.path().join("after"),
        workers: 1,
    };
    let after = limosa_engine::verify(&options, &tokio::sync::watch::Sender::default()).await.expect("compares");
    assert!(after.equal, "{after:?}");
    let mut digests = 0;
    for own in &record.namespaces {
        let verification = &own.verification;
        assert_eq!(verification.digest.is_none(), own.changed_since, "{own:?}");
        let found = after.namespaces.iter().find(|found| found.namespace == verification.namespace);
        let found = found.unwrap_or_else(|| panic!("{} is not there", verification.namespace));
        if !own.changed_since {
            digests += 1;
            assert_eq!(
                (&verification.digest, verification.documents_compared, verification.bytes_compared),
                (&found.digest, found.documents_compared, found.bytes_compared),
                "{}",
                verification.namespace
            );
        }
    }
    // Three were changed lately, and are compared once more if the machine is quick.
    assert!(digests + 3 >= record.namespaces.len() && record.namespaces.len() >= 6, "{:?}", record.namespaces);
}

/// How many documents the server says that a collection has.
async fn booked(client: &Client) -> i64 {
    let reply = client.database("app").run_command(doc! {"count": "c"}).await.expect("counts");
    reply.get_i32("n").map(i64::from).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_is_wrong_for_good_lets_no_cutover_count_documents() {
    let Pair { mut source, destination, from, to } = Pair::start().await;
    let coll = from.database("app").collection("c");
    // Too many to be counted in a moment.
    for first in [0, 70_000, 140_000] {
        coll.insert_many((first..first + 70_000).map(|n| doc! {"_id": n})).await.expect("inserts");
    }
    // What came after a checkpoint is read from the oplog, and not added to the count.
    from.database("admin").run_command(doc! {"fsync": 1}).await.expect("makes a checkpoint");
    coll.insert_many((210_000..210_700).map(|n| doc! {"_id": n})).await.expect("inserts");
    source.kill(0);
    source.restart(0).await.expect("comes back");
    assert_ne!(booked(&from).await, 210_700, "the count outlived the crash");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    coll.insert_one(doc! {"_id": -1}).await.expect("inserts");
    coll.delete_one(doc! {"_id": 5}).await.expect("deletes");
    to.database("app").run_command(doc! {"profile": 2}).await.expect("is taken");
    run.cut_over().await;
    assert_ne!(booked(&from).await, booked(&to).await);
    let profile = to.database("app").collection::<Document>("system.profile");
    let mut asked = profile.find(doc! {"command.aggregate": "c"}).await.expect("reads");
    while let Some(command) = asked.try_next().await.expect("reads") {
        assert!(!command.to_string().contains("$group"), "{command}");
    }
    to.database("app").run_command(doc! {"profile": 0}).await.expect("is taken");
    profile.drop().await.expect("drops");
    compare(&from, &to, &["app"]).await.expect("equal");
}
