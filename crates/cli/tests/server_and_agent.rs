//! Server and agent as processes of their own, steered by the client verbs and by plain HTTP.

use crate::support::{Process, finish, limosa, serves, verb, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare, tls::Certificates, workload::Workload};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Duration};

/// An agent that hears nothing of its server for so long holds no lease any more.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(25);

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_agents_that_are_killed_lose_nothing() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    for part in 0..4 {
        let documents: Vec<Document> =
            (0..10_000).map(|n| doc! {"_id": n, "part": part, "payload": "p".repeat(300)}).collect();
        from.database("app").collection(&format!("c{part}")).insert_many(documents).await.expect("inserts");
    }
    let writers = Workload::start(&from, "app", 9, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let listen = free_address();
    let metrics = free_address();
    let start_server = || {
        let mut command = limosa();
        command.args(["server", "--listen", &listen, "--data-dir"]).arg(dir.path().join("server"));
        Process::start(&mut command)
    };
    let mut server = start_server();
    let profile = dir.path().join("server/profile.toml");
    serves(&profile);
    let keys: Value =
        serde_json::from_slice(&fs::read(dir.path().join("server/bootstrap.json")).expect("is there")).expect("JSON");
    verb(&profile, &["clusters", "add", "--name", "new", "--uri", &destination.uri()]);
    let token = verb(&profile, &["link", "create"])["linkToken"].as_str().expect("a token").to_owned();
    let start_agent = |name: &str| {
        let mut command = limosa();
        command.args(["agent", "--server", &format!("http://{listen}"), "--host-name", "mover1"]);
        command.args(["--source", &format!("old={}", source.uri()), "--data-dir"]).arg(dir.path().join(name));
        command.args(["--metrics-listen", &metrics]);
        Process::start(command.env("LIMOSA_LINK_TOKEN", &token))
    };
    let mut agent = start_agent("agent");

    // The migration, by curl with digest as a script for Atlas would do it.
    let group = keys["groupId"].as_str().expect("an id");
    let base = format!("http://{listen}/api/atlas/v2");
    let curl = |arguments: &[&str]| {
        let user =
            format!("{}:{}", keys["publicKey"].as_str().expect("a key"), keys["privateKey"].as_str().expect("a key"));
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--digest",
            "--user",
            &user,
            "--header",
            "Accept: application/vnd.atlas.2025-03-12+json",
        ]);
        let done = command.args(arguments).output().expect("curl runs");
        serde_json::from_slice::<Value>(&done.stdout).unwrap_or(Value::Null)
    };
    let org = keys["orgId"].as_str().expect("an id");
    wait_for("the announced deployment", || {
        let projects = curl(&[&format!("{base}/orgs/{org}/liveMigrations/availableProjects")]);
        (projects[0]["deployments"][0]["name"] == "old").then_some(())
    });
    let body = json!({
        "source": {"groupId": group, "clusterName": "old", "managedAuthentication": true, "ssl": false},
        "destination": {"groupId": group, "clusterName": "new", "hostnameSchemaType": ""},
        "migrationHosts": ["mover1"], "dropDestinationData": false,
    });
    let jobs = format!("{base}/groups/{group}/liveMigrations");
    let created = curl(&["--header", "Content-Type: application/json", "--data", &body.to_string(), &jobs]);
    assert_eq!(created["status"], "NEW", "{created}");
    let id = created["_id"].as_str().expect("an id").to_owned();
    let detail = |wanted: &str| {
        wait_for(wanted, || {
            let now = verb(&profile, &["migrations", "describe", &id]);
            (now["phase"] == wanted || now["readyForCutover"] == true).then_some(now)
        })
    };

    detail("copying");
    agent.kill();
    // Another agent with an empty disk, on the same host; and the server dies as well.
    let mut agent = start_agent("another");
    detail("catchingUp");
    server.kill();
    // For longer than a lease lives. What is written now is on the destination before the server is back.
    tokio::time::sleep(LONGER_THAN_A_LEASE).await;
    let mark = doc! {"_id": "written while the server was away"};
    from.database("app").collection::<Document>("marks").insert_one(&mark).await.expect("inserts");
    let there = to.database("app").collection::<Document>("marks");
    let arrives = async {
        while there.find_one(mark.clone()).await.ok().flatten().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrives).await.expect("the agent continues without the server");
    let scraped =
        Command::new("curl").args(["--silent", &format!("http://{metrics}/metrics")]).output().expect("curl runs");
    let scraped = String::from_utf8_lossy(&scraped.stdout).into_owned();
    for name in ["change_events_total{kind=\"insert\"}", "destination_write_duration_seconds_count{writer=\"apply\"}"] {
        let line = scraped.lines().find_map(|line| line.strip_prefix("limosa_engine_")?.strip_prefix(name));
        let count = line.and_then(|count| count.trim().parse::<f64>().ok());
        assert!(count.is_some_and(|count| count > 0.0), "{name} isn't counted in\n{scraped}");
    }
    let mut server = start_server();
    serves(&profile);
    detail("synced");
    agent.kill();
    let _agent = start_agent("another");
    let ready = wait_for("readyForCutover", || {
        let job = curl(&[&format!("{jobs}/{id}")]);
        (job["readyForCutover"] == true).then_some(job)
    });
    assert_eq!(ready["migrationHosts"], json!(["mover1"]));
    let acknowledged = writers.stop("app").await.expect("writes");
    // The agent that was started last may still be finding its place: then the cutover is refused, and asked for again.
    wait_for("an accepted cutover", || {
        let refused = curl(&["--request", "PUT", &format!("{jobs}/{id}/cutover")]);
        assert!(refused.is_null() || refused["errorCode"] == "LIVE_MIGRATION_NOT_READY", "{refused}");
        refused.is_null().then_some(())
    });
    let events = || verb(&profile, &["migrations", "events", &id]);
    wait_for("COMPLETE", || {
        let job = curl(&[&format!("{jobs}/{id}")]);
        assert_ne!(job["readyForCutover"], true, "the cutover went back: {}", events());
        (job["status"] == "COMPLETE").then_some(())
    });
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["app"]).await.expect("equal");
    verb(&profile, &["link", "delete"]);
    server.kill();
}

