//! Collections that are renamed, replaced and dropped while answers are lost and engines die: which collection of the
//! destination is whose is decided by its UUID, and none that exists is forgotten.

use crate::support::{Pair, Run, metric, settings};
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use limosa_engine::{Settings, failpoint};
use limosa_model::{PhaseKind, protocol::Directive};
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;
use std::time::{Duration, Instant};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the server fail commands of the engine, and of no other client.
async fn fail_command(client: &Client, mode: impl Into<Bson>, data: Document) {
    let mut data = data;
    data.insert("appName", "limosa");
    let command = doc! {"configureFailPoint": "failCommand", "mode": mode.into(), "data": data};
    client.database("admin").run_command(command).await.expect("the server has this failpoint");
}

async fn once(client: &Client, command: &str, how: Document) {
    let mut data = doc! {"failCommands": [command]};
    data.extend(how);
    fail_command(client, doc! {"times": 1}, data).await;
}

/// The command is carried out, and its answer is that of a primary that steps down.
fn lost_answer() -> Document {
    doc! {"writeConcernError": {"code": 91, "errmsg": "the primary steps down"}}
}

/// The command isn't carried out.
fn not_primary() -> Document {
    doc! {"errorCode": 10107}
}

async fn rename(client: &Client, from: &str, to: &str) {
    let command = doc! {"renameCollection": from, "to": to, "dropTarget": true};
    client.database("admin").run_command(command).await.expect("renames");
}

async fn fill(client: &Client, db: &str, coll: &str, ids: std::ops::Range<i32>) {
    let documents = ids.map(|n| doc! {"_id": n, "in": coll, "v": 0});
    client.database(db).collection(coll).insert_many(documents).await.expect("inserts");
}

