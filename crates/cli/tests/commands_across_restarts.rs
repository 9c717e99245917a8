//! What was asked for while server and agent die takes effect, once, when they are back; and so does the time that goes
//! by.

use crate::support::{Process, limosa, serves, verb, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare};
use mongodb::Client;
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};

/// A server and an agent that are killed and started again, and the two clusters between which they migrate.
struct Site {
    dir: tempfile::TempDir,
    listen: String,
    window: &'static str,
    source: ReplicaSet,
    destination: ReplicaSet,
    from: Client,
    to: Client,
    token: String,
    server: Option<Process>,
    agent: Option<Process>,
}

impl Site {
    async fn start(window: &'static str) -> Self {
        let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
        let (source, destination) = (source.expect("starts"), destination.expect("starts"));
        let (from, to) = (source.client().await, destination.client().await);
        let documents = (0..500).map(|n| doc! {"_id": n});
        from.database("app").collection("c").insert_many(documents).await.expect("inserts");
        let listen = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one");
        let (dir, listen) = (tempfile::tempdir().expect("a directory"), listen.to_string());
        let (token, server, agent) = (String::new(), None, None);
        let mut site = Self { dir, listen, window, source, destination, from, to, token, server, agent };
        site.start_server();
        site.verb(&["clusters", "add", "--name", "new", "--uri", &site.destination.uri()]);
        site.token = site.verb(&["link", "create"])["linkToken"].as_str().expect("a token").to_owned();
        site.start_agent();
        site
    }

    fn start_server(&mut self) {
        let mut command = limosa();
        command.args(["server", "--listen", &self.listen, "--cutover-window", self.window, "--data-dir"]);
        self.server = Some(Process::start(command.arg(self.dir.path().join("server"))));
        serves(&self.dir.path().join("server/profile.toml"));
    }

    fn start_agent(&mut self) {
        let mut command = limosa();
        command.args(["agent", "--server", &format!("http://{}", self.listen), "--host-name", "mover1"]);
        command.args(["--source", &format!("old={}", self.source.uri()), "--data-dir"]);
        command.arg(self.dir.path().join("agent"));
        self.agent = Some(Process::start(command.env("LIMOSA_LINK_TOKEN", &self.token)));
    }

    /// SIGKILL, both; a dropped process is.
    fn kill(&mut self) {
        (self.server, self.agent) = (None, None);
    }

    fn start_again(&mut self) {
        self.start_server();
        self.start_agent();
    }

    fn verb(&self, words: &[&str]) -> Value {
        verb(&self.dir.path().join("server/profile.toml"), words)
    }

    /// Creates a migration as a script for Atlas does.
    fn create(&self) -> String {
        let file = self.dir.path().join("server/bootstrap.json");
        let keys: Value = serde_json::from_slice(&fs::read(file).expect("is there")).expect("JSON");
        let text = |name: &str| keys[name].as_str().expect("is there").to_owned();
        let body = json!({
            "source": {"groupId": text("groupId"), "clusterName": "old", "managedAuthentication": true, "ssl": false},
            "destination": {"groupId": text("groupId"), "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
            "migrationHosts": ["mover1"], "dropDestinationData": false,
        });
        let url = format!("http://{}/api/atlas/v2/groups/{}/liveMigrations", self.listen, text("groupId"));
        wait_for("the created migration", || {
            let mut command = Command::new("curl");
            let user = format!("{}:{}", text("publicKey"), text("privateKey"));
            command.args(["--silent", "--digest", "--user", &user, "--header", "Content-Type: application/json"]);
            command.args(["--header", "Accept: application/vnd.atlas.2025-03-12+json", "--data", &body.to_string()]);
            let done = command.arg(&url).output().expect("curl runs");
            let answer = serde_json::from_slice::<Value>(&done.stdout).unwrap_or(Value::Null);
            answer["_id"].as_str().map(str::to_owned)
        })
    }

    fn detail(&self, id: &str) -> Value {
        self.verb(&["migrations", "describe", id])
    }

    fn is_ready(&self, id: &str) {
        wait_for("readyForCutover", || (self.detail(id)["readyForCutover"] == true).then_some(()));
    }

    /// How many events of this kind there are whose message contains `text`.
    fn told(&self, id: &str, kind: &str, text: &str) -> usize {
        let events = self.verb(&["migrations", "events", id]);
        let all = events["results"].as_array().expect("a list");
        all.iter().filter(|e| e["kind"] == kind && e["message"].as_str().is_some_and(|m| m.contains(text))).count()
    }

    /// What the agent keeps on its disk of its migrations.
    fn kept(&self) -> Vec<String> {
        let of = |kind: &str| fs::read_dir(self.dir.path().join("agent").join(kind)).into_iter().flatten();
        let all = of("spool").chain(of("verify"));
        all.map(|entry| entry.expect("is readable").path().display().to_string()).collect()
    }

    async fn write(&self, id: i32) {
        self.from.database("app").collection("c").insert_one(doc! {"_id": id}).await.expect("inserts");
    }

    async fn has(&self, id: i32) -> bool {
        let here = self.to.database("app").collection::<Document>("c");
        here.find_one(doc! {"_id": id}).await.expect("reads").is_some()
    }
}

/// For longer than a running agent needs to carry a change over.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_that_are_asked_for_while_everything_dies_take_effect_once() {
    let mut site = Site::start("120h").await;
    let id = site.create();
    site.is_ready(&id);
    let ends = site.detail(&id)["expiresAt"].clone();

