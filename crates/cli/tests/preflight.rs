//! Every finding of `limosa check`, provoked on real servers; what only an error keeps from starting.

use crate::support::{Running, finish, limosa, migrate, verb};
use bson::{Document, doc};
use limosa_testkit::{
    ReplicaSet, compare,
    disk::SmallDisk,
    replica_set::{ADMIN, Role},
};
use mongodb::Client;
use serde_json::Value;
use std::path::Path;

/// Status and findings, by code.
fn check(source: &str, destination: &str) -> (i32, Vec<Value>) {
    let mut command = limosa();
    command.env("LIMOSA_SOURCE_URI", source).env("LIMOSA_DESTINATION_URI", destination);
    let (status, said, errors) = finish(command.args(["check", "--output", "json"]));
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said} {errors}"));
    let findings = report["findings"].as_array().expect("a list").clone();
    for finding in &findings {
        let has = |name: &str| finding[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(has("evidence") && has("remedy") && has("subject"), "{finding}");
        assert!(errors.contains(finding["code"].as_str().unwrap_or("-")), "{errors}");
    }
    assert_eq!(report["canStart"], status == 0, "{report}");
    (status, findings)
}

#[track_caller]
fn finds(findings: &[Value], code: &str, severity: &str, subject: &str, evidence: &str) {
    let found =
        findings.iter().find(|f| f["code"] == code && f["subject"].as_str().is_some_and(|s| s.contains(subject)));
    let found = found.unwrap_or_else(|| panic!("no {code} about {subject} in {findings:#?}"));
    assert_eq!(found["severity"], severity, "{found}");
    assert!(found["evidence"].as_str().is_some_and(|e| e.contains(evidence)), "{found}");
}

