//! What a URI says and what a connection does must not decide what is migrated.

use crate::support::{Run, fail_command, metric, settings, until};
use bson::{Document, doc};
use limosa_engine::{EngineReport, Outcome, Settings};
use limosa_model::{Failure, MigrationId, PhaseKind, Secret, Severity, protocol::Directive};
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;
use std::time::Duration;

async fn seed(client: &Client, db: &str, documents: i32) {
    let all: Vec<Document> = (0..documents).map(|n| doc! {"_id": n, "n": n, "payload": "p".repeat(200)}).collect();
    client.database(db).collection("one").insert_many(all).await.expect("inserts");
    let index = doc! {"createIndexes": "one", "indexes": [{"key": {"n": 1}, "name": "n_1", "unique": true}]};
    client.database(db).run_command(index).await.expect("indexes");
}

/// How a run that must not start ended; the preflight says the same.
async fn refused(settings: &Settings) -> Failure {
    let found = limosa_engine::preflight(settings).await.into_iter().find(limosa_model::Finding::is_error);
    let ended = tokio::time::timeout(Duration::from_secs(60), Run::start(settings).end()).await;
    let Ok(Outcome::Failed(failure)) = ended else { panic!("it wasn't refused: {ended:?}") };
    assert_eq!(found.map(|finding| finding.failure()), Some(failure.clone()));
    failure
}

fn with(uri: &str, options: &str) -> Secret {
    Secret::new(format!("{uri}&{options}"))
}

fn direct(set: &ReplicaSet, index: usize) -> Secret {
    Secret::new(format!("mongodb://{}/?directConnection=true", set.member_addr(index)))
}

fn assert_plain(message: &str) {
    for dump in ["Kind:", "Topology", "Server selection timeout", "{", "Some(", "os error", "labels"] {
        assert!(!message.contains(dump), "{dump} in: {message}");
    }
}

/// Its time isn't the set's: what the primary has acknowledged may be missing there.
#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_reached_directly_is_refused_by_its_name() {
    let mut source = ReplicaSet::start().await.expect("starts");
    let secondary = source.add_member().await.expect("joins");
    let destination = ReplicaSet::start().await.expect("starts");
    seed(&source.client().await, "direct", 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, &destination, dir.path());
    given.source_uri = direct(&source, secondary);
    let told = refused(&given).await;
    assert_eq!(told.code.name(), "SOURCE_NOT_PRIMARY", "{told}");
    for part in [source.member_addr(secondary), source.member_addr(0), "directConnection".to_owned()] {
        assert!(told.message.contains(&part), "{part} isn't in: {}", told.message);
    }
    given.source_uri = Secret::new(destination.uri());
    given.destination_uri = direct(&source, secondary);
    let told = refused(&given).await;
    assert_eq!(told.code.name(), "DESTINATION_NOT_PRIMARY", "{told}");
    // A primary reached directly is the set's primary all the same.
    given.source_uri = direct(&source, 0);
    given.destination_uri = direct(&destination, 0);
    Run::start(&given).cut_over().await;
}

/// A direct connection stays at the member that was primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_reached_directly_that_steps_down_is_noticed() {
    let source = ReplicaSet::builder().members(3).start().await.expect("starts");
    let destination = ReplicaSet::start().await.expect("starts");
    let from = source.client().await;
    seed(&from, "stepping", 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, &destination, dir.path());
    let primary = source.primary_index().await.expect("has one");
    given.source_uri = direct(&source, primary);
    let mut run = Run::start(&given);
    run.reach(PhaseKind::Synced).await;
    source.step_down().await.expect("steps down");
    let noticed = |report: &EngineReport| {
        report.progress.waiting.as_ref().is_some_and(|waiting| waiting.code.name() == "SOURCE_NOT_PRIMARY")
    };
    run.wait_until(noticed).await;
    run.kill().await;
}

/// The majority has continued without it, maybe: its own word isn't enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_cannot_prove_that_it_is_one_is_not_cut_over_from() {
    let destination = ReplicaSet::start().await.expect("starts");
    let mut before = Vec::new();
    for version in ["4.4.2", "5.0.4", "6.0.5"] {
        before = vec![not_cut_over_without_proof(version, &destination, before).await];
    }
}

