//! The server and the agent as a service manager runs them: their end, and what they log.

use crate::{
    dashboard::Served,
    support::{Process, bearer_token, finish, limosa, serves, verb, wait_for},
};
use bson::doc;
use limosa_testkit::{ReplicaSet, replica_set::ADMIN};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

/// curl with a bearer token; the answer.
fn curl(served: &Served, token: &str, arguments: &[&str], path: &str) -> Value {
    let mut command = Command::new("curl");
    command.args(["--silent", "--header", "Accept: application/vnd.atlas.2025-03-12+json"]);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    command.args(["--header", "Content-Type: application/json"]).args(arguments);
    let (_, said, _) = finish(command.arg(format!("{}{path}", served.url)));
    serde_json::from_str(&said).unwrap_or(Value::Null)
}

/// An answer's head, up to the empty line.
fn head(from: &mut impl BufRead) -> String {
    let mut text = String::new();
    while from.read_line(&mut text).expect("answers") > 2 {}
    text
}

#[test]
fn a_request_under_way_is_answered_before_the_server_ends() {
    let mut served = Served::start(&[]);
    let token = bearer_token(&served.url, served.key("clientId"), served.key("clientSecret"));
    let address: SocketAddr = served.url.trim_start_matches("http://").parse().expect("an address");
    let body = json!({"name": "made at the end", "orgId": served.key("orgId")}).to_string();
    let (first, second) = body.split_at(body.len() / 2);
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
    write!(
        stream,
        "POST /api/atlas/v2/groups HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/vnd.atlas.2025-03-12+json\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    )
    .expect("writes");
    let mut answers = BufReader::new(stream.try_clone().expect("is one"));
    // From here on it is under way.
    assert!(head(&mut answers).starts_with("HTTP/1.1 100 "), "the body isn't asked for");
    stream.write_all(first.as_bytes()).expect("writes");
    served.process.signal("TERM");
    wait_for("no more connections", || match TcpStream::connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(()),
        _ => None,
    });
    assert!(!served.process.has_ended(), "it didn't wait for the request");
    stream.write_all(second.as_bytes()).expect("writes");
    let head = head(&mut answers);
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    let mut rest = String::new();
    answers.read_to_string(&mut rest).expect("the connection is closed");
    assert!(rest.contains("made at the end"), "{rest}");
    wait_for("the server's end", || served.process.has_ended().then_some(()));
}

/// Each line of the log as an object.
fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).expect("is text");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_json_tell_a_whole_migration_and_no_secret() {
    let source = ReplicaSet::builder().auth(true).start().await.expect("starts");
    let destination = ReplicaSet::builder().auth(true).start().await.expect("starts");
    source.client().await.database("app").collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let (server_log, agent_log) = (dir.path().join("server.log"), dir.path().join("agent.log"));
    let loud = |command: &mut Command, log: &Path| {
        Process::start_logging(command.env("LIMOSA_LOG", "trace"), File::create(log).expect("makes it"))
    };
    let served = Served::start_with(&["--log-format", "json"], |command| loud(command, &server_log));
    let profile = served.profile();
    serves(&profile);
    verb(&profile, &["clusters", "add", "--name", "new", "--uri", &destination.uri()]);
    let link = verb(&profile, &["link", "create"])["linkToken"].as_str().expect("a token").to_owned();
    let mut agent = limosa();
    agent.args(["agent", "--server", &served.url, "--host-name", "mover1"]);
    agent.args(["--source", &format!("old={}", source.uri()), "--data-dir"]).arg(dir.path().join("agent"));
    agent.env("LIMOSA_LINK_TOKEN", &link).env("LIMOSA_LOG_FORMAT", "json");
    let agent = loud(&mut agent, &agent_log);
    let token = bearer_token(&served.url, served.key("clientId"), served.key("clientSecret"));
    let group = served.key("groupId");
    let jobs = format!("/api/atlas/v2/groups/{group}/liveMigrations");
    let projects = format!("/api/atlas/v2/orgs/{}/liveMigrations/availableProjects", served.key("orgId"));
    wait_for("the announced deployment", || {
        (curl(&served, &token, &[], &projects)[0]["deployments"][0]["name"] == "old").then_some(())
    });
    let body = json!({
        "source": {"groupId": group, "clusterName": "old", "managedAuthentication": true, "ssl": false},
        "destination": {"groupId": group, "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
        "migrationHosts": ["mover1"], "dropDestinationData": false,
    });
    let created = curl(&served, &token, &["--data", &body.to_string()], &jobs);
    let id = created["_id"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
    wait_for("readyForCutover", || {
        (curl(&served, &token, &[], &format!("{jobs}/{id}"))["readyForCutover"] == true).then_some(())
    });
    verb(&profile, &["migrations", "cutover", "--wait", &id]);
    agent.signal("TERM");
    served.process.signal("TERM");

    for (log, said) in [(&server_log, "serving http://"), (&agent_log, "joining http://")] {
        let lines = lines(log);
        assert!(lines.len() > 5, "{lines:?}");
        for line in &lines {
            let has = |name: &str| line[name].as_str().is_some_and(|text| !text.is_empty());
            assert!(has("timestamp") && has("level") && has("target"), "{line}");
        }
        let tells = |text: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|m| m.contains(text)));
        assert!(tells(said), "{said}: {lines:?}");
    }
    let spans = |log: &Path, is_meant: fn(&Value) -> bool| -> Vec<Value> {
        lines(log).into_iter().filter(is_meant).map(|line| line["span"].clone()).collect()
    };
    let requests = spans(&server_log, |line| line["message"] == "the request was answered");
    let route = "/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}";
    let is_named = |span: &Value| span["name"] == "request" && span["id"].is_string() && span["method"].is_string();
    assert!(requests.iter().all(is_named) && requests.iter().any(|span| span["route"] == route), "{requests:?}");
    let engine = spans(&agent_log, |line| line["target"].as_str().is_some_and(|t| t.starts_with("limosa_engine")));
    let named = json!({"name": "migration", "id": id, "epoch": 1});
    assert!(!engine.is_empty() && engine.iter().all(|span| *span == named), "{engine:?}");
    let decoded = base64(&link);
    let secrets = [
        served.key("privateKey").to_owned(),
        served.key("clientSecret").to_owned(),
        token,
        link,
        decoded["privateApiKey"].as_str().expect("a key").to_owned(),
        ADMIN.1.to_owned(),
        "secret%3A%2F%401".to_owned(),
    ];
    assert!(source.uri().contains(&secrets[6]));
    for log in [&server_log, &agent_log] {
        let text = fs::read_to_string(log).expect("is text");
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{} holds {secret}", log.display());
        }
    }
}

fn base64(text: &str) -> Value {
    let mut command = Command::new("bash");
    command.args(["-c", "base64 --decode <<< \"$TEXT\""]).env("TEXT", text);
    let (_, said, errors) = finish(&mut command);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {errors}"))
}
