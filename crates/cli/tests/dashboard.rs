//! The page in a real browser, on a real server, an agent and two replica sets.

use crate::support::{Process, limosa, wait_for};
use bson::{Document, doc};
use limosa_testkit::{Error, ReplicaSet, browser::Browser, compare, workload::Workload};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A server as a process: its address and its first owner's keys.
pub struct Served {
    pub url: String,
    pub process: Process,
    keys: Value,
    dir: tempfile::TempDir,
}

impl Served {
    pub fn start(options: &[&str]) -> Self {
        Self::start_with(options, Process::start)
    }

    /// One that is started in another way.
    pub fn start_with(options: &[&str], start: impl FnOnce(&mut Command) -> Process) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("server");
        let mut command = limosa();
        command.args(["server", "--listen", "127.0.0.1:0"]).args(options).arg("--data-dir").arg(&data);
        let process = start(&mut command);
        let url = wait_for("the server's profile", || {
            let text = fs::read_to_string(data.join("profile.toml")).ok()?;
            Some(text.lines().find_map(|line| line.strip_prefix("url = \""))?.trim_end_matches('"').to_owned())
        });
        let keys = fs::read(data.join("bootstrap.json")).expect("is there");
        Self { url, process, keys: serde_json::from_slice(&keys).expect("JSON"), dir }
    }

    /// For the client verbs.
    pub fn profile(&self) -> PathBuf {
        self.dir.path().join("server/profile.toml")
    }

    pub fn key(&self, name: &str) -> &str {
        self.keys[name].as_str().expect("is there")
    }

    pub async fn sign_in(&self, browser: &Browser) -> Result<(), Error> {
        browser.fill("#name", self.key("publicKey")).await?;
        browser.fill("#secret", self.key("privateKey")).await?;
        browser.press("Sign in").await
    }

    pub fn agent(&self, token: &str, source: &ReplicaSet) -> Process {
        let mut command = limosa();
        command.args(["agent", "--server", &self.url, "--host-name", "mover1", "--source"]);
        command.arg(format!("old={}", source.uri())).arg("--data-dir").arg(self.dir.path().join("agent"));
        Process::start(command.env("LIMOSA_LINK_TOKEN", token))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_created_watched_and_cut_over_in_the_browser() -> Result<(), Error> {
    let Some(browser) = Browser::start("the page in a browser").await? else { return Ok(()) };
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source?, destination?);
    let (from, to) = (source.client().await, destination.client().await);
    for part in 0..3 {
        let documents: Vec<Document> = (0..5_000).map(|n| doc! {"_id": n, "payload": "p".repeat(300)}).collect();
        from.database("app").collection(&format!("c{part}")).insert_many(documents).await?;
    }
    for beside in ["kept", "secret"] {
        from.database(beside).collection("c").insert_one(doc! {"_id": beside}).await?;
    }
    from.database("app").collection("scratch").insert_one(doc! {"_id": "left behind"}).await?;
    let writers = Workload::start(&from, "app", 11, 2);
    let server = Served::start(&[]);

    // The way in, and a wrong password.
    browser.open(&server.url).await?;
    browser.fill("#name", server.key("publicKey")).await?;
    browser.fill("#secret", "wrong").await?;
    browser.press("Sign in").await?;
    browser.sees("its secret is another one").await?;
    browser.look("sign-in").await?;
    server.sign_in(&browser).await?;
    browser.sees("There is no migration yet").await?;
    browser.look("home-empty").await?;
    let cookie = browser.script("return document.cookie").await?;
    assert_eq!(cookie, "", "a script can read the session");

    // A destination, a link token, an agent with it.
    browser.press("Clusters").await?;
    browser.fill("#name", "new").await?;
    browser.fill("#uri", &destination.uri()).await?;
    browser.press("Register").await?;
    browser.sees("new can be the destination of migrations.").await?;
    browser.look("clusters").await?;
    browser.press("Hosts").await?;
    browser.press("Create link token").await?;
    browser.press("Create").await?;
    let token = browser.at("pre[aria-label='Link token']").await?.text().await?;
    let _agent = server.agent(&token, &source);
    browser.sees("mover1").await?;
    browser.look("hosts").await?;

    // A migration that can't start is explained; one that can is started.
    to.database("app").collection("c0").insert_one(doc! {"_id": "in the way"}).await?;
    browser.press("New migration").await?;
    browser.fill("#include", "shop").await?;
    browser.press("Validate").await?;
    browser.sees("\"shop\" is not a namespace: write 'db.*' for a whole database").await?;
    browser.look("create-bad-pattern").await?;
    browser.fill("#include", "app.*\nkept.c").await?;
    browser.fill("#exclude", "app.scratch").await?;
    browser.press("Validate").await?;
    browser.sees("DESTINATION_NOT_EMPTY").await?;
    browser.sees("What to do:").await?;
    browser.look("create-refused").await?;
    to.database("app").drop().await?;
    browser.press("Validate").await?;
    browser.sees("Nothing stands in the way").await?;
    browser.look("create").await?;
    browser.press("Start").await?;
    browser.sees("Stop the application's writes on the source, then cut over.").await?;
    browser.sees("app.*, kept.c but app.scratch").await?;
    // Looked at every ten seconds.
    browser.sees("Source's oplog reaches back").await?;

    // The server tells of changes.
    browser.script("window.heard = 0; window.addEventListener('limosa:changed', () => { window.heard += 1; })").await?;
    browser.until("return window.heard > 1").await?;

    // The connection is lost and comes back.
    browser.offline(true).await?;
    browser.sees("The connection to the server is lost").await?;
    browser.look("offline").await?;
    browser.offline(false).await?;
    wait_for("the connection", || {
        let text = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(browser.text()));
        text.is_ok_and(|text| !text.contains("is lost")).then_some(())
    });
    browser.sees("now 0 s").await?;
    browser.look("migration").await?;
    browser.size(390, 844).await?;
    browser.look("migration-phone").await?;
    assert!(!browser.overflows().await?, "the page is wider than a phone");
    browser.press("Migrations").await?;
    browser.sees("1 of 1 shown").await?;
    browser.look("home-phone").await?;
    assert!(!browser.overflows().await?, "the page is wider than a phone");
    browser.size(1200, 900).await?;
    browser.look("home").await?;
    browser.fill("#text", "no such thing").await?;
    browser.sees("No migration fits the filter.").await?;
    browser.at("#text").await?.clear().await?;
    browser.script("document.querySelector('#text').dispatchEvent(new Event('input'))").await?;
    browser.press("old → new").await?;

    // The cutover asks for all that it needs.
    let acknowledged = writers.stop("app").await?;
    browser.press("Extend").await?;
    browser.click("dialog button[type=submit]").await?;
    browser.sees("There is more time now.").await?;
    browser.press("Limits").await?;
    browser.at("#load-level option[value='2']").await?.click().await?;
    browser.fill("#read-mbps", "800").await?;
    browser.look("limits").await?;
    browser.press("Set").await?;
    browser.sees("reads at most 800 Mbit/s").await?;
    browser.press("Limits").await?;
    assert_eq!(browser.script("return document.querySelector('#load-level').value").await?, "2");
    browser.at("#read-mbps").await?.clear().await?;
    browser.press("Set").await?;
    browser.sees("no bound in Mbit/s").await?;
    browser.press("Rehearse").await?;
    browser.sees("The cutover would complete; the application would wait about").await?;
    browser.look("rehearsed").await?;
    browser.press("Cut over").await?;
    let go = "return document.querySelector('dialog button[type=submit]').disabled";
    assert_eq!(browser.script(go).await?, true);
    browser.fill("#typed", "new").await?;
    assert_eq!(browser.script(go).await?, true, "the checklist is not ticked");
    for check in ["#check-0", "#check-1", "#check-2"] {
        browser.click(check).await?;
    }
    assert_eq!(browser.script(go).await?, false);
    browser.look("cutover").await?;
    browser.press("Cut over now").await?;
    browser.sees("Point the application to the destination and start it.").await?;
    browser.sees("Write pause").await?;
    browser.sees("Both sides were the same when it was completed, document by document.").await?;
    browser.look("complete").await?;
    acknowledged.check(&to).await?;
    from.database("app").collection::<Document>("scratch").drop().await?;
    compare(&from, &to, &["app", "kept"]).await?;
    let arrived = to.list_database_names().await?;
    assert!(!arrived.contains(&"secret".to_owned()), "{arrived:?}");
    let arrived = to.database("app").list_collection_names().await?;
    assert!(!arrived.contains(&"scratch".to_owned()), "{arrived:?}");

    browser.press("Keys").await?;
    browser.sees("Service accounts").await?;
    browser.look("keys").await?;
    browser.press("Audit").await?;
    browser.sees("cutoverGroupLiveMigration").await?;
    browser.look("audit").await?;
    browser.press("Sign out").await?;
    browser.sees("Sign in to Limosa").await?;
    browser.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expired_asks_to_sign_in_again() -> Result<(), Error> {
    let Some(browser) = Browser::start("an expired session in a browser").await? else { return Ok(()) };
    let server = Served::start(&["--session-life", "5s"]);
    browser.open(&format!("{}/#/hosts", server.url)).await?;
    server.sign_in(&browser).await?;
    browser.sees("No agent reported within the last minute").await?;
    browser.sees("Your session has ended. Sign in again to continue.").await?;
    server.sign_in(&browser).await?;
    // Back where it was.
    browser.sees("No agent reported within the last minute").await?;
    browser.end().await
}

/// What no browser can read shows at once, not as a page that never comes.
#[test]
fn every_script_of_the_page_can_be_read() {
    if !limosa_testkit::tool::have("the page's scripts", &["node"]) {
        return;
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src/dashboard/static");
    for dir in [home.clone(), home.join("pages")] {
        for entry in fs::read_dir(dir).expect("is there") {
            let path = entry.expect("is readable").path();
            if path.extension().is_some_and(|e| e == "js") {
                let script = fs::File::open(&path).expect("opens");
                let node = Command::new("node").args(["--check", "--input-type=module"]).stdin(script).output();
                let node = node.expect("runs");
                assert!(node.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&node.stderr));
            }
        }
    }
}

/// The command that the page shows is one that there is.
#[test]
fn the_command_that_the_page_names_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src/dashboard/static/pages/hosts.js");
    assert!(fs::read_to_string(page).expect("is there").contains("limosa agent --server"));
    let help = Command::new(env!("CARGO_BIN_EXE_limosa")).args(["agent", "--help"]).output().expect("runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(["--server", "--host-name", "--source"].iter().all(|flag| help.contains(flag)), "{help}");
}
