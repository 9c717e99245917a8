//! Copy, catch-up and cutover under writers.

use crate::support::{Pair, Run, settings};
use bson::{Bson, Document, RawDocumentBuf, doc};
use limosa_testkit::{ReplicaSet, compare, workload::Workload};
use mongodb::Client;

/// Documents of many `_id` types, indexes of many kinds, a view, a capped and a time-series collection.
async fn seed(client: &Client, documents: i32) {
    let db = client.database("shop");
    for name in ["alpha", "beta"] {
        for chunk in (0..documents).collect::<Vec<_>>().chunks(5_000) {
            let documents: Vec<Document> =
                chunk.iter().map(|n| doc! {"_id": format!("seed-{n}"), "n": n, "payload": "p".repeat(200)}).collect();
            db.collection(name).insert_many(documents).await.expect("inserts");
        }
    }
    let ids: Vec<Bson> = vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        f64::NAN.into(),
        f64::INFINITY.into(),
        (-0.0).into(),
        true.into(),
        "NaN".into(),
        doc! {"a": 1, "b": 2}.into(),
        doc! {"b": 2, "a": 1}.into(),
        bson::oid::ObjectId::new().into(),
    ];
    let odd: Vec<Document> = ids.into_iter().map(|id| doc! {"_id": id, "x": {"": 1, "a.b": 2}}).collect();
    db.collection("odd").insert_many(odd).await.expect("inserts");
    let commands = [
        doc! {"createIndexes": "alpha", "indexes": [
            {"key": {"n": 1}, "name": "n_1"}, {"key": {"payload": 1, "n": -1}, "name": "by payload", "sparse": true},
            {"key": {"created": 1}, "name": "ttl", "expireAfterSeconds": 3600},
        ]},
        doc! {"createIndexes": "odd", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true, "partialFilterExpression": {"u": {"$exists": true}}}]},
        doc! {"create": "ring", "capped": true, "size": 1_048_576},
        doc! {"create": "view", "viewOn": "alpha", "pipeline": [{"$match": {"n": 1}}]},
        doc! {"create": "strict", "validator": {"a": {"$type": "int"}}, "validationLevel": "moderate"},
        doc! {"create": "folded", "collation": {"locale": "en", "strength": 2}},
    ];
    for command in commands {
        db.run_command(command).await.expect("the source takes it");
    }
    db.collection("ring").insert_many((0..50).map(|n| doc! {"n": n}).collect::<Vec<_>>()).await.expect("inserts");
}