async fn run(client: &Client, db: &str, command: Document) {
    client.database(db).run_command(command).await.expect("is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_holds_is_judged() {
    let source = ReplicaSet::builder().oplog_mb(8).start().await.expect("starts");
    let destination = ReplicaSet::builder().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    assert_eq!(check(&destination.uri(), &source.uri()).0, 0);
    run(
        &from,
        "app",
        doc! {"createIndexes": "c", "indexes": [
            {"key": {"a": 1}, "name": "plain"}, {"key": {"a": 1}, "name": "unique", "unique": true},
        ]},
    )
    .await;
    // Faster than its oplog can hold for an hour.
    for _ in 0..12 {
        let documents: Vec<Document> = (0..1_000).map(|_| doc! {"p": "p".repeat(1_000)}).collect();
        from.database("app").collection("bulk").insert_many(documents).await.expect("inserts");
    }
    to.database("APP").collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let encrypted = doc! {"fields": [{"path": "secret", "bsonType": "string",
    "keyId": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] }}]};
    run(&from, "vault", doc! {"create": "sealed", "encryptedFields": encrypted}).await;
    let (status, findings) = check(&source.uri(), &destination.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "SAME_INDEX_KEYS", "WARNING", "app.c", "plain, unique");
    finds(&findings, "SHORT_OPLOG", "WARNING", "source", "8 MiB");
    finds(&findings, "NAMES_DIFFER_IN_CASE", "ERROR", "app", "APP");
    finds(&findings, "UNSUPPORTED_COLLECTION", "ERROR", "vault.sealed", "encryption");
    finds(&findings, "DESTINATION_NOT_EMPTY", "ERROR", "APP.c", "1 of");
    // Without the errors the warnings don't stand in the way.
    to.database("APP").drop().await.expect("drops");
    from.database("vault").drop().await.expect("drops");
    let (status, findings) = check(&source.uri(), &destination.uri());
    assert_eq!((status, findings.len()), (0, 2), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_carried_over_is_named_and_what_is_only_called_alike_is_carried() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let names = ["percona_stats", "mongosync_notes", "__mdb_internal_of_ours"];
    let tools = ["percona_clustersync_mongodb", "mongosync_reserved_for_internal_use"];
    for db in names.iter().chain(&tools) {
        from.database(db).collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    }
    from.database("admin").collection("settings").insert_one(doc! {"_id": 1}).await.expect("inserts");
    run(&from, "admin", doc! {"create": "shown", "viewOn": "settings", "pipeline": []}).await;
    let function = doc! {"_id": "add", "value": bson::Bson::JavaScriptCode("function(a) { return a }".to_owned())};
    from.database("scripts").collection("system.js").insert_one(function).await.expect("inserts");
    let (status, findings) = check(&source.uri(), &destination.uri());
    assert_eq!(status, 0, "{findings:#?}");
    for (subject, evidence) in [
        (tools[0], "Percona"),
        (tools[1], "mongosync"),
        ("admin.settings", "collection admin.settings"),
        ("admin.shown", "view admin.shown"),
        ("scripts.system.js", "stored functions"),
    ] {
        finds(&findings, "NOT_CARRIED_OVER", "WARNING", subject, evidence);
    }
    assert_eq!(findings.iter().filter(|f| f["code"] == "NOT_CARRIED_OVER").count(), 5, "{findings:#?}");
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = migrate(&source.uri(), &destination.uri(), &dir.path().join("state"));
    let (status, said, errors) = finish(command.args(["--cutover", "when-ready"]));
    assert_eq!(status, 0, "{said} {errors}");
    compare(&from, &to, &names).await.expect("equal");
    let report = std::fs::read(dir.path().join("state/report.json")).expect("is kept");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    for told in tools.iter().chain(&["admin.settings", "admin.shown", "scripts.system.js"]) {
        assert!(errors.contains(told), "at the start, {told}: {errors}");
        assert!(report["leftBehind"].to_string().contains(told), "in the report, {told}: {report}");
    }
    // What is Limosa's own is nobody else's.
    let third = ReplicaSet::start().await.expect("starts");
    third.client().await.database("__limosa").collection("notes").insert_one(doc! {"_id": 1}).await.expect("inserts");
    for (a, b, side) in [(&third, &destination, "source"), (&source, &third, "destination")] {
        let (status, findings) = check(&a.uri(), &b.uri());
        assert_eq!(status, 2, "{findings:#?}");
        finds(&findings, "RESERVED_DATABASE", "ERROR", "__limosa.notes", side);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_what_follows_from_them_are_judged() {
    let (old, newer) = tokio::join!(ReplicaSet::builder().version("5.0.4").start(), ReplicaSet::start());
    let (old, newer) = (old.expect("starts"), newer.expect("starts"));
    let other = ReplicaSet::builder().version("5.0.4").start().await.expect("starts");
    let from = old.client().await;
    run(&from, "app", doc! {"create": "series", "timeseries": {"timeField": "t"}}).await;
    run(&from, "app", doc! {"createIndexes": "c", "indexes": [{"key": {"a": 1}, "name": "a", "unique": true}]}).await;
    let (status, findings) = check(&old.uri(), &other.uri());
    assert_eq!(status, 0, "{findings:#?}");
    finds(&findings, "TIME_SERIES_AT_CUTOVER", "WARNING", "app.series", "time-series");
    finds(&findings, "UNIQUE_BUILT_AT_CUTOVER", "WARNING", "app.c", "documents");
    run(&from, "app", doc! {"create": "images", "recordPreImages": true}).await;
    let (status, findings) = check(&old.uri(), &newer.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "UNSUPPORTED_COLLECTION", "ERROR", "app.images", "recordPreImages");
    let (status, findings) = check(&newer.uri(), &other.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "UNSUPPORTED_VERSION", "ERROR", "destination", "older");
    // New programs that still behave like the old ones.
    run(&newer.client().await, "admin", doc! {"setFeatureCompatibilityVersion": "5.0"}).await;
    let third = ReplicaSet::start().await.expect("starts");
    let (status, findings) = check(&third.uri(), &newer.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "UNSUPPORTED_VERSION", "ERROR", "destination", "featureCompatibilityVersion is 5.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_files_are_judged() {
    let guarded = ReplicaSet::builder().auth(true).start().await.expect("starts");
    let free = ReplicaSet::start().await.expect("starts");
    let admin = guarded.client().await;
    for (name, roles) in [
        ("watcher", vec!["clusterMonitor"]),
        ("plain", vec!["readAnyDatabase"]),
        ("reader", vec!["clusterMonitor", "readAnyDatabase"]),
        ("filler", vec!["clusterMonitor", "readWriteAnyDatabase"]),
        ("writer", vec!["clusterMonitor", "readWriteAnyDatabase", "dbAdminAnyDatabase"]),
    ] {
        run(&admin, "admin", doc! {"createUser": name, "pwd": "hunter2", "roles": roles}).await;
    }
    let as_user = |name: &str| guarded.uri_with(Some((name, "hunter2")));
    let (status, findings) = check(&as_user("watcher"), &free.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "INSUFFICIENT_PRIVILEGES", "ERROR", "source", "readAnyDatabase");
    // It may follow the changes, but not list what there is.
    let everywhere = doc! {"resource": {"db": "", "collection": ""}, "actions": ["find", "changeStream"]};
    run(&admin, "admin", doc! {"createRole": "follow", "privileges": [everywhere], "roles": ["clusterMonitor"]}).await;
    run(&admin, "admin", doc! {"createUser": "follower", "pwd": "hunter2", "roles": ["follow"]}).await;
    let (status, findings) = check(&as_user("follower"), &free.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "INSUFFICIENT_PRIVILEGES", "ERROR", "source", "can't read every database");
    let (status, findings) = check(&as_user("plain"), &free.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "INSUFFICIENT_PRIVILEGES", "ERROR", "source", "clusterMonitor");
    assert_eq!(check(&as_user("reader"), &free.uri()).0, 0);
    let (status, findings) = check(&free.uri(), &as_user("reader"));
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "INSUFFICIENT_PRIVILEGES", "ERROR", "destination", "readWriteAnyDatabase and dbAdminAnyDatabase");
    // It may write documents, but not past a collection's rules, nor change these.
    let (status, findings) = check(&free.uri(), &as_user("filler"));
    assert_eq!(status, 2, "{findings:#?}");
    let lacking = "it lacks collMod, bypassDocumentValidation; grant it the role dbAdminAnyDatabase on admin";
    finds(&findings, "INSUFFICIENT_PRIVILEGES", "ERROR", "destination", lacking);
    assert_eq!(check(&free.uri(), &as_user("writer")).0, 0);
    let (_, findings) = check(&free.uri(), &guarded.uri_with(Some((ADMIN.0, "wrong"))));
    finds(&findings, "DESTINATION_AUTHENTICATION_FAILED", "ERROR", "destination", "");
    let uri = format!("{}&tls=true&tlsCAFile=%2Fnowhere%2Fca.pem", free.uri());
    let (status, findings) = check(&uri, &as_user("writer"));
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "CA_FILE_UNREADABLE", "ERROR", "source", "/nowhere/ca.pem");
    let uri = format!("{}&tls=true&tlsCertificateKeyFile=/nowhere/key.pem", free.uri());
    let (_, findings) = check(&as_user("reader"), &uri);
    finds(&findings, "CA_FILE_UNREADABLE", "ERROR", "destination", "/nowhere/key.pem");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_sharded_cluster_is_not_taken_for_the_whole() {
    let of = |role| ReplicaSet::builder().role(role).start();
    let (config, shard, plain) = tokio::join!(of(Role::Config), of(Role::Shard), ReplicaSet::start());
    let (config, shard, plain) = (config.expect("starts"), shard.expect("starts"), plain.expect("starts"));
    for (source, destination, side) in [(&config, &plain, "source"), (&plain, &config, "destination")] {
        let (status, findings) = check(&source.uri(), &destination.uri());
        assert_eq!(status, 2, "{findings:#?}");
        finds(&findings, "SHARDED_UNSUPPORTED", "ERROR", side, "config servers");
    }
    // As long as it is in no cluster it holds all of its data.
    let (status, findings) = check(&shard.uri(), &plain.uri());
    assert_eq!(status, 0, "{findings:#?}");
    shard.join_cluster(&config).await.expect("joins");
    for (source, destination, side) in [(&shard, &plain, "source"), (&plain, &shard, "destination")] {
        let (status, findings) = check(&source.uri(), &destination.uri());
        assert_eq!(status, 2, "{findings:#?}");
        finds(&findings, "SHARDED_UNSUPPORTED", "ERROR", side, "the shard shard1");
    }
}

/// What docs/operating.md asks for is enough for every kind of collection, copied and replicated.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_roles_are_enough() {
    let guarded = || ReplicaSet::builder().auth(true).start();
    let (source, destination) = tokio::join!(guarded(), guarded());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let roles = ["clusterMonitor", "readAnyDatabase"];
    run(&from, "admin", doc! {"createUser": "mover", "pwd": "hunter2", "roles": &roles[..]}).await;
    let roles = ["clusterMonitor", "readWriteAnyDatabase", "dbAdminAnyDatabase"];
    run(&to, "admin", doc! {"createUser": "mover", "pwd": "hunter2", "roles": &roles[..]}).await;
    let all_kinds = async |db: &str| {
        for command in [
            doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}},
            doc! {"create": "capped", "capped": true, "size": 65_536},
            doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}},
            doc! {"create": "strict", "validator": {"a": {"$type": "int"}}, "changeStreamPreAndPostImages": {"enabled": true}},
            doc! {"create": "view", "viewOn": "strict", "pipeline": [{"$match": {"a": 1}}]},
            doc! {"createIndexes": "strict", "indexes": [
                {"key": {"a": 1}, "name": "unique", "unique": true},
                {"key": {"at": 1}, "name": "ttl", "expireAfterSeconds": 3600},
            ]},
        ] {
            run(&from, db, command).await;
        }
        for name in ["series", "capped", "clustered", "strict"] {
            let documents = (0..20).map(|n| doc! {"_id": n, "a": n, "m": n % 3, "t": bson::DateTime::now()});
            from.database(db).collection(name).insert_many(documents).await.expect("inserts");
        }
    };
    all_kinds("copied").await;
    let (reads, writes) =
        (source.uri_with(Some(("mover", "hunter2"))), destination.uri_with(Some(("mover", "hunter2"))));
    let dir = tempfile::tempdir().expect("a directory");
    let mut migration = Running::start(&mut migrate(&reads, &writes, &dir.path().join("state")));
    let profile = migration.until_event("started")["profile"].as_str().expect("a path").to_owned();
    migration.until_event("readyForCutover");
    all_kinds("replicated").await;
    run(&from, "admin", doc! {"renameCollection": "copied.clustered", "to": "replicated.moved"}).await;
    run(&from, "copied", doc! {"drop": "capped"}).await;
    verb(Path::new(&profile), &["migrations", "cutover", "--wait"]);
    migration.until_event("complete");
    compare(&from, &to, &["copied", "replicated"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_too_little_room_is_judged() {
    let Some(disk) = SmallDisk::mount(600).expect("a mount point") else { return };
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().dir(disk.path()).oplog_mb(16).start().await.expect("starts");
    let from = source.client().await;
    assert_eq!(check(&source.uri(), &destination.uri()).0, 0);
    for _ in 0..64 {
        let mut bytes = vec![0; 1024 * 1024];
        rand::fill(bytes.as_mut_slice());
        let payload = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes };
        from.database("app").collection("c").insert_one(doc! {"payload": payload}).await.expect("inserts");
    }
    // What it takes on the disk is known once it is there.
    run(&from, "admin", doc! {"fsync": 1}).await;
    disk.fill_but(32).expect("fills");
    let (status, findings) = check(&source.uri(), &destination.uri());
    assert_eq!(status, 2, "{findings:#?}");
    finds(&findings, "INSUFFICIENT_DISK_SPACE", "ERROR", "destination", "MiB free");
}