async fn until(what: &str, mut wanted: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !wanted().await {
        assert!(began.elapsed() < PATIENCE, "{what} never came to be");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until both sides hold the same.
async fn equal(from: &Client, to: &Client, db: &str) {
    let began = Instant::now();
    while let Err(e) = compare(from, to, &[db]).await {
        assert!(began.elapsed() < PATIENCE, "never came to be equal: {e}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn count(client: &Client, db: &str, coll: &str) -> u64 {
    client.database(db).collection::<Document>(coll).count_documents(doc! {}).await.expect("counts")
}

/// The options under which a collection is listed; `None` if it isn't.
async fn options(client: &Client, db: &str, coll: &str) -> Option<Document> {
    let command = doc! {"listCollections": 1, "filter": {"name": coll}, "cursor": {}};
    let listed = client.database(db).run_cursor_command(command).await.expect("lists");
    let mut listed: Vec<Document> = listed.try_collect().await.expect("lists");
    listed.pop().map(|mut entry| match entry.remove("options") {
        Some(Bson::Document(options)) => options,
        _ => Document::new(),
    })
}

fn of(source: &ReplicaSet, destination: &ReplicaSet, dir: &std::path::Path, patterns: &[&str]) -> Settings {
    let mut settings = settings(source, destination, dir);
    settings.filter.include = patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
    settings
}

/// Starts the migration, lets it die when T0 is noted and nothing else, and leads to a state in which what follows is in
/// the stream and is there already when collections are planned.
async fn dies_before_the_plan(settings: &mut Settings) {
    let armed = failpoint::arm(failpoint::FENCES_RAISED, settings.migration_id);
    let run = Run::start(settings);
    tokio::time::timeout(PATIENCE, armed.reached()).await.expect("comes there");
    run.kill().await;
    settings.epoch = settings.epoch.next();
}

async fn dies_at(run: Run, armed: failpoint::Armed, settings: &mut Settings) {
    tokio::time::timeout(PATIENCE, armed.reached())
        .await
        .unwrap_or_else(|_| panic!("never came there, is at {:?}", run.report()));
    run.kill().await;
    settings.epoch = settings.epoch.next();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_whose_answer_is_lost_loses_no_later_change() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "lost", "b", 0..500).await;
    fill(&from, "lost", "c", 0..100).await;
    fill(&from, "lost", "d", 0..100).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&of(&source, &destination, dir.path(), &["lost.*"]));
    run.reach(PhaseKind::Synced).await;
    once(&to, "renameCollection", lost_answer()).await;
    rename(&from, "lost.b", "lost.a").await;
    until("the rename", async || options(&to, "lost", "a").await.is_some()).await;
    from.database("lost")
        .collection::<Document>("a")
        .update_many(doc! {}, doc! {"$set": {"v": 1}})
        .await
        .expect("updates");
    equal(&from, &to, "lost").await;
    // The same over a collection that is there.
    once(&to, "renameCollection", lost_answer()).await;
    rename(&from, "lost.c", "lost.d").await;
    from.database("lost")
        .collection::<Document>("d")
        .update_many(doc! {}, doc! {"$set": {"v": 2}})
        .await
        .expect("updates");
    equal(&from, &to, "lost").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
    compare(&from, &to, &["lost"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_a_collection_that_is_refused_once_takes_nothing_apart() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "over", "a", 0..200).await;
    fill(&from, "over", "b", 0..1000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["over.*"]);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    once(&to, "renameCollection", not_primary()).await;
    rename(&from, "over.b", "over.a").await;
    fill(&from, "over", "a", 1000..1001).await;
    let own = from.database("over").collection::<Document>("a");
    own.update_one(doc! {"_id": 5}, doc! {"$set": {"v": 1}}).await.expect("updates");
    until("the change", async || {
        let there = to.database("over").collection::<Document>("a").find_one(doc! {"_id": 1000}).await;
        there.is_ok_and(|found| found.is_some())
    })
    .await;
    assert_eq!((count(&to, "over", "a").await, count(&to, "over", "b").await), (1001, 0));
    // A collection of the old name, as a nightly rebuild makes it, and another engine.
    fill(&from, "over", "b", 0..50).await;
    run.kill().await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    own.update_many(doc! {}, doc! {"$set": {"v": 3}}).await.expect("updates");
    equal(&from, &to, "over").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
    compare(&from, &to, &["over"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_while_it_copies_what_came_in_by_a_rename_copies_it_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "into", "kept", 0..10).await;
    fill(&from, "into", "outside", 0..20_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["into.kept", "into.known"]);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let armed = failpoint::arm(failpoint::COPY_BATCH_ACKNOWLEDGED, settings.migration_id);
    rename(&from, "into.outside", "into.known").await;
    dies_at(run, armed, &mut settings).await;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    from.database("into")
        .collection::<Document>("known")
        .update_one(doc! {"_id": 1}, doc! {"$set": {"v": 1}})
        .await
        .expect("updates");
    equal(&from, &to, "into").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_were_rotated_before_the_plan_come_where_they_belong() {
    let Pair { source, destination, from, to } = Pair::start().await;
    for name in ["log", "log1", "log2", "log3"] {
        fill(&from, "rotated", name, 0..20).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["rotated.*"]);
    dies_before_the_plan(&mut settings).await;
    for round in 1..=3 {
        for (name, next) in [("log2", "log3"), ("log1", "log2"), ("log", "log1")] {
            rename(&from, &format!("rotated.{name}"), &format!("rotated.{next}")).await;
        }
        fill(&from, "rotated", "log", 0..20 + round).await;
    }
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    fill(&from, "rotated", "log3", 100..105).await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
    compare(&from, &to, &["rotated"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_engine_made_and_did_not_note_is_in_nobodys_way() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "orphan", "n2", 0..20).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["orphan.*"]);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    // Replaced by a collection that is renamed.
    let armed = failpoint::arm(failpoint::COLLECTION_MADE, settings.migration_id);
    fill(&from, "orphan", "n0", 0..5).await;
    dies_at(run, armed, &mut settings).await;
    rename(&from, "orphan.n2", "orphan.n0").await;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    equal(&from, &to, "orphan").await;
    // Replaced by a collection of the same name with other options.
    let armed = failpoint::arm(failpoint::COLLECTION_MADE, settings.migration_id);
    fill(&from, "orphan", "n1", 0..5).await;
    dies_at(run, armed, &mut settings).await;
    let db = from.database("orphan");
    db.collection::<Document>("n1").drop().await.expect("drops");
    db.run_command(doc! {"create": "n1", "capped": true, "size": 8192}).await.expect("creates");
    fill(&from, "orphan", "n1", 0..3).await;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    equal(&from, &to, "orphan").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_made_again_knows_which_collection_is_which() {
    let Pair { source, destination, from, to } = Pair::start().await;
    for name in ["p", "x", "y"] {
        fill(&from, "plan", name, 0..20).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["plan.*"]);
    let armed = failpoint::arm(failpoint::COLLECTION_CREATED, settings.migration_id);
    let run = Run::start(&settings);
    dies_at(run, armed, &mut settings).await;
    let db = from.database("plan");
    // Each name is another collection's now.
    rename(&from, "plan.p", "plan.q").await;
    fill(&from, "plan", "p", 50..60).await;
    db.collection::<Document>("x").drop().await.expect("drops");
    db.run_command(doc! {"create": "x", "capped": true, "size": 8192}).await.expect("creates");
    fill(&from, "plan", "x", 0..3).await;
    db.collection::<Document>("y").drop().await.expect("drops");
    fill(&from, "plan", "y", 0..7).await;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    for name in ["p", "q", "y"] {
        db.collection::<Document>(name).update_many(doc! {}, doc! {"$set": {"v": name}}).await.expect("updates");
    }
    equal(&from, &to, "plan").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_somebody_dropped_here_is_copied_again_and_its_events_are_not_lost() {
    let Pair { source, destination, from, to } = Pair::start().await;
    for name in ["a", "b", "c"] {
        fill(&from, "dropped", name, 0..300).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["dropped.*"]);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.order(Directive::Pause);
    assert_eq!(run.end().await, limosa_engine::Outcome::Stopped);
    to.database("dropped").collection::<Document>("c").drop().await.expect("drops");
    // What a run of long ago left: two of the source's collections that claim one of the destination's.
    let notes = to.database("__limosa").collection::<Document>("collections");
    let uuid = |client: &Client, name: &'static str| {
        let db = client.database("dropped");
        async move {
            let listed = db.run_command(doc! {"listCollections": 1, "filter": {"name": name}}).await.expect("lists");
            let first =
                listed.get_document("cursor").expect("is one").get_array("firstBatch").expect("is one")[0].clone();
            first
                .as_document()
                .expect("is one")
                .get_document("info")
                .expect("is one")
                .get("uuid")
                .expect("is one")
                .clone()
        }
    };
    let (a, b) = (uuid(&from, "a").await, uuid(&to, "b").await);
    notes.update_one(doc! {"_id.uuid": a}, doc! {"$set": {"destination": b}}).await.expect("notes");
    from.database("dropped")
        .collection::<Document>("c")
        .update_one(doc! {"_id": 1}, doc! {"$set": {"v": 1}})
        .await
        .expect("updates");
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    compare(&from, &to, &["dropped"]).await.expect("equal once it is synced");
    for name in ["a", "b", "c"] {
        let own = from.database("dropped").collection::<Document>(name);
        own.update_many(doc! {}, doc! {"$set": {"v": name}}).await.expect("updates");
    }
    equal(&from, &to, "dropped").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_a_refused_cutover_gives_way_to_a_collection() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "views", "c", 0..20).await;
    for view in ["v", "w"] {
        from.database("views")
            .run_command(doc! {"create": view, "viewOn": "c", "pipeline": []})
            .await
            .expect("creates");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["views.*"]);
    let armed = failpoint::arm(failpoint::STEPS_NOTED[3], settings.migration_id);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.order(Directive::CutOver);
    dies_at(run, armed, &mut settings).await;
    assert!(options(&to, "views", "v").await.is_some_and(|view| view.contains_key("viewOn")), "it has the view");
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let db = from.database("views");
    for view in ["v", "w"] {
        db.run_command(doc! {"drop": view}).await.expect("drops");
    }
    fill(&from, "views", "w", 0..5).await;
    let command = doc! {"renameCollection": "views.c", "to": "views.v"};
    from.database("admin").run_command(command).await.expect("renames");
    fill(&from, "views", "v", 20..25).await;
    until("what was renamed", async || count(&to, "views", "v").await == 25 && count(&to, "views", "w").await == 5)
        .await;
    run.cut_over().await;
    compare(&from, &to, &["views"]).await.expect("equal");
}

/// Before 6.0 an event has a name alone, and by the time it is applied a view may have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_has_the_name_of_a_former_collection_gets_no_documents() {
    let Pair { source, destination, from, to } = old_pair().await;
    fill(&from, "former", "a", 0..20).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["former.*"]);
    dies_before_the_plan(&mut settings).await;
    let db = from.database("former");
    fill(&from, "former", "c", 0..20).await;
    db.collection::<Document>("c").drop().await.expect("drops");
    db.run_command(doc! {"create": "c", "viewOn": "a", "pipeline": []}).await.expect("creates");
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    fill(&from, "former", "a", 20..25).await;
    run.cut_over().await;
    compare(&from, &to, &["former"]).await.expect("equal");
}

async fn old_pair() -> Pair {
    let start = || ReplicaSet::builder().version("5.0.4").start();
    let (source, destination) = tokio::join!(start(), start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    Pair { source, destination, from, to }
}

/// Commands of the engine that the destination carries out just now, of this kind.
async fn running(client: &Client, kind: &str) -> usize {
    let stages = vec![
        doc! {"$currentOp": {"allUsers": true}},
        doc! {"$match": {"appName": "limosa", format!("command.{kind}"): {"$exists": true}}},
    ];
    let found = client.database("admin").aggregate(stages).await.expect("lists");
    found.try_collect::<Vec<_>>().await.expect("lists").len()
}

/// A drop that hangs in the server outlives its engine, and must not take what its successor has made in that place.
async fn a_late_drop_takes_nothing(pair: Pair) {
    let Pair { source, destination, from, to } = pair;
    fill(&from, "late", "a", 0..20).await;
    fill(&from, "late", "c", 0..20).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["late.*"]);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    once(&to, "drop", doc! {"blockConnection": true, "blockTimeMS": 20_000}).await;
    from.database("late").collection::<Document>("c").drop().await.expect("drops");
    until("the drop", async || running(&to, "drop").await == 1).await;
    run.kill().await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let create = doc! {"create": "c", "validator": {"v": {"$exists": true}}};
    from.database("late").run_command(create).await.expect("creates");
    fill(&from, "late", "c", 0..500).await;
    until("the new collection", async || count(&to, "late", "c").await == 500).await;
    until("the end of the late drop", async || running(&to, "drop").await == 0).await;
    fill(&from, "late", "c", 500..510).await;
    equal(&from, &to, "late").await;
    let report = run.cut_over_and_tell().await;
    assert_eq!(report.progress.documents_repaired, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_outlives_its_engine_takes_nothing_of_its_successor() {
    a_late_drop_takes_nothing(Pair::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_outlives_its_engine_takes_nothing_of_its_successor_before_6_0() {
    a_late_drop_takes_nothing(old_pair().await).await;
}

/// How often the server was given this command.
async fn given(client: &Client, command: &str) -> i64 {
    metric(client, &["commands", command, "total"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_the_majority_may_not_have_is_given_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "unmet", "a", 0..20).await;
    let db = from.database("unmet");
    let index = doc! {"createIndexes": "a", "indexes": [{"key": {"v": 1}, "name": "v"}]};
    db.run_command(index).await.expect("builds");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&of(&source, &destination, dir.path(), &["unmet.*"]));
    run.reach(PhaseKind::Synced).await;
    let commands = [
        ("create", doc! {"create": "b"}),
        ("collMod", doc! {"collMod": "a", "validator": {"v": {"$exists": true}}}),
        ("dropIndexes", doc! {"dropIndexes": "a", "index": "v"}),
        ("drop", doc! {"drop": "b"}),
    ];
    for (name, command) in commands {
        let before = given(&to, name).await;
        once(&to, name, doc! {"writeConcernError": {"code": 64, "errmsg": "not replicated"}}).await;
        db.run_command(command).await.expect("is carried out");
        until(&format!("another {name}"), async || given(&to, name).await == before + 2).await;
        equal(&from, &to, "unmet").await;
    }
    run.cut_over().await;
}

/// `create` refuses such a collection, so it is made in the two steps in which the source made it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clustered_collection_that_was_made_capped_arrives() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let db = from.database("clustered");
    let make = async |name: &str| {
        let key = doc! {"key": {"_id": 1}, "unique": true};
        db.run_command(doc! {"create": name, "clusteredIndex": key}).await.expect("creates");
        fill(&from, "clustered", name, 0..20).await;
        db.run_command(doc! {"convertToCapped": name, "size": 60_000}).await.expect("converts");
    };
    make("before").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&of(&source, &destination, dir.path(), &["clustered.*"]));
    run.reach(PhaseKind::Synced).await;
    make("meanwhile").await;
    equal(&from, &to, "clustered").await;
    run.cut_over().await;
    compare(&from, &to, &["clustered"]).await.expect("equal");
}

/// Folds the case of letters, and takes no symbols.
fn collated() -> Document {
    doc! {"collation": {"locale": "en", "strength": 2}}
}

async fn create(client: &Client, db: &str, coll: &str, options: Document) {
    let mut command = doc! {"create": coll};
    command.extend(options);
    client.database(db).run_command(command).await.expect("creates");
}

/// With `_id`s that are equal to those of strings, and that no collated collection takes.
async fn insert_symbols(client: &Client, db: &str, coll: &str) {
    let documents = ["a", "b"].map(|id| doc! {"_id": Bson::Symbol(id.to_owned()), "in": coll});
    client.database(db).collection(coll).insert_many(documents).await.expect("inserts");
}

async fn older_source() -> (ReplicaSet, ReplicaSet) {
    let (source, destination) = tokio::join!(ReplicaSet::builder().version("5.0.4").start(), ReplicaSet::start());
    (source.expect("starts"), destination.expect("starts"))
}

/// Before 6.0 the stream doesn't show how a collection was made; the one that has its name by now takes other documents.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_made_like_its_successor_takes_what_it_can() {
    let (source, destination) = older_source().await;
    let (from, to) = (source.client().await, destination.client().await);
    fill(&from, "like", "seed", 0..10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = of(&source, &destination, dir.path(), &["like.*"]);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    // The stream is read again from here.
    tokio::time::sleep(Duration::from_secs(3)).await;
    run.kill().await;
    settings.epoch = settings.epoch.next();
    insert_symbols(&from, "like", "one").await;
    rename(&from, "like.one", "like.two").await;
    create(&from, "like", "one", collated()).await;
    from.database("like").collection("one").insert_one(doc! {"_id": "a", "n": 1}).await.expect("inserts");
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    equal(&from, &to, "like").await;
    run.cut_over().await;
    compare(&from, &to, &["like"]).await.expect("equal");
}