async fn migrate_under_writers(version: &str, documents: i32) {
    let source = ReplicaSet::builder().version(version).start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, documents).await;
    let dir = tempfile::tempdir().expect("a directory");
    let writers = Workload::start(&from, "shop", 42, 4);
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(limosa_model::PhaseKind::Synced).await;
    let acknowledged = writers.stop("shop").await.expect("writes");
    assert!(acknowledged.writes > 100, "the writers did nothing");
    let progress = run.cut_over().await;
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["shop"]).await.expect("equal");
    assert!(progress.events_applied > 0 && progress.write_pause_millis.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_writers_arrives_whole() {
    migrate_under_writers("6.0.5", 20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_4_4() {
    migrate_under_writers("4.4.2", 3_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_5_0() {
    migrate_under_writers("5.0.4", 3_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_later_6_0() {
    migrate_under_writers("6.0.27", 3_000).await;
}

/// Of an event that is split, each part has the token, which holds the `_id`, and a field goes undivided.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_split_small_enough_is_stepped_past() {
    let (source, destination) = tokio::join!(ReplicaSet::builder().version("6.0.27").start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let collection = from.database("app").collection::<Document>("c");
    let document = |bytes: usize| doc! {"_id": "i".repeat(700_000), "x": "x".repeat(bytes)};
    collection.insert_one(document(1)).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(limosa_model::PhaseKind::Synced).await;
    collection.insert_one(doc! {"_id": "before"}).await.expect("inserts");
    collection.replace_one(doc! {}, document(15_200_000)).await.expect("replaces");
    collection.insert_one(doc! {"_id": "after"}).await.expect("inserts");
    run.cut_over().await;
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_is_no_number_becomes_what_later_releases_make_of_it() {
    let (source, destination) = tokio::join!(ReplicaSet::builder().version("4.4.2").start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let index = doc! {"key": {"when": 1}, "name": "ttl", "expireAfterSeconds": f64::NAN};
    from.database("app").run_command(doc! {"createIndexes": "c", "indexes": [index]}).await.expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    Run::start(&settings(&source, &destination, dir.path())).cut_over().await;
    let listed = to.database("app").run_command(doc! {"listIndexes": "c"}).await.expect("lists");
    let indexes = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).expect("a cursor");
    let expiry = indexes.iter().filter_map(|index| index.as_document()?.get_i32("expireAfterSeconds").ok());
    assert_eq!(expiry.collect::<Vec<_>>(), [i32::MAX]);
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_during_replication_are_carried_over() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let db = from.database("ddl");
    for n in 0..10 {
        db.collection(&format!("ring{n}")).insert_one(doc! {"_id": n}).await.expect("inserts");
    }
    db.collection("again").insert_one(doc! {"_id": "first"}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(limosa_model::PhaseKind::Synced).await;
    let admin = from.database("admin");
    let rename = async |a: &str, b: &str| {
        admin
            .run_command(doc! {"renameCollection": format!("ddl.{a}"), "to": format!("ddl.{b}")})
            .await
            .expect("renames");
    };
    rename("ring9", "spare").await;
    for n in (0..9).rev() {
        rename(&format!("ring{n}"), &format!("ring{}", n + 1)).await;
    }
    rename("spare", "ring0").await;
    db.collection::<Document>("again").drop().await.expect("drops");
    db.collection("again").insert_one(doc! {"_id": "second"}).await.expect("inserts");
    db.collection("fields").insert_one(doc! {"_id": 1, "m": 1}).await.expect("inserts");
    let pipeline = vec![doc! {"$set": {"z": 1, "a": "$m", "lit": {"$literal": "$m"}}}];
    db.collection::<Document>("fields").update_one(doc! {"_id": 1}, pipeline).await.expect("updates");
    let out = vec![doc! {"$match": {}}, doc! {"$out": "copied"}];
    for _ in 0..2 {
        db.collection::<Document>("fields").aggregate(out.clone()).await.expect("aggregates");
    }
    db.run_command(doc! {"createIndexes": "again", "indexes": [{"key": {"a": 1}, "name": "a", "unique": true}]})
        .await
        .expect("indexes");
    db.run_command(doc! {"collMod": "again", "validator": {"a": 1}, "validationLevel": "off"}).await.expect("modifies");
    from.database("gone").collection("x").insert_one(doc! {}).await.expect("inserts");
    from.database("gone").drop().await.expect("drops");
    run.cut_over().await;
    compare(&from, &to, &["ddl", "gone"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_still_written_to_is_not_cut_over() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let db = from.database("busy");
    db.collection("c").insert_one(doc! {"_id": 0}).await.expect("inserts");
    db.run_command(doc! {"createIndexes": "c", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]})
        .await
        .expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(limosa_model::PhaseKind::Synced).await;
    let writers = Workload::start(&from, "busy", 7, 2);
    run.order(limosa_model::protocol::Directive::CutOver);
    run.reach(limosa_model::PhaseKind::CuttingOver).await;
    let back = run.reach(limosa_model::PhaseKind::Synced).await;
    assert_eq!(back.failure.map(|f| f.code), Some(limosa_model::ErrorCode::SourceWrittenDuringCutover));
    let acknowledged = writers.stop("busy").await.expect("writes");
    run.order(limosa_model::protocol::Directive::Run);
    run.reach_quietly(limosa_model::PhaseKind::Synced).await;
    run.cut_over().await;
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["busy"]).await.expect("equal");
    let none: Option<RawDocumentBuf> =
        to.database("busy").collection("c").find_one(doc! {"_id": "nothing"}).await.expect("reads");
    assert_eq!(none, None);
}
