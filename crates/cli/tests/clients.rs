//! The API as its clients use it: Go, Python and curl each drive a whole migration between two real replica sets, and
//! schemathesis looks for what the API document doesn't say. Their own files are in `tests/clients`.

use crate::support::{Process, bearer_token, finish, limosa, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare, tool};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients");

/// A server of its own, and what a client must know of it.
struct Server {
    url: String,
    keys: Value,
    profile: PathBuf,
    dir: tempfile::TempDir,
    _process: Process,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("server");
        let mut command = limosa();
        command.args(["server", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data).args(options);
        let process = Process::start(&mut command);
        let profile = data.join("profile.toml");
        let url = wait_for("the profile", || {
            let text = fs::read_to_string(&profile).ok()?;
            Some(toml::from_str::<toml::Table>(&text).ok()?.get("url")?.as_str()?.to_owned())
        });
        let keys = serde_json::from_slice(&fs::read(data.join("bootstrap.json")).expect("is there")).expect("JSON");
        Self { url, keys, profile, dir, _process: process }
    }

    fn key(&self, name: &str) -> &str {
        self.keys[name].as_str().expect("is there")
    }

    fn verb(&self, words: &[&str]) -> Value {
        let command = &mut limosa();
        let (status, said, errors) =
            finish(command.args(words).args(["--output", "json", "--profile"]).arg(&self.profile));
        assert_eq!(status, 0, "{words:?}: {errors}");
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    /// `command` with what it must know in its environment, run to its end: what it printed.
    fn drive(&self, command: &mut Command) -> String {
        command.env("LIMOSA_PROGRAM", env!("CARGO_BIN_EXE_limosa")).env("LIMOSA_URL", &self.url);
        for (variable, name) in [
            ("LIMOSA_ORG_ID", "orgId"),
            ("LIMOSA_GROUP_ID", "groupId"),
            ("LIMOSA_PUBLIC_KEY", "publicKey"),
            ("LIMOSA_PRIVATE_KEY", "privateKey"),
            ("LIMOSA_CLIENT_ID", "clientId"),
            ("LIMOSA_CLIENT_SECRET", "clientSecret"),
        ] {
            command.env(variable, self.key(name));
        }
        let (status, said, errors) = finish(command);
        assert_eq!(status, 0, "{said}\n{errors}");
        said
    }

    fn token(&self) -> String {
        bearer_token(&self.url, self.key("clientId"), self.key("clientSecret"))
    }
}

/// Two clusters, the source with credentials and data.
async fn clusters() -> (ReplicaSet, ReplicaSet) {
    let (source, destination) = tokio::join!(ReplicaSet::builder().auth(true).start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let documents: Vec<Document> = (0..5_000).map(|n| doc! {"_id": n, "payload": "p".repeat(300)}).collect();
    source.client().await.database("app").collection("c").insert_many(documents).await.expect("inserts");
    (source, destination)
}

async fn equal(source: &ReplicaSet, destination: &ReplicaSet) {
    compare(&source.client().await, &destination.client().await, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn go_clients_drive_a_whole_migration() {
    if !tool::is_there("go", &["version"]) {
        return;
    }
    let (source, destination) = clusters().await;
    let server = Server::start(&[]);
    server.verb(&["clusters", "add", "--name", "new", "--uri", &destination.uri()]);
    let mut command = Command::new("go");
    command.args(["test", "-count=1", "-v", "./..."]).current_dir(Path::new(CLIENTS).join("go"));
    let said = server.drive(command.env("LIMOSA_SOURCE_URI", source.uri()));
    for name in [
        "TestEveryOperationAnswersAndRefuses",
        "TestWrongCredentialsAreRefused",
        "TestWhatSurroundsAMigration",
        "TestSecretsAreRotated",
        "TestAWholeMigration",
    ] {
        assert!(said.contains(&format!("--- PASS: {name}")), "{said}");
    }
    equal(&source, &destination).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_requests_drives_a_whole_migration_and_curl_reads_it() {
    if !tool::is_there("python3", &["-m", "venv", "--help"]) || !tool::is_there("curl", &["--version"]) {
        return;
    }
    let python = tool::python(&Path::new(CLIENTS).join("python/requests.txt")).expect("a Python");
    let (source, destination) = clusters().await;
    let server = Server::start(&[]);
    server.verb(&["clusters", "add", "--name", "new", "--uri", &destination.uri()]);
    let token = server.verb(&["link", "create"])["linkToken"].as_str().expect("a token").to_owned();
    let mut agent = limosa();
    agent.args(["agent", "--server", &server.url, "--host-name", "mover1.example.com"]);
    agent.args(["--source", &format!("old={}", source.uri()), "--data-dir"]).arg(server.dir.path().join("agent"));
    let _agent = Process::start(agent.env("LIMOSA_LINK_TOKEN", token));
    let said = server.drive(Command::new(python).arg(Path::new(CLIENTS).join("python/migrate.py")));
    let id = said.trim();
    equal(&source, &destination).await;

    // The published command lines; only the host is another one.
    let address =
        format!("{}/api/atlas/v2/groups/{}/liveMigrations/{id}?pretty=true", server.url, server.key("groupId"));
    let bearer = format!(
        r#"curl --header "Authorization: Bearer ${{ACCESS_TOKEN}}" \
             --header "Accept: application/vnd.atlas.2025-03-12+json" \
             -X GET "{address}""#
    );
    let digest = format!(
        r#"curl --user "${{PUBLIC_KEY}}:${{PRIVATE_KEY}}" \
             --digest \
             --header "Accept: application/vnd.atlas.2025-03-12+json" \
             -X GET "{address}""#
    );
    let expected = format!(
        "{{\n  \"_id\" : \"{id}\",\n  \"lagTimeSeconds\" : null,\n  \"migrationHosts\" : [ \"mover1.example.com\" ],\n  \
         \"readyForCutover\" : false,\n  \"status\" : \"COMPLETE\"\n}}"
    );
    for line in [bearer, digest] {
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("ACCESS_TOKEN", server.token());
        command.env("PUBLIC_KEY", server.key("publicKey")).env("PRIVATE_KEY", server.key("privateKey"));
        let (status, said, errors) = finish(&mut command);
        assert_eq!((status, said.as_str()), (0, expected.as_str()), "{line}: {errors}");
    }
}

/// Cases are drawn from this; another seed draws others.
const SEED: &str = "20261124";

/// Long, so only when asked for, and in CI.
#[test]
fn schemathesis_finds_nothing() {
    if !tool::in_full() && !tool::in_ci() {
        eprintln!("SKIPPED: long; cargo x test --full runs it");
        return;
    }
    if !tool::is_there("python3", &["-m", "venv", "--help"]) {
        return;
    }
    let files = Path::new(CLIENTS).join("python");
    let python = tool::python(&files.join("schemathesis.txt")).expect("a Python");
    let unlimited = u32::MAX.to_string();
    let server = Server::start(&["--org-requests", &unlimited, "--group-requests", &unlimited]);
    eprintln!("seed {SEED}");
    let mut command = Command::new(python.with_file_name("st"));
    command.arg("--config-file").arg(files.join("schemathesis.toml"));
    command.args(["run", &format!("{}/api/openapi.json", server.url), "--checks", "all", "--max-examples", "20"]);
    command.args(["--seed", SEED, "--generation-database", "none", "--continue-on-failure", "--no-color"]);
    command.env("LIMOSA_TOKEN", server.token()).env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", &files);
    let said = server.drive(command.current_dir(server.dir.path()));
    eprintln!("{said}");
}
