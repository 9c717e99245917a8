//! What the store's file holds. A newer version opens the file of an older one: what is kept in `golden/store` was written
//! by version 0.1.0 of November 2026, and its keys are those of this test alone.

use crate::support::{ACCEPT, Answer, TestServer, sign};
use limosa_model::{PhaseKind, Progress, report::Record};
use limosa_server::{RequestLimits, Server, ServerConfig};
use reqwest::{Client, Method};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a failed comparison with a stored snapshot says.
const ADVICE: &str = "\
    The store's tables and rows as earlier versions of limosa wrote them. Change nothing in a step of store/schema.rs that a \
    version had: add a step. A row's JSON keeps its names: #[serde(rename)] or #[serde(alias)], and a default for what is \
    new. After an addition, write the file again: INSTA_UPDATE=always cargo test -p limosa-server --test main stored_rows";

/// Set, it makes `golden/store` again, by the version that is built. A test that fails is no reason: what is there is what
/// servers have on their disks.
const WRITE: &str = "LIMOSA_WRITE_STORE";

/// A hundred years: what is kept must not expire.
const WINDOW_SECONDS: i64 = 100 * 365 * 86_400;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store")
}

fn compare(name: &str, found: &str) {
    insta::with_settings!({
        snapshot_path => "golden", prepend_module_to_snapshot => false, description => ADVICE, omit_expression => true,
    }, { insta::assert_snapshot!(name, found) });
}

/// The rows that a query yields, each as text.
fn rows(connection: &Connection, query: &str) -> Vec<String> {
    let mut query = connection.prepare(query).expect("is SQL");
    query.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("reads")
}

const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
const SCHEMA: &str =
    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name";

