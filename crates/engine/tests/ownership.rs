//! One destination, one migration: who holds it is written there, and nobody else writes.

use crate::support::{Pair, Run, indexes_of, settings, until};
use bson::{Document, doc};
use limosa_engine::{Outcome, Settings, failpoint};
use limosa_model::{
    MigrationId, PhaseKind,
    cutover::{CutoverOptions, CutoverTime, RunOptions},
    protocol::Directive,
};
use limosa_testkit::compare;
use mongodb::Client;

/// Which of the steps that are noted makes the destination final.
const FINALIZE: usize = 4;

async fn seed(client: &Client, db: &str) {
    let documents: Vec<Document> = (0..500).map(|n| doc! {"_id": n, "n": n}).collect();
    client.database(db).collection("c").insert_many(documents).await.expect("inserts");
}

/// The failure's code and message.
#[track_caller]
fn failed(outcome: Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Failed(failure) => (failure.code.name(), failure.message),
        other => panic!("{other:?}"),
    }
}

fn another(of: &Settings, dir: &std::path::Path) -> Settings {
    Settings { migration_id: MigrationId::generate(), data_dir: dir.to_owned(), ..of.clone() }
}

async fn count(client: &Client, db: &str) -> u64 {
    client.database(db).collection::<Document>("c").count_documents(doc! {}).await.expect("counts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_in_use_is_refused_to_another_migration_until_the_first_is_over() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = settings(&source, &destination, one.path());
    let mut run = Run::start(&first);
    run.reach(PhaseKind::Synced).await;
    let second = Settings { drop_destination_data: true, ..another(&first, two.path()) };
    let (code, message) = failed(Run::start(&second).end().await);
    assert_eq!(code, "DESTINATION_IN_USE", "{message}");
    assert!(message.contains(&first.migration_id.to_string()), "{message}");
    assert_eq!(count(&to, "app").await, 500, "nothing was dropped");
    from.database("app").collection("c").insert_one(doc! {"_id": "late"}).await.expect("inserts");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
    // It is over: the next one may come.
    Run::start(&second).cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_migration_that_is_run_again_is_complete_and_writes_nothing() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let first = Run::start(&settings).cut_over_and_tell().await;
    let kept = to.database("app").collection("c");
    kept.insert_one(doc! {"_id": "the application's"}).await.expect("inserts");
    // Its end was never told to anyone: another agent takes it up.
    settings.epoch = settings.epoch.next();
    let run = Run::start(&settings);
    let reports = run.reports();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), run.end()).await;
    assert_eq!(ended.expect("it is over at once"), Outcome::Complete);
    let again = reports.borrow().record.clone().expect("is told again");
    assert_eq!(first.record.expect("is told").namespaces, again.namespaces);
    assert_eq!(count(&to, "app").await, 501);
    // Between these two clusters, and no others.
    assert!(limosa_engine::completed(&settings).await.is_ok());
    let other = limosa_testkit::ReplicaSet::start().await.expect("starts");
    let uri = limosa_model::Secret::new(other.uri());
    for moved in [
        Settings { source_uri: uri.clone(), ..settings.clone() },
        Settings { destination_uri: uri.clone(), ..settings.clone() },
    ] {
        let failure = limosa_engine::completed(&moved).await.expect_err("is another cluster");
        assert_eq!(failure.code.name(), "CONFIGURATION_CHANGED", "{failure}");
    }
}

/// Its machine was suspended after the last step, before anyone was told.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wakes_up_late_completes_nothing_that_its_successor_has_rolled_back() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = settings(&source, &destination, one.path());
    let armed = failpoint::arm(failpoint::CUT_OVER, first.migration_id);
    let mut late = Run::start(&first);
    late.reach(PhaseKind::Synced).await;
    late.order(Directive::CutOver);
    armed.reached().await;
    let second = Settings { epoch: first.epoch.next(), data_dir: two.path().to_owned(), ..first.clone() };
    let mut run = Run::start(&second);
    run.reach(PhaseKind::Synced).await;
    armed.release();
    assert_eq!(late.end().await, Outcome::Stopped);
    let claim = to.database("__limosa").collection::<Document>("claims").find_one(doc! {"state": "live"}).await;
    assert!(claim.expect("finds").is_some(), "it is still under way");
    from.database("app").collection("c").insert_one(doc! {"_id": "after"}).await.expect("inserts");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

