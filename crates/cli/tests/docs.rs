//! What the documentation says: every command in it is run as it stands there, in the order in which a reader would; the
//! reference is what the program says of itself.

use crate::support::{Process, body_of, finish, limosa, serves, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_reference_is_what_the_program_says_of_itself() {
    let (status, said, errors) = finish(limosa().arg("reference"));
    assert_eq!(status, 0, "{errors}");
    let known = fs::read_to_string(root().join("docs/reference.md")).expect("is there");
    let fix = "run: cargo run --quiet -- reference > docs/reference.md";
    assert!(said == known, "docs/reference.md is out of date; {fix}");
}

/// The commands in the blocks of all pages, in their order, and whether they were run.
struct Book(Vec<(String, String, bool)>);

impl Book {
    fn read() -> Self {
        let mut pages = vec![root().join("README.md")];
        let dirs = [root().join("docs"), root().join("docs/errors"), root().join("docs/adr")];
        for entry in dirs.iter().flat_map(|dir| fs::read_dir(dir).expect("is there")) {
            let page = entry.expect("is readable").path();
            // The reference is written by the program.
            if page.extension().is_some_and(|e| e == "md") && !page.ends_with("reference.md") {
                pages.push(page);
            }
        }
        let mut all = Vec::new();
        for page in pages {
            let text = fs::read_to_string(&page).expect("is text").replace("\\\n", " ");
            let name = page.file_name().expect("has one").to_string_lossy().into_owned();
            for line in text.split("```").skip(1).step_by(2).flat_map(str::lines).map(str::trim) {
                if line.starts_with("limosa ") || line.starts_with("curl ") {
                    all.push((name.clone(), line.to_owned(), false));
                }
            }
        }
        assert!(all.len() > 20, "only {} commands were found", all.len());
        Self(all)
    }

    /// The page's next command, which begins with `begin`.
    fn next(&mut self, page: &str, begin: &str) -> String {
        let next = self.0.iter_mut().find(|(of, _, done)| of == page && !done);
        let (_, line, done) = next.unwrap_or_else(|| panic!("{page} has no more commands; {begin:?} was expected"));
        assert!(line.starts_with(begin), "{page}: the next command is {line:?}, not {begin:?}");
        *done = true;
        line.clone()
    }

    fn not_run(&self) -> Vec<String> {
        self.0.iter().filter(|(.., done)| !done).map(|(page, line, _)| format!("{page}: {line}")).collect()
    }
}

/// Someone who follows the documentation, in a directory of their own; the system's paths are below it.
struct Reader {
    book: Book,
    home: tempfile::TempDir,
    /// Where the commands of a page are run.
    desk: PathBuf,
    environment: BTreeMap<&'static str, String>,
    /// What the pages call `http://127.0.0.1:8080`.
    url: String,
}

impl Reader {
    fn new(source: &ReplicaSet, destination: &ReplicaSet) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join("etc")).expect("makes it");
        for name in ["source", "source-uri"] {
            fs::write(home.path().join("etc").join(name), source.uri()).expect("writes");
        }
        let environment = BTreeMap::from([
            ("LIMOSA_SOURCE_URI", source.uri()),
            ("LIMOSA_DESTINATION_URI", destination.uri()),
            ("A", source.uri()),
            ("B", destination.uri()),
        ]);
        let desk = home.path().to_owned();
        Self { book: Book::read(), home, desk, environment, url: String::new() }
    }

    /// Another page, or another part of one: with what has been done so far out of sight.
    fn begins(&mut self, name: &str) {
        self.desk = self.home.path().join(name);
        fs::create_dir(&self.desk).expect("makes it");
    }

    fn server(&self) -> PathBuf {
        self.desk.join("server")
    }

    fn shell(&self, line: &str) -> Command {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_limosa"));
        let mut path = std::ffi::OsString::from(program.parent().expect("has one"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut line = line
            .replace("/var/lib/limosa", &self.server().display().to_string())
            .replace("/etc/limosa", &self.home.path().join("etc").display().to_string())
            .replace("http://127.0.0.1:8080", &self.url);
        if line.starts_with("limosa server ") {
            // The port that is the default may be somebody else's here.
            line.push_str(" --listen 127.0.0.1:0");
        }
        // The shell is replaced, so that what is ended is the program.
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("exec {line}")]).current_dir(&self.desk).stdin(Stdio::null());
        command.env_clear().env("PATH", path).env("HOME", &self.desk).envs(&self.environment);
        command
    }

    /// Runs the page's next command; what it says.
    fn runs(&mut self, page: &str, begin: &str) -> String {
        let line = self.book.next(page, begin);
        let (status, said, errors) = finish(&mut self.shell(&line));
        assert_eq!(status, 0, "{page}: {line}: {said} {errors}");
        said
    }

    /// Starts the page's next command, which continues.
    fn starts(&mut self, page: &str, begin: &str) -> Process {
        let line = self.book.next(page, begin);
        Process::start(&mut self.shell(&line))
    }

    /// Until the migration of the profile that a reader would use here has this fact.
    fn waits_for(&self, fact: &str, value: &str) {
        let profile = [self.server().join("profile.toml"), self.desk.join(".limosa/profile.toml")];
        let profile = || profile.iter().find(|file| file.is_file()).map(|file| file.display().to_string());
        wait_for(value, || {
            let (_, said, _) = finish(&mut self.shell(&format!("limosa migrations describe --profile {}", profile()?)));
            said.lines().any(|line| line.starts_with(fact) && line.ends_with(value)).then_some(())
        });
    }

    /// The server of this page is there: its address, and its keys in the environment.
    fn signs_in(&mut self) {
        let profile = self.server().join("profile.toml");
        wait_for("the server's profile", || profile.is_file().then_some(()));
        serves(&profile);
        let text = fs::read_to_string(&profile).expect("is there");
        let url = text.lines().find_map(|line| line.strip_prefix("url = \"")?.strip_suffix('"')).expect("has one");
        self.url = url.to_owned();
        let keys = fs::read(self.server().join("bootstrap.json")).expect("is there");
        let keys: Value = serde_json::from_slice(&keys).expect("JSON");
        for (name, key) in [
            ("PUBLIC_KEY", "publicKey"),
            ("PRIVATE_KEY", "privateKey"),
            ("GROUP_ID", "groupId"),
            ("ORG_ID", "orgId"),
            ("CLIENT_ID", "clientId"),
            ("CLIENT_SECRET", "clientSecret"),
        ] {
            self.environment.insert(name, keys[key].as_str().expect("is there").to_owned());
        }
    }

    fn takes_link_token(&mut self, said: &str) {
        let token = said.lines().last().expect("a token").trim().to_owned();
        self.environment.insert("TOKEN", token);
    }

    /// As the button **Start** of the page in the browser does it.
    fn creates_a_migration(&mut self) {
        let group = &self.environment["GROUP_ID"];
        let body = json!({
            "source": {"groupId": group, "clusterName": "old", "managedAuthentication": true, "ssl": false},
            "destination": {"groupId": group, "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
            "migrationHosts": ["mover1"], "dropDestinationData": false,
        });
        self.environment.insert("BODY", body.to_string());
        let line = "curl --silent --user \"$PUBLIC_KEY:$PRIVATE_KEY\" --digest --data \"$BODY\" \
             --header 'Accept: application/vnd.atlas.2025-03-12+json' --header 'Content-Type: application/json' \
             \"http://127.0.0.1:8080/api/atlas/v2/groups/$GROUP_ID/liveMigrations\"";
        let id = wait_for("the created migration", || {
            let (_, said, _) = finish(&mut self.shell(line));
            Some(serde_json::from_str::<Value>(&said).ok()?["_id"].as_str()?.to_owned())
        });
        self.environment.insert("MIGRATION_ID", id);
    }

    /// Runs a page's next call; the answer is JSON or text, and no error.
    fn calls(&mut self, page: &str) -> String {
        let line = self.book.next(page, "curl ").replacen("curl", "curl --silent --show-error --fail", 1);
        let (status, said, errors) = finish(&mut self.shell(&line));
        assert_eq!(status, 0, "{page}: {line}: {said} {errors}");
        said
    }
}