    site.verb(&["migrations", "pause", &id]);
    site.kill();
    site.write(1_000).await;
    site.start_again();
    a_while().await;
    assert_eq!((&site.detail(&id)["phase"], site.has(1_000).await), (&json!("paused"), false));
    assert_eq!(site.detail(&id)["expiresAt"], ends, "the time to cut over continues");

    site.agent = None;
    site.verb(&["migrations", "extend", "--hours", "24", &id]);
    site.verb(&["migrations", "resume", &id]);
    site.kill();
    site.start_again();
    site.is_ready(&id);
    wait_for("what was written while it was paused", || {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(site.has(1_000))).then_some(())
    });
    let seconds = |text: &Value| {
        let mut command = Command::new("date");
        let done = command.args(["+%s", "--date", text.as_str().expect("a time")]).output().expect("runs");
        String::from_utf8_lossy(&done.stdout).trim().parse::<i64>().expect("a number")
    };
    assert_eq!(seconds(&site.detail(&id)["expiresAt"]) - seconds(&ends), 24 * 3600);

    // Nobody is there to remove what was copied, and the server dies too.
    site.agent = None;
    site.verb(&["migrations", "cancel", "--drop-copied", &id]);
    site.kill();
    site.start_again();
    wait_for("its removal", || (site.told(&id, "removed", "") > 0).then_some(()));
    assert_eq!(site.to.database("app").list_collection_names().await.expect("lists"), Vec::<String>::new());
    let left = site.from.database("app").collection::<Document>("c").count_documents(doc! {}).await;
    assert_eq!(left.expect("counts"), 501, "the source is never touched");
    assert_eq!(site.detail(&id)["phase"], "cancelled");

    // Cancelled without that, it leaves everything.
    let id = site.create();
    site.is_ready(&id);
    site.verb(&["migrations", "cancel", &id]);
    site.kill();
    site.write(1_001).await;
    site.start_again();
    a_while().await;
    assert_eq!((site.has(1_000).await, site.has(1_001).await), (true, false));
    assert_eq!(site.kept(), Vec::<String>::new());
    assert_eq!((site.told(&id, "removed", ""), site.told(&id, "phase", "to Cancelled")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_migration_that_is_cancelled_is_removed_too() {
    let site = Site::start("120h").await;
    let id = site.create();
    site.is_ready(&id);
    site.verb(&["migrations", "pause", &id]);
    // By then the agent has laid it down.
    a_while().await;
    assert_eq!(site.kept().len(), 2, "it continues from there");
    site.verb(&["migrations", "cancel", "--drop-copied", &id]);
    wait_for("its removal", || (site.told(&id, "removed", "") > 0).then_some(()));
    assert_eq!(site.to.database("app").list_collection_names().await.expect("lists"), Vec::<String>::new());
    // The destination is free for another.
    let id = site.create();
    site.is_ready(&id);
    compare(&site.from, &site.to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_cut_over_goes_on_through_restarts_and_ends_without_harm() {
    // A few seconds more than the last warning comes before the end.
    let mut site = Site::start("3610s").await;
    let id = site.create();
    site.is_ready(&id);
    assert_eq!(site.told(&id, "warning", "to cut over"), 0);
    site.kill();
    site.start_again();
    wait_for("the warning", || (site.told(&id, "warning", "less than 1 h") > 0).then_some(()));
    site.kill();
    site.start_again();
    site.is_ready(&id);
    assert_eq!(site.told(&id, "warning", "to cut over"), 1, "told once more after a restart");

    let mut site = Site::start("8s").await;
    let id = site.create();
    site.is_ready(&id);
    let ends = site.detail(&id)["expiresAt"].clone();
    site.kill();
    // It lapses while nothing runs.
    tokio::time::sleep(Duration::from_secs(9)).await;
    site.write(1_000).await;
    site.start_again();
    wait_for("EXPIRED", || (site.detail(&id)["status"] == "EXPIRED").then_some(()));
    assert_ne!(ends, Value::Null);
    a_while().await;
    assert!(!site.has(1_000).await, "it is replicated on");
    let here = site.to.database("app").collection::<Document>("c").count_documents(doc! {}).await.expect("counts");
    assert_eq!((here, site.told(&id, "phase", "to Expired")), (500, 1));
}
