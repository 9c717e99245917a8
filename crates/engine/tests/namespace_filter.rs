//! What is chosen by patterns: exclusion wins, and what crosses the border of the chosen namespaces comes as a whole or
//! goes as a whole.

use crate::support::{Pair, Run, hold_reads, settings};
use bson::{Document, doc};
use limosa_model::PhaseKind;
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;

/// The namespaces that are left out of `inside`, for what happens at `when`.
const HIDDEN: &[&str] = &["hidden", "hidden2", "hidden3", "hidden4", "hidden5", "hidden_view"];

fn name(when: &str, of: &str) -> String {
    format!("{when}_{of}")
}

async fn fill(client: &Client, db: &str, coll: &str) {
    let documents: Vec<Document> = (0..50).map(|n| doc! {"_id": n, "of": coll, "n": {"x": n}}).collect();
    client.database(db).collection(coll).insert_many(documents).await.expect("inserts");
    let indexes = doc! {"createIndexes": coll, "indexes": [{"key": {"of": 1, "n": 1}, "name": "i", "unique": true}]};
    client.database(db).run_command(indexes).await.expect("indexes");
}

async fn set_up(client: &Client, when: &str) {
    for of in ["leaves", "replaced", "stays", "goes_far", "hidden", "hidden2", "hidden4", "hidden5"] {
        fill(client, "inside", &name(when, of)).await;
    }
    fill(client, "outside", &name(when, "far")).await;
}

