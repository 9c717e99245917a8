//! The cutover as its users drive it: rehearsed, with the source blocked, and reported.

use crate::support::{Running, finish, limosa, migrate};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare, replica_set::ADMIN, workload::Workload};
use mongodb::Client;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_reversible_migration_leads_back_with_everything_that_was_written_since() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let documents: Vec<Document> = (0..1_000).map(|n| doc! {"_id": n}).collect();
    from.database("app").collection("c").insert_many(documents).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let mut command = migrate(&source.uri(), &destination.uri(), &state);
    let mut run = Running::start(command.args(["--reversible", "--cutover", "when-ready"]));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    let forth = run.until_event("complete")["migrationId"].clone();
    to.database("app").collection("c").insert_one(doc! {"_id": "new"}).await.expect("inserts");
    let started = run.until_event("started");
    assert_ne!(started["migrationId"], forth);
    run.until_event("readyForCutover");
    run.kill();
    // Killed and started again it continues with the way back.
    to.database("app").collection::<Document>("c").delete_one(doc! {"_id": 3}).await.expect("deletes");
    let mut run = Running::start(&mut migrate(&source.uri(), &destination.uri(), &state));
    let again = run.until(|event| event["event"] == "started" && event["migrationId"] != forth);
    assert_eq!((&again["migrationId"], &again["resumed"]), (&started["migrationId"], &true.into()));
    // What is stored is what was before; the agent begins again.
    run.until(|event| event["phase"] == "catchingUp");
    run.until_event("readyForCutover");
    let id = started["migrationId"].as_str().expect("an id");
    let described = finish(limosa().args(["migrations", "describe", id, "--output", "json", "--profile", &profile]));
    let described: Value = serde_json::from_str(&described.1).expect("JSON");
    assert_eq!((&described["reversalOf"], &described["source"]["clusterName"]), (&forth, &"destination".into()));
    to.database("app").collection("c").insert_one(doc! {"_id": "newer"}).await.expect("inserts");
    let (status, _, errors) = finish(limosa().args(["migrations", "cutover", id, "--wait", "--profile", &profile]));
    assert_eq!(status, 0, "{errors}");
    run.until_event("complete");
    let (status, said, errors) = run.end();
    assert!(status.success(), "{said} {errors}");
    compare(&from, &to, &["app"]).await.expect("equal");
    let found = from.database("app").collection::<Document>("c").count_documents(doc! {}).await.expect("counts");
    assert_eq!(found, 1_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_is_rehearsed_blocks_the_source_and_is_reported() {
    let source = ReplicaSet::builder().auth(true).start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let (admin, to) = (source.client().await, destination.client().await);
    // An application's user; root may write whatever is blocked.
    let create = doc! {"createUser": "app", "pwd": "app", "roles": ["readWriteAnyDatabase"]};
    admin.database("admin").run_command(create).await.expect("creates");
    let from = Client::with_uri_str(source.uri_with(Some(("app", "app")))).await.expect("a client");
    let documents: Vec<Document> = (0..5_000).map(|n| doc! {"_id": n, "u": n}).collect();
    from.database("app").collection("seed").insert_many(documents).await.expect("inserts");
    let indexes = doc! {"createIndexes": "seed", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]};
    from.database("app").run_command(indexes).await.expect("indexes");
    let writers = Workload::start(&from, "app", 31, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let mut run = Running::start(migrate(&source.uri(), &destination.uri(), &state).arg("--block-source-writes"));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    let ask = |verb: &str| {
        let (status, said, errors) =
            finish(limosa().args(["migrations", verb, "--output", "json", "--profile", &profile]));
        (status, serde_json::from_str::<Value>(&said).unwrap_or_default(), errors)
    };
    run.until_event("readyForCutover");
    let (status, _, errors) = ask("report");
    assert!(status == 1 && errors.contains("REPORT_NOT_READY"), "{errors}");
    // Something is spoilt, and found before the cutover.
    let spoil = doc! {"$set": {"u": -5}};
    to.database("app").collection::<Document>("seed").update_one(doc! {"_id": 5}, spoil).await.expect("updates");
    let passes = |event: &Value| event["verificationPasses"].as_u64().unwrap_or(0);
    let mut after_the_next = None;
    run.until(|event| {
        if event["documentsRepaired"] == 1 {
            after_the_next.get_or_insert(passes(event) + 2);
        }
        after_the_next.is_some_and(|wanted| passes(event) >= wanted)
    });
    let (status, rehearsal, errors) = ask("rehearse");
    assert_eq!(
        (status, &rehearsal["state"], &rehearsal["wouldComplete"]),
        (0, &"DONE".into(), &true.into()),
        "{errors}"
    );
    assert_eq!(rehearsal["steps"].as_array().map(Vec::len), Some(6), "{rehearsal}");
    let (_, words, _) = finish(limosa().args(["migrations", "rehearse", "--profile", &profile]));
    assert!(words.contains("5 finalize indexes") && words.contains("1 indexes become unique"), "{words}");
    // The writers continue until they are refused.
    let (status, _, errors) = finish(limosa().args(["migrations", "cutover", "--wait", "--profile", &profile]));
    assert_eq!(status, 0, "{errors}");
    let refused = from.database("app").collection("seed").insert_one(doc! {"_id": "late"}).await;
    assert!(refused.expect_err("is blocked").to_string().contains("blocked"));
    assert!(writers.stop("app").await.is_err(), "the writers were never refused");
    let complete = run.until_event("complete");
    let (status, report, errors) = ask("report");
    assert_eq!((status, &report["equal"], &report["phase"]), (0, &true.into(), &"complete".into()), "{errors}");
    let (_, page, _) = finish(limosa().args(["migrations", "report", "--profile", &profile]));
    drop(run.end());
    compare(&admin, &to, &["app"]).await.expect("equal");

    assert_eq!(report["progress"]["writePauseMillis"], complete["writePauseMillis"]);
    assert!(report["predictedPauseMillis"].is_i64(), "{report}");
    assert_eq!(report["cutoverOptions"]["blockSourceWrites"], true);
    let phases: Vec<&str> =
        report["phases"].as_array().expect("a list").iter().filter_map(|p| p["phase"].as_str()).collect();
    for phase in ["Scheduled", "Copying", "Synced", "CuttingOver", "Complete"] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    assert_eq!(report["cutoverSteps"].as_array().map(Vec::len), Some(6), "{report}");
    let seed = report["namespaces"].as_array().expect("a list").iter().find(|n| n["namespace"] == "app.seed");
    let seed = seed.unwrap_or_else(|| panic!("{report}"));
    assert_eq!((&seed["documentsCompared"], &seed["indexCount"]), (&5_000.into(), &1.into()), "{seed}");
    assert!(seed["digest"].as_str().is_some_and(|d| d.len() == 32), "{seed}");
    let repaired = &report["repaired"][0];
    let told = (&repaired["namespace"], &repaired["id"], &repaired["path"]);
    assert_eq!(told, (&"app.seed".into(), &5.into(), &"u".into()), "{report}");
    for text in [
        report["sha256"].as_str().expect("is there"),
        "app.seed",
        "Verification: equal",
        "Repaired: app.seed _id 5 at u",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!report.to_string().contains(ADMIN.1) && !report.to_string().contains("mongodb://"), "{report}");
    // `limosa verify` agrees, and has the same digest.
    let (status, said, _) = finish(limosa().args([
        "verify",
        "--output",
        "json",
        "--source",
        &source.uri(),
        "--destination",
        &destination.uri(),
    ]));
    let verified: Value = serde_json::from_str(&said).expect("JSON");
    let own = verified["namespaces"].as_array().expect("a list").iter().find(|n| n["namespace"] == "app.seed");
    assert_eq!((status, own.map(|n| &n["digest"])), (0, Some(&seed["digest"])), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_is_held_up_is_ended_and_the_source_takes_writes_again() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let app = from.database("app");
    app.collection("c").insert_many((0..100).map(|n| doc! {"_id": n, "u": n})).await.expect("inserts");
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]};
    app.run_command(index).await.expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Running::start(
        migrate(&source.uri(), &destination.uri(), &dir.path().join("state")).arg("--block-source-writes"),
    );
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    let ask = |words: &[&str]| finish(limosa().arg("migrations").args(words).args(["--profile", &profile]));
    run.until_event("readyForCutover");
    let (status, _, errors) = ask(&["abort-cutover"]);
    assert!(status != 0 && errors.contains("none is under way"), "{status} {errors}");
    let hold = doc! {
        "configureFailPoint": "failCommand", "mode": {"times": 1},
        "data": {"failCommands": ["collMod"], "appName": "limosa", "blockConnection": true, "blockTimeMS": 60_000},
    };
    to.database("admin").run_command(hold).await.expect("the server has this failpoint");
    let (status, _, errors) = ask(&["cutover"]);
    assert_eq!(status, 0, "{errors}");
    run.until(|event| event["phase"] == "finalizing");
    assert!(app.collection("c").insert_one(doc! {"_id": "held"}).await.is_err(), "writes are not blocked");
    let began = std::time::Instant::now();
    let (status, said, errors) = ask(&["abort-cutover"]);
    assert!(status == 0 && said.contains("synced"), "{status} {said} {errors}");
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "it took {:?}", began.elapsed());
    app.collection("c").insert_one(doc! {"_id": "again", "u": -1}).await.expect("it takes writes");
    let (_, events, _) = ask(&["events"]);
    assert!(events.contains("CUTOVER_ABORTED"), "{events}");
    let (status, _, errors) = ask(&["cutover", "--wait"]);
    assert_eq!(status, 0, "{errors}");
    run.until_event("complete");
    drop(run.end());
    compare(&from, &to, &["app"]).await.expect("equal");
}