/// All of a store, as SQL that makes it again.
fn dump(connection: &Connection) -> String {
    let mut all: Vec<String> = rows(connection, SCHEMA).into_iter().map(|sql| format!("{sql};")).collect();
    for table in rows(connection, TABLES) {
        let columns = rows(connection, &format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"));
        let values: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        let values = rows(connection, &format!("SELECT {} FROM {table}", values.join(" || ', ' || ")));
        let into = format!("INSERT INTO {table} ({})", columns.join(", "));
        all.extend(values.iter().map(|values| format!("{into} VALUES ({values});")));
    }
    let version = rows(connection, "SELECT CAST(user_version AS TEXT) FROM pragma_user_version").concat();
    format!("{}\nPRAGMA user_version = {version};\n", all.join("\n"))
}

#[tokio::test]
async fn the_tables_of_a_new_store_stay() {
    let (dir, _) = TestServer::start().await.stop().await;
    let connection = Connection::open(dir.path().join("limosa.db")).expect("opens");
    let words = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let schema: Vec<String> = rows(&connection, SCHEMA).into_iter().map(words).collect();
    compare("store_schema", &schema.join("\n"));
}

/// Migrations in all phases, with what else a store holds.
async fn fill(server: &TestServer) {
    let mut agent = server.agent().await;
    for phase in PhaseKind::ALL.iter().copied().filter(|phase| *phase != PhaseKind::Scheduled) {
        let migration = create(server, phase).await;
        let own = migration.replace("/api/atlas/v2", "/api/limosa/v1");
        agent.claim().await;
        let progress = Progress { lag_seconds: Some(1), documents_copied: 10, ..Progress::default() };
        let first = match phase {
            PhaseKind::Paused | PhaseKind::Cancelled => PhaseKind::Copying,
            PhaseKind::CuttingOver | PhaseKind::Finalizing | PhaseKind::Complete | PhaseKind::Expired => {
                PhaseKind::Synced
            }
            phase => phase,
        };
        agent.report_with(&migration, first, progress).await;
        let accepted = match phase {
            PhaseKind::CuttingOver | PhaseKind::Finalizing | PhaseKind::Complete => {
                Some(server.call(Method::PUT, &format!("{migration}/cutover"), None).await)
            }
            PhaseKind::Paused => Some(server.call(Method::POST, &format!("{own}/pause"), None).await),
            PhaseKind::Cancelled => Some(server.call(Method::POST, &format!("{own}/cancel"), None).await),
            _ => None,
        };
        assert!(accepted.as_ref().is_none_or(|answer| answer.status < 300), "{accepted:?}");
        match phase {
            PhaseKind::Finalizing => drop(agent.report(&migration, phase, Some(0)).await),
            PhaseKind::Complete => {
                let record = Record { source_version: "6.0.5".to_owned(), ..Record::default() };
                assert_eq!(agent.completes(&migration, record).await.status, 200);
                assert_eq!(server.get(&format!("{own}/report")).await.status, 200);
            }
            PhaseKind::Expired => {
                server.store(
                    "UPDATE migrations SET body = json_set(body, '$.phase.expiresAt', 1,
                    '$.carried.cutoverBy', 1) WHERE ends_at IS NOT NULL AND destination = 'new-expired'"
                        .replace("destination", "json_extract(body, '$.destination.clusterName')")
                        .as_str(),
                );
                while server.get(&own).await.json()["phase"] != "expired" {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            _ => {}
        }
        // An agent is given what it holds before anything else.
        server.store("UPDATE migrations SET body = json_set(body, '$.migrationHost', 'mover0')");
    }
    create(server, PhaseKind::Scheduled).await;
    let validation =
        server.call(Method::POST, &server.group("liveMigrations/validate"), Some(server.request_body())).await;
    agent.heartbeat(false).await;
    agent.validated(validation.json()["_id"].as_str().expect("an id"), &["SAME_CLUSTER"]).await;
    let key = json!({"desc": "reads", "roles": ["ORG_READ_ONLY"]});
    assert_eq!(server.call(Method::POST, &server.org("apiKeys"), Some(key)).await.status, 200);
    // Only agents that were heard of lately are listed: this one is, until 2100.
    server.store("UPDATE agents SET seen_at = 4102444800000");
}

/// A migration to a cluster of its own; its path.
async fn create(server: &TestServer, phase: PhaseKind) -> String {
    let name = format!("new-{}", phase.name());
    let cluster = json!({"name": name, "uri": "mongodb://user:hidden@127.0.0.1:1/"});
    assert_eq!(server.call(Method::POST, &server.own("clusters"), Some(cluster)).await.status, 201);
    let mut request = server.request_with_password();
    request["destination"]["clusterName"] = name.into();
    server.migration_of(request).await
}

async fn write_kept() {
    let server = TestServer::with_window(WINDOW_SECONDS).await;
    fill(&server).await;
    let (dir, keys) = server.stop().await;
    fs::create_dir_all(kept()).expect("is made");
    let connection = Connection::open(dir.path().join("limosa.db")).expect("opens");
    fs::write(kept().join("limosa.sql"), dump(&connection)).expect("writes");
    let key = fs::read(dir.path().join("secret.key")).expect("is there");
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(kept().join("secret.key.hex"), key + "\n").expect("writes");
    let keys = json!({
        "groupId": keys.group_id, "orgId": keys.org_id, "publicKey": keys.public_key,
        "privateKey": keys.private_key.expose(),
    });
    fs::write(kept().join("owner.json"), format!("{keys:#}\n")).expect("writes");
}

/// A server on what is kept, asked with its owner's API key.
struct Opened {
    url: String,
    owner: Value,
    http: Client,
    _dir: tempfile::TempDir,
}

impl Opened {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |name: &str| fs::read_to_string(kept().join(name)).expect("is kept");
        let connection = Connection::open(dir.path().join("limosa.db")).expect("opens");
        connection.pragma_update(None, "foreign_keys", false).expect("is set");
        connection.execute_batch(&read("limosa.sql")).expect("is SQL");
        drop(connection);
        let key = read("secret.key.hex");
        let byte = |at: usize| u8::from_str_radix(&key[at..at + 2], 16).expect("is hexadecimal");
        let key: Vec<u8> = (0..key.trim().len()).step_by(2).map(byte).collect();
        fs::write(dir.path().join("secret.key"), key).expect("writes");
        let config = ServerConfig {
            data_dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            cutover_window_seconds: WINDOW_SECONDS,
            session_seconds: limosa_server::SESSION_SECONDS,
            notify: None,
            tls: None,
            limits: RequestLimits::default(),
            most_connections: limosa_server::MOST_CONNECTIONS,
            public_url: None,
        };
        let server = Server::start(&config).expect("a newer version opens what an older one wrote");
        let url = format!("http://{}", server.local_addr());
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::spawn(server.serve_until(std::future::pending()));
        let owner = serde_json::from_str(&read("owner.json")).expect("is JSON");
        Self { url, owner, http: Client::new(), _dir: dir }
    }

    async fn get(&self, path: &str) -> Value {
        let id = |name: &str| self.owner[name].as_str().expect("is there");
        let path = path.replace("{group}", id("groupId")).replace("{org}", id("orgId"));
        let request = || self.http.get(format!("{}{path}", self.url)).header("accept", ACCEPT);
        let asked = Answer::of(request()).await;
        let signature =
            sign(asked.header("www-authenticate"), (id("publicKey"), id("privateKey")), "GET", &path, "00000001");
        let answer = Answer::of(request().header("authorization", signature)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// The values of one field in a list.
    async fn list(&self, path: &str, field: &str) -> Vec<String> {
        let found = self.get(path).await;
        let all = found["results"].as_array().or(found.as_array()).expect("a list");
        all.iter().map(|one| one[field].as_str().map_or_else(|| one[field].to_string(), str::to_owned)).collect()
    }
}

#[tokio::test]
async fn a_store_that_an_earlier_version_wrote_is_listed() {
    if std::env::var_os(WRITE).is_some() {
        write_kept().await;
    }
    let server = Opened::start();
    let mut lines = Vec::new();
    for id in server.list("/api/limosa/v1/groups/{group}/liveMigrations?itemsPerPage=100", "id").await {
        let own = format!("/api/limosa/v1/groups/{{group}}/liveMigrations/{id}");
        let detail = server.get(&own).await;
        let mut events = server.list(&format!("{own}/events"), "kind").await;
        // Its agent is silent by now.
        events.retain(|kind| kind != "waiting");
        lines.push(format!("migration {}: {}", detail["phase"], events.join(" ")));
        if detail["phase"] == "complete" {
            assert_eq!(server.get(&format!("{own}/report")).await["sourceVersion"], "6.0.5");
        }
    }
    for phase in PhaseKind::ALL {
        assert!(lines.iter().any(|line| line.starts_with(&format!("migration \"{}\":", phase.name()))), "{phase:?}");
    }
    for (what, path, field) in [
        ("agents", "/api/atlas/v2/orgs/{org}/liveMigrations/availableProjects", "migrationHosts"),
        ("clusters", "/api/limosa/v1/groups/{group}/clusters", "name"),
        ("API keys", "/api/atlas/v2/orgs/{org}/apiKeys", "desc"),
        ("service accounts", "/api/atlas/v2/orgs/{org}/serviceAccounts", "name"),
        ("groups", "/api/atlas/v2/groups", "name"),
        ("audit", "/api/limosa/v1/orgs/{org}/audit?itemsPerPage=500", "operation"),
    ] {
        lines.push(format!("{what}: {}", server.list(path, field).await.join(" ")));
    }
    compare("store_listed", &lines.join("\n"));
}