async fn change(client: &Client, when: &str) {
    let rename = async |from: &str, to: &str| {
        let command = doc! {"renameCollection": from, "to": to, "dropTarget": true};
        client.database("admin").run_command(command).await.expect("renames");
    };
    let inside = |of: &str| format!("inside.{}", name(when, of));
    let outside = |of: &str| format!("outside.{}", name(when, of));
    let touch = async |of: &str| {
        let collection = client.database("inside").collection::<Document>(&name(when, of));
        collection.update_many(doc! {"_id": {"$lt": 20}}, doc! {"$set": {"n.deep": 1}}).await.expect("updates");
        collection.delete_one(doc! {"_id": 30}).await.expect("deletes");
        collection.insert_one(doc! {"_id": format!("later {of}"), "of": of, "n": -1}).await.expect("inserts");
    };
    // Out, and written to there.
    rename(&inside("leaves"), &inside("hidden3")).await;
    touch("hidden3").await;
    // In, and over one that is there.
    touch("hidden").await;
    rename(&inside("hidden"), &inside("came")).await;
    touch("came").await;
    rename(&inside("hidden2"), &inside("replaced")).await;
    touch("replaced").await;
    // Out over one that is there, changed, and in again.
    rename(&inside("stays"), &inside("hidden4")).await;
    touch("hidden4").await;
    rename(&inside("hidden4"), &inside("stays")).await;
    // To and from a database that isn't chosen.
    rename(&inside("goes_far"), &outside("gone")).await;
    rename(&outside("far"), &inside("from_far")).await;
    touch("from_far").await;
    let db = client.database("inside");
    for (view, on) in [("view", "hidden5"), ("hidden_view", "came")] {
        db.run_command(doc! {"create": name(when, view), "viewOn": name(when, on), "pipeline": []})
            .await
            .expect("creates");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crosses_the_border_of_the_chosen_namespaces_is_never_half_done() {
    cross_the_border("6.0.5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crosses_the_border_is_never_half_done_where_events_tell_names_alone() {
    cross_the_border("5.0.4").await;
}

async fn cross_the_border(version: &str) {
    let (source, destination) = tokio::join!(ReplicaSet::builder().version(version).start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let moments = ["before", "held", "after"];
    for when in moments {
        set_up(&from, when).await;
    }
    fill(&from, "inside", "excluded").await;
    fill(&from, "one", "chosen").await;
    fill(&from, "one", "other").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let patterns = |all: Vec<String>| all.iter().map(|p| p.parse().expect("a pattern")).collect::<Vec<_>>();
    // Named by both: exclusion wins.
    settings.filter.include = patterns(vec!["inside.*".into(), "inside.excluded".into(), "one.chosen".into()]);
    let hidden = moments.iter().flat_map(|when| HIDDEN.iter().map(|of| format!("inside.{}", name(when, of))));
    settings.filter.exclude = patterns(hidden.chain(["inside.excluded".into()]).collect());
    change(&from, "before").await;
    // The copy goes by name, and this collection holds its only worker.
    from.database("inside").collection("0held").insert_one(doc! {"_id": 1}).await.expect("inserts");
    settings.tuning.copy_workers = 1;
    hold_reads(&from, "inside.0held", true).await;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Copying).await;
    change(&from, "held").await;
    assert_eq!(run.report().phase, PhaseKind::Copying, "the copy was not held");
    hold_reads(&from, "inside.0held", false).await;
    run.reach(PhaseKind::Synced).await;
    change(&from, "after").await;
    run.cut_over().await;
    // Without what was not chosen the source is what the destination is.
    let all = from.database("inside").list_collection_names().await.expect("lists");
    for name in all.iter().filter(|n| HIDDEN.iter().any(|of| n.ends_with(&format!("_{of}"))) || *n == "excluded") {
        from.database("inside").collection::<Document>(name).drop().await.expect("drops");
    }
    from.database("one").collection::<Document>("other").drop().await.expect("drops");
    from.database("outside").drop().await.expect("drops");
    compare(&from, &to, &["inside", "one", "outside"]).await.expect("equal");
    let here = to.database("inside").list_collection_names().await.expect("lists");
    for when in moments {
        assert!(
            ["came", "replaced", "stays", "from_far", "view"].iter().all(|of| here.contains(&name(when, of))),
            "{here:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_in_the_stream_moves_on_while_all_traffic_is_left_out() {
    let Pair { source, destination, from, to } = Pair::start().await;
    fill(&from, "quiet", "c").await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    settings.filter.include = vec!["quiet.*".parse().expect("a pattern")];
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let token = async || {
        let migrations = to.database("__limosa").collection::<Document>("migrations");
        let found = migrations.find_one(doc! {"_id": settings.migration_id.to_string()}).await.expect("reads");
        found.expect("is there").get_document("token").cloned().expect("has a token")
    };
    let before = token().await;
    let noise: Vec<Document> = (0..3_000).map(|n| doc! {"n": n}).collect();
    from.database("noisy").collection("c").insert_many(noise).await.expect("inserts");
    let began = std::time::Instant::now();
    while token().await == before {
        assert!(began.elapsed().as_secs() < 30, "the token stands still");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(run.report().progress.lag_seconds.is_some_and(|lag| lag <= 2), "{:?}", run.report());
    run.cut_over().await;
    compare(&from, &to, &["quiet"]).await.expect("equal");
    assert!(!to.list_database_names().await.expect("lists").contains(&"noisy".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_the_destination_does_not_take_is_refused_by_its_name() {
    let (source, destination) = tokio::join!(ReplicaSet::builder().version("5.0.4").start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let from = source.client().await;
    from.database("app").run_command(doc! {"create": "c", "recordPreImages": true}).await.expect("creates");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(&source, &destination, dir.path());
    let found = limosa_engine::preflight(&settings).await;
    let errors: Vec<_> = found.iter().filter(|f| f.is_error()).collect();
    assert!(errors.len() == 1 && errors[0].evidence.contains("app.c has the option recordPreImages"), "{found:?}");
    from.database("app").run_command(doc! {"collMod": "c", "recordPreImages": false}).await.expect("turns it off");
    let found = limosa_engine::preflight(&settings).await;
    assert!(!found.iter().any(|f| f.is_error()), "{found:?}");
    Run::start(&settings).cut_over().await;
}