/// A migration of `version` in the place of those before; its id.
async fn not_cut_over_without_proof(version: &str, destination: &ReplicaSet, before: Vec<MigrationId>) -> MigrationId {
    let source = ReplicaSet::builder().version(version).members(3).start().await.expect("starts");
    seed(&source.client().await, "proof", 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, destination, dir.path());
    given.drop_destination_data = true;
    given.claim.replaces = before;
    let mut run = Run::start(&given);
    run.reach(PhaseKind::Synced).await;
    let primary = source.primary_index().await.expect("has one");
    for other in (0..3).filter(|index| *index != primary) {
        source.fail_point(other, "stopReplProducer", "alwaysOn").await.expect("is set");
    }
    run.order(Directive::CutOver);
    let told = run.wait_until(|report| report.failure.is_some()).await.failure.expect("is there");
    assert_eq!(told.code.name(), "SOURCE_NOT_PRIMARY", "{version}: {told}");
    run.kill().await;
    given.migration_id
}

/// What is decided by is set by hand: neither side's URI changes it.
#[tokio::test(flavor = "multi_thread")]
async fn no_option_of_a_uri_changes_what_is_migrated() {
    let (mut source, destination) = tokio::join!(async { ReplicaSet::start().await.expect("starts") }, async {
        ReplicaSet::start().await.expect("starts")
    });
    source.add_member().await.expect("joins");
    let (from, to) = (source.client().await, destination.client().await);
    for (number, options) in [
        "w=0&journal=false",
        "w=1&wtimeoutMS=1&readConcernLevel=snapshot",
        "w=5&journal=true&readConcernLevel=linearizable",
        "readConcernLevel=available&readPreference=secondary&retryReads=false&retryWrites=true",
        "readPreference=nearest&readPreferenceTags=dc:nowhere&readConcernLevel=local",
        "readPreference=secondaryPreferred&maxStalenessSeconds=1&socketTimeoutMS=1",
        "serverSelectionTimeoutMS=1&connectTimeoutMS=1&heartbeatFrequencyMS=600000",
        "maxPoolSize=1&minPoolSize=1&maxConnecting=1&waitQueueTimeoutMS=1&compressors=snappy",
        "readPreferenceTags=dc:nowhere&appName=other&localThresholdMS=0&maxIdleTimeMS=1",
    ]
    .into_iter()
    .enumerate()
    {
        let db = format!("options{number}");
        seed(&from, &db, 500).await;
        let capped = doc! {"create": "ring", "capped": true, "size": 8192};
        from.database(&db).run_command(capped).await.expect("creates");
        from.database(&db).collection("ring").insert_one(doc! {"_id": 1}).await.expect("inserts");
        let dir = tempfile::tempdir().expect("a directory");
        let mut given = settings(&source, &destination, dir.path());
        given.filter = limosa_model::NamespaceFilter {
            include: vec![format!("{db}.*").try_into().expect("a pattern")],
            ..Default::default()
        };
        given.source_uri = with(&source.uri(), options);
        given.destination_uri = with(&destination.uri(), options);
        let mut run = Run::start(&given);
        run.reach(PhaseKind::Synced).await;
        let updates = from.database(&db).collection::<Document>("one");
        updates.update_many(doc! {"_id": {"$lt": 100}}, doc! {"$inc": {"payload2": 1}}).await.expect("updates");
        updates.delete_many(doc! {"_id": {"$gte": 450}}).await.expect("deletes");
        from.database(&db).collection("ring").insert_one(doc! {"_id": 2}).await.expect("inserts");
        run.cut_over().await;
        compare(&from, &to, &[&db]).await.unwrap_or_else(|e| panic!("{options}: {e}"));
    }
    // It is told once what doesn't count.
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, &destination, dir.path());
    given.drop_destination_data = true;
    given.source_uri = with(&source.uri(), "readPreference=secondary&w=0&appName=mine&compressors=snappy");
    let findings = limosa_engine::preflight(&given).await;
    let told: Vec<_> = findings.iter().filter(|f| f.code.name() == "URI_OPTION_OVERRIDDEN").collect();
    assert!(told.len() == 1 && told[0].severity == Severity::Warning && told[0].subject == "source", "{findings:?}");
    assert!(told[0].evidence.contains("readPreference") && told[0].evidence.contains(" w"), "{told:?}");
    assert!(!told[0].evidence.contains("compressors"), "{told:?}");
}