/// No transaction can write to a capped collection, so that no fence is touched with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wakes_up_late_writes_nothing_to_a_capped_collection() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let app = from.database("app");
    app.run_command(doc! {"create": "c", "capped": true, "size": 100_000}).await.expect("creates");
    app.collection("c").insert_one(doc! {"_id": 1, "n": 0}).await.expect("inserts");
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = settings(&source, &destination, one.path());
    let mut late = Run::start(&first);
    late.reach(PhaseKind::Synced).await;
    let armed = failpoint::arm(failpoint::WINDOW_MARKED, first.migration_id);
    let set = async |n: i32| {
        let set = doc! {"$set": {"n": n}};
        app.collection::<Document>("c").update_one(doc! {"_id": 1}, set).await.expect("updates");
    };
    set(1).await;
    armed.reached().await;
    set(2).await;
    let second = Settings { epoch: first.epoch.next(), data_dir: two.path().to_owned(), ..first.clone() };
    let mut run = Run::start(&second);
    run.reach(PhaseKind::Synced).await;
    let image = to.database("app").collection::<Document>("c");
    until("the newest state", async || image.find_one(doc! {"n": 2}).await.expect("finds").is_some()).await;
    armed.release();
    assert_eq!(late.end().await, Outcome::Stopped);
    assert!(image.find_one(doc! {"n": 2}).await.expect("finds").is_some(), "an earlier state was written");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

/// It has copied a range, which its successor copies again by another plan.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wakes_up_late_notes_no_range_as_copied() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = settings(&source, &destination, one.path());
    let written = failpoint::arm(failpoint::RANGE_WRITTEN, first.migration_id);
    let late = Run::start(&first);
    written.reached().await;
    let second = Settings { epoch: first.epoch.next(), data_dir: two.path().to_owned(), ..first.clone() };
    let raised = failpoint::arm(failpoint::FENCES_RAISED, second.migration_id);
    let run = Run::start(&second);
    raised.reached().await;
    written.release();
    assert_eq!(late.end().await, Outcome::Stopped);
    let done = to.database("__limosa").collection::<Document>("ranges").count_documents(doc! {"done": true}).await;
    assert_eq!(done.expect("counts"), 0);
    raised.release();
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

/// It was about to switch on what its successor has put off again.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wakes_up_late_defines_nothing() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let index = doc! {"key": {"at": 1}, "name": "at", "expireAfterSeconds": 60};
    from.database("app").run_command(doc! {"createIndexes": "c", "indexes": [index]}).await.expect("indexes");
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = settings(&source, &destination, one.path());
    let finalize = failpoint::arm(failpoint::STEPS_NOTED[FINALIZE], first.migration_id);
    let mut late = Run::start(&first);
    late.reach(PhaseKind::Synced).await;
    late.order(Directive::CutOver);
    finalize.reached().await;
    let second = Settings { epoch: first.epoch.next(), data_dir: two.path().to_owned(), ..first.clone() };
    let mut run = Run::start(&second);
    run.reach(PhaseKind::Synced).await;
    let put_off = expiry(&to).await;
    finalize.release();
    assert_eq!(late.end().await, Outcome::Stopped);
    assert_eq!(expiry(&to).await, put_off);
    assert!(put_off > 60, "{put_off}");
    run.cut_over().await;
    assert_eq!(expiry(&to).await, 60);
    compare(&from, &to, &["app"]).await.expect("equal");
}