/// Takes every message, for as long as the test runs.
fn receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/limosa", listener.local_addr().expect("has one"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            body_of(&stream);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_command_works_as_it_stands() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let documents: Vec<Document> = (0..500).map(|n| doc! {"_id": n}).collect();
    from.database("app").collection("c").insert_many(documents).await.expect("inserts");
    let emptied = async || {
        for db in ["app", "__limosa"] {
            to.database(db).drop().await.expect("drops");
        }
    };
    let mut reader = Reader::new(&source, &destination);

    let page = "quick-start.md";
    reader.begins("quick-start");
    reader.runs(page, "limosa check");
    let _migrate = reader.starts(page, "limosa migrate");
    reader.waits_for("readyForCutover", "true");
    reader.runs(page, "limosa migrations cutover");
    compare(&from, &to, &["app"]).await.expect("equal");
    emptied().await;

    let page = "README.md";
    reader.begins("readme");
    reader.runs(page, "limosa check");
    let mut migrate = reader.starts(page, "limosa migrate");
    reader.waits_for("readyForCutover", "true");
    assert!(reader.runs(page, "limosa migrations rehearse").contains("would complete"));
    reader.runs(page, "limosa migrations cutover");
    wait_for("the migration's end", || migrate.has_ended().then_some(()));
    // The one who reads the report comes later.
    assert!(reader.runs(page, "limosa migrations report").contains("app.c"));
    reader.begins("readme-service");
    let _server = reader.starts(page, "limosa server");
    reader.signs_in();
    reader.runs(page, "limosa clusters add");
    let said = reader.runs(page, "limosa link create");
    reader.takes_link_token(&said);
    let _agent = reader.starts(page, "limosa agent");
    wait_for("the announced deployment", || {
        let line = "curl --silent --user \"$PUBLIC_KEY:$PRIVATE_KEY\" --digest \
             --header 'Accept: application/vnd.atlas.2025-03-12+json' \
             \"http://127.0.0.1:8080/api/atlas/v2/orgs/$ORG_ID/liveMigrations/availableProjects\"";
        finish(&mut reader.shell(line)).1.contains("\"old\"").then_some(())
    });
    emptied().await;

    let page = "throttling.md";
    reader.begins("throttling");
    let _bounded = reader.starts(page, "limosa migrate --load-level");
    reader.waits_for("readyForCutover", "true");
    reader.runs(page, "limosa migrations limit --load-level");
    reader.runs(page, "limosa migrations limit --max-source-read-mbps 0");
    drop(_bounded);
    emptied().await;

    let page = "first-migration.md";
    reader.begins("first-migration");
    let _server = Process::start(&mut reader.shell("limosa server --data-dir /var/lib/limosa"));
    reader.signs_in();
    reader.runs(page, "limosa clusters add");
    let said = reader.runs(page, "limosa link create");
    reader.takes_link_token(&said);
    let _agent = reader.starts(page, "limosa agent");
    reader.creates_a_migration();
    reader.waits_for("readyForCutover", "true");
    assert!(reader.calls("api.md").contains("\"readyForCutover\":true"));
    assert!(reader.calls("operating.md").contains("limosa_migration_lag_seconds"));
    assert!(reader.runs(page, "limosa migrations rehearse").contains("would complete"));
    reader.runs(page, "limosa migrations cutover");
    assert!(reader.runs(page, "limosa migrations report").contains("app.c"));
    compare(&from, &to, &["app"]).await.expect("equal");

    reader.begins("others");
    reader.runs("verification.md", "limosa verify");
    let report = fs::read(reader.desk.join("report.json")).expect("is written");
    assert_eq!(serde_json::from_slice::<Value>(&report).expect("JSON")["equal"], true);
    let settings = reader.home.path().join("etc/notify.toml");
    let secret = "at least sixteen characters";
    fs::write(&settings, format!("[[webhook]]\nurl = \"{}\"\nsecret = \"{secret}\"\n", receiver())).expect("writes");
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o600)).expect("sets");
    reader.runs("notifications.md", "limosa notify test");

    assert_eq!(reader.book.not_run(), Vec::<String>::new(), "commands that no part of this test runs");
}
