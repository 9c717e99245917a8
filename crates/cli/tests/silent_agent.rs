//! A migration host that says nothing, and a source whose majority is held back: nothing is green anywhere.

use crate::{
    dashboard::Served,
    support::{Process, finish, limosa, verb, wait_for},
};
use bson::{Document, doc};
use limosa_testkit::{Error, ReplicaSet, browser::Browser};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// A server, an agent and a migration that is ready for its cutover.
struct Ready {
    server: Served,
    agent: Process,
    id: String,
}

impl Ready {
    async fn start(source: &ReplicaSet, destination: &ReplicaSet) -> Self {
        let all: Vec<Document> = (0..500).map(|n| doc! {"_id": n}).collect();
        source.client().await.database("app").collection("c").insert_many(all).await.expect("inserts");
        let server = Served::start(&[]);
        let profile = server.profile();
        verb(&profile, &["clusters", "add", "--name", "new", "--uri", &destination.uri()]);
        let token = verb(&profile, &["link", "create"])["linkToken"].as_str().expect("a token").to_owned();
        let agent = server.agent(&token, source);
        let mut own = Self { server, agent, id: String::new() };
        let group = own.server.key("groupId").to_owned();
        let body = json!({
            "source": {"groupId": group, "clusterName": "old", "managedAuthentication": true, "ssl": false},
            "destination": {"groupId": group, "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
            "migrationHosts": ["mover1"], "dropDestinationData": false,
        });
        let created = wait_for("the migration", || {
            let data = ["--header", "Content-Type: application/json", "--data", &body.to_string()];
            let created = own.curl(&data, &own.jobs());
            created["_id"].is_string().then_some(created)
        });
        own.id = created["_id"].as_str().expect("an id").to_owned();
        wait_for("readyForCutover", || (own.job()["readyForCutover"] == true).then_some(()));
        own
    }

    /// As a script for Atlas does it.
    fn curl(&self, arguments: &[&str], path: &str) -> Value {
        serde_json::from_str(&self.fetch(arguments, path)).unwrap_or(Value::Null)
    }

    fn fetch(&self, arguments: &[&str], path: &str) -> String {
        let user = format!("{}:{}", self.server.key("publicKey"), self.server.key("privateKey"));
        let accept = "Accept: application/vnd.atlas.2025-03-12+json";
        let mut command = Command::new("curl");
        command.args(["--silent", "--digest", "--user", &user, "--header", accept]).args(arguments);
        finish(command.arg(format!("{}{path}", self.server.url))).1
    }

    fn jobs(&self) -> String {
        format!("/api/atlas/v2/groups/{}/liveMigrations", self.server.key("groupId"))
    }

    fn job(&self) -> Value {
        self.curl(&[], &format!("{}/{}", self.jobs(), self.id))
    }

    fn detail(&self) -> Value {
        verb(&self.server.profile(), &["migrations", "describe", &self.id])
    }

    fn listed(&self) -> String {
        let mut command = limosa();
        let (status, listed, errors) =
            finish(command.args(["migrations", "list", "--profile"]).arg(self.server.profile()));
        assert_eq!(status, 0, "{errors}");
        listed
    }

    /// A series of this migration, if it is shown.
    fn series(&self, name: &str) -> Option<i64> {
        let text = self.fetch(&[], "/metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn is_not_green(&self, code: &str) {
        let (job, detail, listed) = (self.job(), self.detail(), self.listed());
        assert_eq!((&job["readyForCutover"], &job["status"]), (&json!(false), &json!("WORKING")), "{job}");
        assert_eq!(detail["readyForCutover"], false, "{detail}");
        assert_eq!(detail["progress"]["waiting"]["code"], code, "{detail}");
        assert!(listed.contains(code) && !listed.contains("ready"), "{listed}");
        assert_eq!(self.series("limosa_migration_ready_for_cutover"), Some(0));
        assert_ne!(self.series("limosa_migration_lag_seconds"), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_green_while_the_agent_is_stopped() -> Result<(), Error> {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source?, destination?);
    let ready = Ready::start(&source, &destination).await;
    let browser = Browser::start("a stopped agent in a browser").await?;
    if let Some(browser) = &browser {
        browser.open(&ready.server.url).await?;
        ready.server.sign_in(browser).await?;
        browser.sees("Ready for cutover").await?;
    }
    assert!(ready.listed().contains("ready"), "{}", ready.listed());
    ready.agent.signal("STOP");
    let began = Instant::now();
    wait_for("silence", || (ready.job()["readyForCutover"] == false).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    if let Some(browser) = &browser {
        // The page asks again every few seconds, though nothing tells it to.
        browser.sees("mover1 has reported nothing for").await?;
    }
    // Longer than a lease, and long enough that somebody is told.
    while began.elapsed() < Duration::from_secs(60) {
        ready.is_not_green("HOST_SILENT");
        let (job, detail) = (ready.job(), ready.detail());
        assert_eq!((&job["lagTimeSeconds"], &detail["lagTimeSeconds"]), (&Value::Null, &Value::Null));
        assert!(detail["reportAgeSeconds"].as_i64().is_some_and(|age| age >= 10), "{detail}");
        assert_eq!(ready.series("limosa_migration_lag_seconds"), None);
        assert_eq!(ready.series("limosa_migration_oplog_window_seconds"), None);
        assert!(ready.series("limosa_migration_report_age_seconds").is_some_and(|age| age >= 10));
        if let Some(browser) = &browser {
            let green = browser.script("return document.querySelectorAll('main .good').length").await?;
            assert_eq!(green, 0, "something is green");
            browser.sees("mover1 has reported nothing for").await?;
        }
        // Fewer requests a minute than one caller may make.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let refused = ready.curl(&["--request", "PUT"], &format!("{}/{}/cutover", ready.jobs(), ready.id));
    assert_eq!((&refused["error"], &refused["errorCode"]), (&json!(409), &json!("LIVE_MIGRATION_HOST_SILENT")));
    let detail = refused["detail"].as_str().expect("is told");
    assert!(detail.contains("its migration host mover1 has reported nothing for"), "{detail}");
    let events = || verb(&ready.server.profile(), &["migrations", "events", &ready.id]).to_string();
    assert!(events().contains("HOST_SILENT: "), "{}", events());
    ready.agent.signal("CONT");
    wait_for("readyForCutover", || (ready.job()["readyForCutover"] == true).then_some(()));
    wait_for("the event", || events().contains("HOST_SILENT is over").then_some(()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_green_while_the_majority_of_the_source_is_held_back() -> Result<(), Error> {
    let (source, destination) = tokio::join!(ReplicaSet::builder().members(3).arbiter().start(), ReplicaSet::start());
    let (mut source, destination) = (source?, destination?);
    let ready = Ready::start(&source, &destination).await;
    let secondary = 1 - source.primary_index().await?;
    source.kill(secondary);
    let write = doc! {"insert": "c", "documents": [{"_id": "by one alone"}], "writeConcern": {"w": 1}};
    source.client().await.database("app").run_command(write).await?;
    wait_for("the end of readiness", || (ready.job()["readyForCutover"] == false).then_some(()));
    let began = Instant::now();
    let lag = || ready.job()["lagTimeSeconds"].as_i64();
    while began.elapsed() < Duration::from_secs(15) {
        ready.is_not_green("SOURCE_MAJORITY_STALLED");
        assert!(lag().is_some_and(|lag| lag > 0), "{:?}", lag());
    }
    let refused = ready.curl(&["--request", "PUT"], &format!("{}/{}/cutover", ready.jobs(), ready.id));
    assert_eq!(refused["errorCode"], "LIVE_MIGRATION_NOT_READY");
    source.restart(secondary).await?;
    wait_for("readyForCutover", || (ready.job()["readyForCutover"] == true).then_some(()));
    Ok(())
}
