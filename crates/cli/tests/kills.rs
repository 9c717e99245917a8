//! The program killed at random moments, and stopped while another takes over.

use crate::support::{PATIENCE, Process, Running, finish, limosa, migrate, serves, verb, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare, workload::Workload};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};

/// Migrations that are killed; each twice.
fn runs() -> u64 {
    if std::env::var_os("LIMOSA_FULL").is_some() { 30 } else { 5 }
}

async fn load(client: &mongodb::Client, db: &str, documents: i32) {
    let payload = "p".repeat(400);
    for name in ["one", "two", "three"] {
        let all: Vec<Document> = (0..documents).map(|n| doc! {"_id": n, "u": n, "payload": &payload}).collect();
        client.database(db).collection(name).insert_many(all).await.expect("inserts");
        let index = doc! {"createIndexes": name, "indexes": [{"key": {"u": 1}, "name": "u_1", "unique": true}]};
        client.database(db).run_command(index).await.expect("indexes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_goes_on_without_loss() {
    let seed: u64 = std::env::var("LIMOSA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("LIMOSA_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    for run in 0..runs() {
        let db = format!("kill{run}");
        load(&from, &db, 8_000).await;
        let writers = Workload::start(&from, &db, rng.random(), 2);
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let command = || {
            let mut command = migrate(&source.uri(), &destination.uri(), &state);
            command.args(["--include-ns", &format!("{db}.*")]);
            command
        };
        for kill in 0..2 {
            let mut process = Process::start(&mut command());
            let moment = rng.random_range(50..5_000);
            eprintln!("run {run}, kill {kill} after {moment} ms");
            tokio::time::sleep(Duration::from_millis(moment)).await;
            process.kill();
        }
        let acknowledged = writers.stop(&db).await.expect("writes");
        // The last one dies in the cutover, or just after it.
        let mut process = Process::start(command().args(["--cutover", "when-ready"]));
        tokio::time::sleep(Duration::from_millis(rng.random_range(2_000..6_000))).await;
        process.kill();
        let (status, said, errors) = finish(command().args(["--cutover", "when-ready"]));
        assert_eq!(status, 0, "run {run} of seed {seed}: {said} {errors}");
        acknowledged.check(&to).await.unwrap_or_else(|e| panic!("run {run} of seed {seed}: {e}"));
        compare(&from, &to, &[&db]).await.unwrap_or_else(|e| panic!("run {run} of seed {seed}: {e}"));
        for client in [&from, &to] {
            client.database(&db).drop().await.expect("drops");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_stopped_and_replaced_changes_nothing_when_it_wakes() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    load(&from, "app", 20_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let listen = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one").to_string();
    let mut server = limosa();
    server.args(["server", "--listen", &listen, "--data-dir"]).arg(dir.path().join("server"));
    let mut server = Process::start(&mut server);
    let profile = dir.path().join("server/profile.toml");
    serves(&profile);
    verb(&profile, &["clusters", "add", "--name", "new", "--uri", &destination.uri()]);
    let token = verb(&profile, &["link", "create"])["linkToken"].as_str().expect("a token").to_owned();
    let start_agent = |name: &str| {
        let mut command = limosa();
        command.args(["agent", "--server", &format!("http://{listen}"), "--host-name", "mover1"]);
        command.args(["--source", &format!("old={}", source.uri()), "--data-dir"]).arg(dir.path().join(name));
        Process::start(command.env("LIMOSA_LINK_TOKEN", &token))
    };
    let keys: Value =
        serde_json::from_slice(&fs::read(dir.path().join("server/bootstrap.json")).expect("is there")).expect("JSON");
    let text = |name: &str| keys[name].as_str().expect("is there").to_owned();
    let body = json!({
        "source": {"groupId": text("groupId"), "clusterName": "old", "managedAuthentication": true, "ssl": false},
        "destination": {"groupId": text("groupId"), "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
        "migrationHosts": ["mover1"], "dropDestinationData": false,
    });
    let first = start_agent("first");
    let url = format!("http://{listen}/api/atlas/v2/groups/{}/liveMigrations", text("groupId"));
    let id = wait_for("the created migration", || {
        let mut command = Command::new("curl");
        let user = format!("{}:{}", text("publicKey"), text("privateKey"));
        command.args(["--silent", "--digest", "--user", &user, "--header", "Content-Type: application/json"]);
        command.args(["--header", "Accept: application/vnd.atlas.2025-03-12+json", "--data", &body.to_string(), &url]);
        let done = command.output().expect("curl runs");
        let answer = serde_json::from_slice::<Value>(&done.stdout).unwrap_or(Value::Null);
        answer["_id"].as_str().map(str::to_owned)
    });
    let detail = || verb(&profile, &["migrations", "describe", &id]);
    let writers = Workload::start(&from, "app", 12, 2);
    // Whatever it is at by then, it has writes under way.
    wait_for("a copy under way", || {
        let now = detail();
        let begun = !["scheduled", "preparing"].contains(&now["phase"].as_str().unwrap_or_default());
        (begun && now["progress"]["documentsTotal"].as_u64() > Some(0)).then_some(())
    });
    first.signal("STOP");
    let _second = start_agent("second");
    // Its lease lapses first.
    wait_for("readyForCutover", || (detail()["readyForCutover"] == true).then_some(()));
    let acknowledged = writers.stop("app").await.expect("writes");
    // What the first still has in its hands would now do harm.
    from.database("app").collection::<Document>("one").delete_many(doc! {}).await.expect("deletes");
    from.database("app")
        .collection::<Document>("two")
        .update_many(doc! {}, doc! {"$set": {"n": 1}})
        .await
        .expect("updates");
    verb(&profile, &["migrations", "cutover", "--wait", &id]);
    compare(&from, &to, &["app"]).await.expect("equal");
    first.signal("CONT");
    first.signal("INT");
    let began = std::time::Instant::now();
    let mut first = first;
    while !first.has_ended() {
        assert!(began.elapsed() < PATIENCE, "the first agent doesn't end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    compare(&from, &to, &["app"]).await.expect("still equal");
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    server.kill();
}

/// Its own view of `/etc/hosts`, in which the destination's name goes and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_gone_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let hosts = dir.path().join("hosts");
    let known = "127.0.0.1 localhost destination.test\n";
    fs::write(&hosts, known).expect("writes");
    // A process with a mount namespace of its own; the rest of the machine sees nothing of it.
    let with_hosts = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#, "sh"]);
        command.arg(&hosts).arg(program);
        command
    };
    if !with_hosts("true".as_ref()).output().is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: this user can't mount a file of its own over /etc/hosts");
        return;
    }
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    load(&from, "name", 100).await;
    let port = destination.proxy(0).addr().port();
    let plain = limosa();
    let mut command = with_hosts(plain.get_program());
    command.env("LIMOSA_SOURCE_URI", source.uri());
    command.env("LIMOSA_DESTINATION_URI", format!("mongodb://destination.test:{port}/?directConnection=true"));
    command.args(["migrate", "--output", "json", "--state-dir"]).arg(dir.path().join("state"));
    let mut run = Running::start(&mut command);
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    run.until_event("readyForCutover");
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("writes");
    destination.proxy(0).reset();
    from.database("name").collection("one").insert_one(doc! {"_id": "late", "u": -1}).await.expect("inserts");
    let profile = std::path::Path::new(&profile);
    wait_for("what it waits for", || {
        let now = verb(profile, &["migrations", "describe"]);
        (now["progress"]["waiting"]["code"] == "DESTINATION_UNREACHABLE").then_some(())
    });
    fs::write(&hosts, known).expect("writes");
    wait_for("its continuing", || {
        let now = verb(profile, &["migrations", "describe"]);
        (now["progress"]["waiting"].is_null() && now["readyForCutover"] == true).then_some(())
    });
    verb(profile, &["migrations", "cutover", "--wait"]);
    run.until_event("complete");
    compare(&from, &to, &["name"]).await.expect("equal");
}