/// A firewall forgot one connection: it is open, and silent. For every kind of command, one by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_open_and_silent_is_given_up_and_replaced() {
    let (source, destination) =
        tokio::join!(ReplicaSet::builder().proxied().start(), ReplicaSet::builder().proxied().start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.direct(0).await.expect("connects"), destination.direct(0).await.expect("connects"));
    seed(&from, "silent", 5_000).await;
    for command in ["find", "listIndexes", "listCollections"] {
        source.proxy(0).silence_connection_of(command, command != "find");
    }
    for command in ["insert", "create", "createIndexes", "commitTransaction"] {
        destination.proxy(0).silence_connection_of(command, command == "create");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, &destination, dir.path());
    // The proxy reads names of commands, which compression would hide where answers take long.
    given.source_uri = with(&source.uri(), "compressors=none");
    given.destination_uri = with(&destination.uri(), "compressors=none");
    let mut run = Run::start(&given);
    run.reach(PhaseKind::Synced).await;
    assert_eq!((source.proxy(0).silenced(), destination.proxy(0).silenced()), (3, 4));
    // The change stream, and what it leads to.
    source.proxy(0).silence_connection_of("getMore", false);
    destination.proxy(0).silence_connection_of("update", true);
    let one = from.database("silent").collection::<Document>("one");
    for n in 0..20 {
        one.update_many(doc! {"_id": {"$lt": 100}}, doc! {"$set": {"m": n}}).await.expect("updates");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.wait_until(|report| report.progress.waiting.is_some()).await;
    run.wait_until(|report| report.progress.waiting.is_none() && report.progress.lag_seconds.is_some_and(|l| l < 3))
        .await;
    assert_eq!((source.proxy(0).silenced(), destination.proxy(0).silenced()), (4, 5));
    destination.proxy(0).silence_connection_of("collMod", true);
    run.cut_over().await;
    compare(&from, &to, &["silent"]).await.expect("equal");
}

async fn set_fcv(set: &ReplicaSet, version: &str) {
    let command = doc! {"setFeatureCompatibilityVersion": version};
    set.client().await.database("admin").run_command(command).await.expect("is set");
}

/// An upgrade that isn't finished: the binary is of 6.0, what it allows is of 5.0.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_can_is_decided_by_its_feature_compatibility_version() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    set_fcv(&source, "5.0").await;
    set_fcv(&destination, "5.0").await;
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "fcv", 500).await;
    let dir = tempfile::tempdir().expect("a directory");
    let given = settings(&source, &destination, dir.path());
    let findings = limosa_engine::preflight(&given).await;
    let told = findings.iter().any(|f| f.code.name() == "UNIQUE_BUILT_AT_CUTOVER" && f.evidence.contains("5.0"));
    assert!(told, "{findings:?}");
    let mut run = Run::start(&given);
    run.reach(PhaseKind::Synced).await;
    let one = from.database("fcv").collection::<Document>("one");
    one.update_many(doc! {}, doc! {"$set": {"a.b": 1}}).await.expect("updates");
    from.database("fcv").collection("two").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let rename = doc! {"renameCollection": "fcv.two", "to": "fcv.three"};
    from.database("admin").run_command(rename).await.expect("renames");
    run.cut_over().await;
    compare(&from, &to, &["fcv"]).await.expect("equal");
}

/// It went down while a migration runs: what follows is found out again.
#[tokio::test(flavor = "multi_thread")]
async fn a_feature_compatibility_version_that_changes_is_noticed() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "lowered", 500).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    set_fcv(&destination, "5.0").await;
    set_fcv(&source, "5.0").await;
    let one = from.database("lowered").collection::<Document>("one");
    one.update_many(doc! {}, doc! {"$push": {"list": 1}}).await.expect("updates");
    run.cut_over().await;
    compare(&from, &to, &["lowered"]).await.expect("equal");
}

