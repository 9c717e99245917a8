//! `limosa verify`: what is equal, what isn't and where, and what can't be said.

use crate::support::{finish, limosa};
use bson::{Bson, Document, doc};
use limosa_testkit::{ReplicaSet, replica_set::ADMIN};
use mongodb::Client;
use serde_json::Value;
use std::process::Command;

fn verify(source: &str, destination: &str) -> Command {
    let mut command = limosa();
    command.env("LIMOSA_SOURCE_URI", source).env("LIMOSA_DESTINATION_URI", destination);
    command.args(["verify", "--output", "json"]);
    command
}

fn verify_in_words(source: &str, destination: &str) -> Command {
    let mut command = limosa();
    command.args(["verify", "--source", source, "--destination", destination]);
    command
}

/// Collections whose `_id`s are in different orders, on both sides the same.
async fn seed(client: &Client) {
    let db = client.database("app");
    for command in [
        doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}},
        doc! {"create": "folded", "collation": {"locale": "en", "strength": 2}},
        doc! {"create": "ring", "capped": true, "size": 1_000_000},
        doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}},
        doc! {"create": "seen", "viewOn": "plain", "pipeline": [{"$match": {"n": 1}}]},
        doc! {"create": "strict", "validator": {"a": {"$type": "int"}}},
        doc! {"createIndexes": "plain", "indexes": [{"key": {"n": 1}, "name": "n"}, {"key": {"u": 1}, "name": "u", "sparse": true}]},
    ] {
        db.run_command(command).await.expect("is taken");
    }
    let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
    let mut ids: Vec<Bson> =
        (0..3000).map(|n| if n % 3 == 0 { Bson::Double(f64::from(n)) } else { n.into() }).collect();
    ids.extend((0..500).map(|n| Bson::String(format!("{}{n}", if n % 2 == 0 { "Key" } else { "key" }))));
    ids.extend([
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        f64::NAN.into(),
        decimal("0.1"),
        decimal("1E+30"),
        true.into(),
    ]);
    ids.extend([doc! {"a": 1}.into(), doc! {"a": "x"}.into(), doc! {"b": 0, "a": 9}.into()]);
    for name in ["plain", "clustered", "folded", "ring"] {
        let documents: Vec<Document> =
            ids.iter().map(|id| doc! {"_id": id.clone(), "n": 1, "deep": {"list": [1, {"x": "y"}]}}).collect();
        db.collection(name).insert_many(documents).await.expect("inserts");
    }
}

/// The buckets of a time-series collection have `_id`s of their server's making; they are carried over as they are.
async fn seed_series(from: &Client, to: &Client) {
    let measured: Vec<Document> =
        (0..500).map(|n| doc! {"t": bson::DateTime::from_millis(n * 60_000), "m": n % 3, "v": n}).collect();
    from.database("app").collection("series").insert_many(measured).await.expect("inserts");
    let buckets = |client: &Client| client.database("app").collection::<Document>("system.buckets.series");
    let mut found = buckets(from).find(doc! {}).await.expect("reads");
    while found.advance().await.expect("reads") {
        buckets(to).insert_one(found.deserialize_current().expect("reads")).await.expect("inserts");
    }
}