/// The expiry of the index `at`, in seconds.
async fn expiry(client: &Client) -> i64 {
    let found = indexes_of(client, "app", "c")
        .await
        .into_iter()
        .find(|index| index.get_str("name").is_ok_and(|name| name == "at"));
    let seconds = found.and_then(|index| index.get("expireAfterSeconds").cloned()).expect("it expires");
    seconds.as_i32().map(i64::from).or(seconds.as_i64()).expect("a whole number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_migration_stops_at_once_says_so_and_never_writes_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut first = settings(&source, &destination, one.path());
    let mut run = Run::start(&first);
    run.reach(PhaseKind::Synced).await;
    let mut second = Settings { drop_destination_data: true, ..another(&first, two.path()) };
    second.claim.replaces = vec![first.migration_id];
    let taking = Run::start(&second);
    let (code, message) = failed(run.end().await);
    assert_eq!(code, "DESTINATION_TAKEN", "{message}");
    assert!(message.contains(&second.migration_id.to_string()), "{message}");
    // Whatever it still had in its hands is kept out by its fences.
    let open = doc! {"_id.migration": first.migration_id.to_string(), "epoch": first.epoch.0};
    let fences = to.database("__limosa").collection::<Document>("fences");
    assert_eq!(fences.count_documents(open).await.expect("counts"), 0, "its fences are open");
    taking.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
    // The application writes there; whatever is left of the first one changes nothing of it.
    to.database("app").collection("c").insert_one(doc! {"_id": "the application's"}).await.expect("inserts");
    first.epoch = first.epoch.next();
    assert_eq!(failed(Run::start(&first).end().await).0, "DESTINATION_TAKEN");
    first.epoch = first.epoch.next();
    let run = Run::start(&first);
    run.order(Directive::Cancel { drop_copied: true });
    assert_eq!(run.end().await, Outcome::Cancelled);
    assert_eq!(count(&to, "app").await, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_that_begin_at_once_one_gets_the_destination() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    seed(&from, "other").await;
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let all: Vec<Settings> = dirs.iter().map(|dir| settings(&source, &destination, dir.path())).collect();
    // What doesn't overlap isn't in the way.
    let only = |name: &str, settings: &Settings| {
        let mut settings = settings.clone();
        settings.filter.include = vec![name.parse().expect("a pattern")];
        settings
    };
    let runs: Vec<Run> = all[..4].iter().map(|settings| Run::start(&only("app.*", settings))).collect();
    Run::start(&only("other.*", &all[4])).cut_over().await;
    let mut left = Vec::new();
    for mut run in runs {
        match run.reach_or_end(PhaseKind::Synced).await {
            Some(outcome) => assert_eq!(failed(outcome).0, "DESTINATION_IN_USE"),
            None => left.push(run),
        }
    }
    assert_eq!(left.len(), 1);
    left.pop().expect("one is left").cut_over().await;
    compare(&from, &to, &["app", "other"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_migration_leaves_the_destination_to_others() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    for drop_copied in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Settings { drop_destination_data: true, ..settings(&source, &destination, dir.path()) };
        let mut run = Run::start(&settings);
        run.reach(PhaseKind::Synced).await;
        run.order(Directive::Cancel { drop_copied });
        assert_eq!(run.end().await, Outcome::Cancelled);
        assert_eq!(count(&to, "app").await, if drop_copied { 0 } else { 500 });
    }
    let dir = tempfile::tempdir().expect("a directory");
    let last = settings(&source, &destination, dir.path());
    assert_eq!(failed(Run::start(&last).end().await).0, "DESTINATION_NOT_EMPTY");
    // Refused before it began: it holds nothing.
    let last = Settings { drop_destination_data: true, ..another(&last, dir.path()) };
    Run::start(&last).cut_over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_and_a_lost_record_are_refused() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let other = limosa_testkit::ReplicaSet::start().await.expect("starts");
    seed(&from, "app").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut first = settings(&source, &destination, dir.path());
    let mut run = Run::start(&first);
    run.reach(PhaseKind::Synced).await;
    run.kill().await;
    first.epoch = first.epoch.next();
    let uri = limosa_model::Secret::new(other.uri());
    for (recopies, moved) in [
        (0, Settings { destination_uri: uri.clone(), ..first.clone() }),
        (1, Settings { destination_uri: uri.clone(), recopies: 1, ..first.clone() }),
        (0, Settings { source_uri: uri.clone(), ..first.clone() }),
    ] {
        let (code, message) = failed(Run::start(&moved).end().await);
        assert_eq!(code, "CONFIGURATION_CHANGED", "recopies {recopies}: {message}");
    }
    // An agent on another host has no file of its own: what the control plane noted holds there.
    let empty = tempfile::tempdir().expect("a directory");
    let mut elsewhere = Settings { destination_uri: uri, data_dir: empty.path().to_owned(), ..first.clone() };
    elsewhere.claim.pinned = run_identities(&first, dir.path());
    assert_eq!(failed(Run::start(&elsewhere).end().await).0, "CONFIGURATION_CHANGED");
    to.database("__limosa").drop().await.expect("drops");
    assert_eq!(failed(Run::start(&first).end().await).0, "CHECKPOINT_LOST");
    assert_eq!(count(&other.client().await, "app").await, 0);
}

/// What the data directory says of a migration.
fn run_identities(settings: &Settings, dir: &std::path::Path) -> Option<limosa_model::Identities> {
    let file = dir.join("migrations").join(format!("{}.json", settings.migration_id));
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    serde_json::from_value(known["identities"].clone()).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reverse_migration_that_nothing_proves_writes_nothing_to_the_source() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "app").await;
    let dir = tempfile::tempdir().expect("a directory");
    let forth = settings(&source, &destination, dir.path());
    let reversible = CutoverOptions { block_source_writes: false, reversible: true };
    forth.steering.set(RunOptions { cutover: reversible, ..RunOptions::default() });
    let record = Run::start(&forth).cut_over_and_tell().await.record.expect("is told");
    let point = record.turning_point.expect("there is one");
    let hostile = limosa_testkit::ReplicaSet::start().await.expect("starts");
    let empty = tempfile::tempdir().expect("a directory");
    let back = Settings {
        source_uri: forth.destination_uri.clone(),
        destination_uri: forth.source_uri.clone(),
        reversal_from: Some(point),
        steering: limosa_engine::ControlHandle::default(),
        ..another(&forth, dir.path())
    };
    let not_asked = {
        let mut settings = back.clone();
        settings.claim.allow_reverse = false;
        settings
    };
    let earlier = CutoverTime { time: point.time - 100, ..point };
    let cases = [
        ("without --allow-reverse", not_asked),
        ("from another cluster", Settings { source_uri: limosa_model::Secret::new(hostile.uri()), ..back.clone() }),
        ("on another host", Settings { data_dir: empty.path().to_owned(), ..back.clone() }),
        ("from another time", Settings { reversal_from: Some(earlier), ..back.clone() }),
        ("with its copy made again", Settings { recopies: 1, ..back.clone() }),
    ];
    hostile.client().await.database("app").collection("c").insert_one(doc! {"_id": "evil"}).await.expect("inserts");
    for (what, settings) in cases {
        let (code, message) = failed(Run::start(&settings).end().await);
        assert_eq!(code, "REVERSE_NOT_ALLOWED", "{what}: {message}");
        assert_eq!(count(&from, "app").await, 500, "{what}");
    }
    // A cluster to which somebody gave that record, as it is and as if it had been the destination.
    let forger = hostile.client().await;
    let claims = |client: &Client| client.database("__limosa").collection::<Document>("claims");
    let own = doc! {"_id": forth.migration_id.to_string()};
    let claim = claims(&to).find_one(own.clone()).await.expect("reads").expect("is there");
    claims(&forger).insert_one(claim).await.expect("inserts");
    let config = forger.database("admin").run_command(doc! {"replSetGetConfig": 1}).await.expect("answers");
    let config = config.get_document("config").and_then(|config| config.get_document("settings")).expect("is there");
    let set_id = config.get_object_id("replicaSetId").expect("has one").to_hex();
    let from_hostile = Settings { source_uri: limosa_model::Secret::new(hostile.uri()), ..back.clone() };
    for (told, set) in [
        ("between other clusters, as the cluster says", own.clone()),
        ("this host completed migration", doc! {"identities.destination.setId": set_id}),
    ] {
        claims(&forger).update_one(own.clone(), doc! {"$set": set}).await.expect("updates");
        let (code, message) = failed(Run::start(&from_hostile).end().await);
        assert!(code == "REVERSE_NOT_ALLOWED" && message.contains(told), "{code}: {message}");
        assert_eq!(count(&from, "app").await, 500, "{told}");
    }
    to.database("app").collection("c").insert_one(doc! {"_id": "new"}).await.expect("inserts");
    Run::start(&back).cut_over().await;
    assert_eq!(count(&from, "app").await, 501);
}