/// It went up while a migration runs that met no error by it: an upgrade was ended. The engine was answered just once
/// before, when it connected; what it asked in between failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_feature_compatibility_version_that_is_raised_is_noticed() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    set_fcv(&source, "5.0").await;
    set_fcv(&destination, "5.0").await;
    let (from, to) = (source.client().await, destination.client().await);
    seed(&from, "raised", 500).await;
    let dir = tempfile::tempdir().expect("a directory");
    fail_command(&to, doc! {"skip": 1}, doc! {"failCommands": ["getParameter"], "errorCode": 8000}).await;
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    // It asks what a server is once for each time that it connects.
    let connected = async || metric(&to, &["commands", "buildInfo", "total"]).await;
    let before = connected().await;
    set_fcv(&destination, "6.0").await;
    fail_command(&to, "off", doc! {}).await;
    // It begins again, by what the destination can now.
    until("connects again", async || connected().await > before).await;
    run.cut_over().await;
    compare(&from, &to, &["raised"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_hosts_of_a_uri_is_said_in_a_sentence() {
    let (source, other) = tokio::join!(ReplicaSet::builder().proxied().start(), ReplicaSet::start());
    let (source, other) = (source.expect("starts"), other.expect("starts"));
    let destination = ReplicaSet::start().await.expect("starts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, &destination, dir.path());
    let (own, others) = (source.member_addr(0), other.member_addr(0));
    let mut told = async |uri: String, code: &str, parts: &[&str]| {
        given.source_uri = Secret::new(uri);
        let found = limosa_engine::preflight(&given).await;
        let error = found.iter().find(|f| f.is_error()).unwrap_or_else(|| panic!("{code} isn't seen"));
        assert_eq!(error.code.name(), code, "{error}");
        assert_plain(&error.evidence);
        for part in parts {
            assert!(error.evidence.contains(part), "{part} isn't in: {}", error.evidence);
        }
    };
    let wrong = format!("mongodb://{own}/?replicaSet=wrong");
    told(wrong, "REPLICA_SET_MISMATCH", &["source", "wrong", "\"rs\"", &own]).await;
    let two = format!("mongodb://{own},{others}/?replicaSet=rs");
    told(two, "REPLICA_SET_MISMATCH", &["source", &own, &others, "two replica sets"]).await;
    let nobody = "mongodb://127.0.0.1:1/?replicaSet=rs".to_owned();
    told(nobody, "SOURCE_UNREACHABLE", &["source", "127.0.0.1:1", "refused"]).await;
    let unnamed = "mongodb://no-such-host.invalid:27017/?replicaSet=rs".to_owned();
    told(unnamed, "SOURCE_UNREACHABLE", &["source", "no-such-host.invalid", "resolved"]).await;
}

/// A server that answers with an error of its own is quoted, not dumped.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_sentences_and_no_dumps_of_the_driver() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::builder().auth(true).start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let dir = tempfile::tempdir().expect("a directory");
    let mut given = settings(&source, &destination, dir.path());
    given.destination_uri = Secret::new(destination.uri_with(Some(("root", "wrong"))));
    let found = limosa_engine::preflight(&given).await;
    let error = found.iter().find(|f| f.is_error()).expect("is refused");
    assert_eq!(error.code.name(), "DESTINATION_AUTHENTICATION_FAILED", "{error}");
    assert_plain(&error.evidence);
    given.destination_uri = Secret::new(destination.uri());
    let from = source.client().await.database("plain");
    from.collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let fail = doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn",
    "data": {"failCommands": ["create"], "errorCode": 8000}};
    destination.client().await.database("admin").run_command(fail).await.expect("is set");
    let mut run = Run::start(&given);
    let waits = |report: &EngineReport| report.progress.waiting.is_some();
    let report = tokio::select! {
        report = run.wait_until(waits) => report,
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it doesn't wait"),
    };
    let waiting = report.progress.waiting.expect("waits");
    assert_eq!(waiting.code.name(), "DESTINATION_NOT_WRITABLE", "{waiting:?}");
    assert_plain(&waiting.message);
    run.kill().await;
}