fn of<'a>(report: &'a Value, namespace: &str) -> &'a Value {
    let all = report["namespaces"].as_array().expect("a list");
    all.iter().find(|n| n["namespace"] == namespace).unwrap_or_else(|| panic!("{namespace} is not in {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_are_equal_until_something_is_changed_and_then_it_is_named() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    tokio::join!(seed(&from), seed(&to));
    seed_series(&from, &to).await;
    let (status, said, errors) = finish(&mut verify(&source.uri(), &destination.uri()));
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(status, 0, "{said} {errors}");
    for name in ["plain", "clustered", "folded", "ring"] {
        assert_eq!(of(&report, &format!("app.{name}"))["documentsCompared"], 3510, "{report}");
        assert!(of(&report, &format!("app.{name}"))["digest"].is_string(), "{report}");
    }
    assert!(of(&report, "app.system.buckets.series")["documentsCompared"].as_u64() > Some(0), "{report}");

    let db = to.database("app");
    let plain = db.collection::<Document>("plain");
    let set = async |name: &str, id: Bson, update: Document| {
        let done = db.collection::<Document>(name).update_one(doc! {"_id": id}, update).await.expect("updates");
        assert_eq!(done.modified_count, 1);
    };
    set("plain", 1.into(), doc! {"$set": {"deep.list.1.x": "z"}}).await;
    set("plain", "Key0".into(), doc! {"$set": {"n": 1_i64}}).await;
    set("plain", Bson::MaxKey, doc! {"$set": {"more": 1}}).await;
    set("folded", "key1".into(), doc! {"$set": {"n": 2}}).await;
    set("clustered", Bson::Null, doc! {"$unset": {"deep": 1}}).await;
    set("ring", f64::NAN.into(), doc! {"$set": {"n": 3}}).await;
    let swapped = doc! {"_id": 2, "deep": {"list": [1, {"x": "y"}]}, "n": 1};
    plain.replace_one(doc! {"_id": 2}, swapped).await.expect("replaces");
    plain.delete_one(doc! {"_id": "key499"}).await.expect("deletes");
    db.collection::<Document>("folded").delete_one(doc! {"_id": 5}).await.expect("deletes");
    db.collection::<Document>("folded").insert_one(doc! {"_id": "other"}).await.expect("inserts");
    plain.insert_one(doc! {"_id": 1.5}).await.expect("inserts");
    db.collection::<Document>("system.buckets.series").delete_one(doc! {}).await.expect("deletes");
    for command in [
        doc! {"collMod": "strict", "validationLevel": "off"},
        doc! {"collMod": "seen", "viewOn": "plain", "pipeline": []},
        doc! {"dropIndexes": "plain", "index": "n"},
        doc! {"collMod": "plain", "index": {"name": "u", "hidden": true}},
        doc! {"create": "more"},
    ] {
        db.run_command(command).await.expect("is taken");
    }
    let (status, said, errors) = finish(&mut verify(&source.uri(), &destination.uri()));
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((status, &report["equal"]), (1, &false.into()), "{said} {errors}");
    for (name, missing, extra, different) in [
        ("plain", 1, 1, 4),
        ("folded", 1, 1, 1),
        ("clustered", 0, 0, 1),
        ("ring", 0, 0, 1),
        ("system.buckets.series", 1, 0, 0),
    ] {
        let found = of(&report, &format!("app.{name}"));
        assert_eq!(
            (&found["missing"], &found["extra"], &found["different"]),
            (&missing.into(), &extra.into(), &different.into()),
            "{found}"
        );
        assert_eq!(found["differences"].as_array().map(Vec::len), Some(missing + extra + different), "{found}");
        assert!(found["digest"].is_null(), "{found}");
    }
    let told = |id: Value| {
        let all = of(&report, "app.plain")["differences"].as_array().expect("a list").clone();
        let found = all.into_iter().find(|d| d["id"] == id).unwrap_or_else(|| panic!("{id} is not in {said}"));
        (
            found["path"].as_str().unwrap_or_default().to_owned(),
            found["departure"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let expect = |path: &str, departure: &str| (path.to_owned(), departure.to_owned());
    assert_eq!(told(1.into()), expect("deep.list.1.x", "value"));
    assert_eq!(told(2.into()), expect("n", "fieldOrder"));
    assert_eq!(told("Key0".into()), expect("n", "type"));
    assert_eq!(told(serde_json::json!({"$maxKey": 1})), expect("more", "extra"));
    assert_eq!(told("key499".into()), expect("", "missing"));
    assert_eq!(told(1.5.into()), expect("", "extra"));
    for (name, list, text) in [
        ("strict", "options", "validationLevel"),
        ("seen", "options", "pipeline"),
        ("plain", "indexes", "n is missing"),
        ("plain", "indexes", "u: hidden"),
        ("more", "options", "not on the source"),
    ] {
        assert!(of(&report, &format!("app.{name}"))[list].to_string().contains(text), "{name} {text}: {report}");
    }
    // Without what differs they are equal.
    let except =
        ["plain", "folded", "clustered", "ring", "series", "strict", "seen", "more"].map(|n| format!("app.{n}"));
    let mut command = verify(&source.uri(), &destination.uri());
    for ns in &except {
        command.args(["--exclude-ns", ns]);
    }
    assert_eq!(finish(&mut command).0, 0);
    // Half of 3,510 documents can't miss that all are gone.
    plain.delete_many(doc! {"n": 1}).await.expect("deletes");
    let (status, said, _) =
        finish(verify(&source.uri(), &destination.uri()).args(["--sample", "50%", "--include-ns", "app.plain"]));
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let missing = of(&report, "app.plain")["missing"].as_u64().expect("a number");
    assert!(status == 1 && (1200..2300).contains(&missing), "{said}");
    let (_, said, errors) = finish(&mut verify_in_words(&source.uri(), &destination.uri()));
    assert!(said.contains("DIFFERENT app.plain") && said.contains("and "), "{said}");
    assert!(errors.contains("different in"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_a_capped_collection_counts() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    for client in [&from, &to] {
        let db = client.database("app");
        db.run_command(doc! {"create": "ring", "capped": true, "size": 1_000_000}).await.expect("creates");
        let documents: Vec<Document> = (0..3_000).map(|n| doc! {"_id": n, "n": "x"}).collect();
        db.collection("ring").insert_many(documents).await.expect("inserts");
    }
    assert_eq!(finish(&mut verify(&source.uri(), &destination.uri())).0, 0);
    let ring = to.database("app").collection::<Document>("ring");
    ring.delete_one(doc! {"_id": 1_700}).await.expect("deletes");
    ring.insert_one(doc! {"_id": 1_700, "n": "x"}).await.expect("inserts");
    for settle in ["0", "1"] {
        let mut command = verify(&source.uri(), &destination.uri());
        let (status, said, errors) = finish(command.args(["--settle", settle]));
        let report: Value = serde_json::from_str(&said).expect("JSON");
        let found = of(&report, "app.ring");
        assert_eq!((status, &found["outOfOrder"]), (1, &serde_json::json!([1_700, 1_701])), "{said} {errors}");
        let counts = ["missing", "extra", "different"].map(|name| found[name].as_u64());
        assert_eq!((counts, &found["digest"]), ([Some(0); 3], &Value::Null), "{found}");
    }
    let (_, said, _) = finish(&mut verify_in_words(&source.uri(), &destination.uri()));
    assert!(said.contains("order: _id 1700 stands before _id 1701"), "{said}");
    // What has gone from the beginning of one side, or hasn't come to its end yet, is missing and not out of order.
    ring.delete_many(doc! {"_id": {"$in": [0, 1, 1_700, 2_999]}}).await.expect("deletes");
    let (status, said, _) = finish(&mut verify(&source.uri(), &destination.uri()));
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let found = of(&report, "app.ring");
    assert_eq!((status, &found["missing"], found.get("outOfOrder")), (1, &4.into(), None), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_settle_only_differences_that_last_count() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let (a, b) = (from.database("app").collection("c"), to.database("app").collection("c"));
    let documents = |n: i32| (0..n).map(|n| doc! {"_id": n, "v": 0}).collect::<Vec<Document>>();
    a.insert_many(documents(2000)).await.expect("inserts");
    b.insert_many(documents(1000)).await.expect("inserts");
    // A tool that lags behind: it brings what is missing a second later, and something else changes all the time.
    let lagging = tokio::spawn({
        let b = b.clone();
        async move {
            for round in 0..30 {
                if (10..20).contains(&round) {
                    let more = (0..100)
                        .map(|n| doc! {"_id": 1000 + (round - 10) * 100 + n, "v": 0})
                        .collect::<Vec<Document>>();
                    b.insert_many(more).await.expect("inserts");
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    });
    let (status, said, errors) = finish(verify(&source.uri(), &destination.uri()).args(["--settle", "4"]));
    assert_eq!(status, 0, "{said} {errors}");
    lagging.await.expect("ends");
    b.update_one(doc! {"_id": 7}, doc! {"$set": {"v": 1}}).await.expect("updates");
    let (status, said, errors) = finish(verify(&source.uri(), &destination.uri()).args(["--settle", "1"]));
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((status, &of(&report, "app.c")["different"]), (1, &1.into()), "{said} {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_ends_with_2_and_its_code() {
    let guarded = ReplicaSet::builder().auth(true).start().await.expect("starts");
    let free = ReplicaSet::start().await.expect("starts");
    let nowhere = "mongodb://user:hunter2@127.0.0.1:1/?replicaSet=rs&serverSelectionTimeoutMS=500";
    let wrong = guarded.uri_with(Some((ADMIN.0, "hunter2")));
    for (code, a, b) in [
        ("SOURCE_UNREACHABLE", nowhere, free.uri().as_str()),
        ("DESTINATION_UNREACHABLE", &free.uri(), nowhere),
        ("SOURCE_AUTHENTICATION_FAILED", &wrong, &free.uri()),
        ("DESTINATION_AUTHENTICATION_FAILED", &free.uri(), &wrong),
        ("INSUFFICIENT_PRIVILEGES", &guarded.uri_with(None), &free.uri()),
        ("SAME_CLUSTER", &free.uri(), &free.uri()),
        ("MALFORMED_URI", "mongodb://user:hunter2@@", &free.uri()),
    ] {
        let (status, said, errors) = finish(&mut verify(a, b));
        assert_eq!((status, said.as_str()), (2, ""), "{code}: {errors}");
        assert!(errors.contains(code) && !errors.contains("hunter2"), "{code}: {errors}");
    }
}