/// Reached by other machines: plain HTTP is refused unless asked for, and the agent speaks TLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_for_other_machines_speaks_tls_with_its_agents() {
    let source = ReplicaSet::start().await.expect("starts");
    let dir = tempfile::tempdir().expect("a directory");
    let files = Certificates::write(dir.path()).expect("writes");
    let port = std::net::TcpListener::bind("0.0.0.0:0").expect("binds").local_addr().expect("has one").port();
    let mut server = limosa();
    server.args(["server", "--listen", &format!("0.0.0.0:{port}"), "--data-dir"]).arg(dir.path().join("server"));
    server.arg("--tls-cert").arg(&files.certificate).arg("--tls-key").arg(&files.key);
    let _server = Process::start(&mut server);
    let profile = dir.path().join("server/profile.toml");
    let call = |authority: &Path, words: &[&str]| {
        let mut command = limosa();
        command.args(words).args(["--output", "json", "--profile"]).arg(&profile);
        finish(command.env("SSL_CERT_FILE", authority))
    };
    wait_for("the server", || (call(&files.authority, &["clusters", "list"]).0 == 0).then_some(()));
    // An authority that signed nothing of it.
    let other = tempfile::tempdir().expect("a directory");
    let stranger = Certificates::write(other.path()).expect("writes").authority;
    let (status, _, errors) = call(&stranger, &["clusters", "list"]);
    assert!(status == 1 && errors.contains("can't be reached"), "{status}: {errors}");
    let (status, said, errors) = call(&files.authority, &["link", "create"]);
    assert_eq!(status, 0, "{errors}");
    let token = serde_json::from_str::<Value>(&said).expect("JSON")["linkToken"].as_str().expect("a token").to_owned();
    let agent = |scheme: &str| {
        let mut command = limosa();
        command.args(["agent", "--server", &format!("{scheme}://localhost:{port}"), "--host-name", "mover1"]);
        command.args(["--source", &format!("old={}", source.uri()), "--data-dir"]).arg(dir.path().join("agent"));
        command.env("LIMOSA_LINK_TOKEN", &token).env("SSL_CERT_FILE", &files.authority);
        command
    };
    let (status, _, errors) = finish(&mut agent("http"));
    assert_eq!(status, 1, "plain HTTP to a server with TLS: {errors}");
    let _agent = Process::start(&mut agent("https"));
    let keys: Value =
        serde_json::from_slice(&fs::read(dir.path().join("server/bootstrap.json")).expect("is there")).expect("JSON");
    let text = |name: &str| keys[name].as_str().expect("is there").to_owned();
    let url = format!("https://localhost:{port}/api/atlas/v2/orgs/{}/liveMigrations/availableProjects", text("orgId"));
    wait_for("the announced deployment", || {
        let mut command = Command::new("curl");
        command.args(["--silent", "--digest", "--user", &format!("{}:{}", text("publicKey"), text("privateKey"))]);
        command.arg("--cacert").arg(&files.authority);
        let done = command.args(["--header", "Accept: application/vnd.atlas.2025-03-12+json", &url]).output();
        let projects = serde_json::from_slice::<Value>(&done.expect("curl runs").stdout).unwrap_or(Value::Null);
        (projects[0]["deployments"][0]["name"] == "old").then_some(())
    });
}

/// As in the container: behind something that has TLS, and for the verbs that are run beside it.
#[test]
fn the_profile_of_a_server_on_all_addresses_leads_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, listen) in [("ipv4", "0.0.0.0:0"), ("ipv6", "[::]:0")] {
        if std::net::TcpListener::bind(listen).is_err() {
            eprintln!("SKIPPED {listen}: this machine has no such addresses");
            continue;
        }
        let data = dir.path().join(name);
        let mut command = limosa();
        command.args(["server", "--listen", listen, "--plain-http", "--data-dir"]).arg(&data);
        let _server = Process::start(&mut command);
        let profile = data.join("profile.toml");
        serves(&profile);
        assert!(verb(&profile, &["link", "create"])["linkToken"].is_string());
    }
}

#[test]
fn the_profile_outlives_the_first_owners_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = || {
        let mut command = limosa();
        command.args(["server", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
        Process::start(&mut command)
    };
    let (profile, keys) = (dir.path().join("profile.toml"), dir.path().join("bootstrap.json"));
    let mut server = start();
    serves(&profile);
    server.kill();
    fs::remove_file(&keys).expect("is there");
    // At another port.
    let _server = start();
    serves(&profile);
    assert!(!keys.exists(), "it was made again");
}
