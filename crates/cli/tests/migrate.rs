//! `limosa migrate`, to its end and back from an interruption.

use crate::support::{Running, body_of, finish, limosa, migrate, verb, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare, replica_set::ADMIN, workload::Workload};
use std::{
    fs,
    io::{ErrorKind, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

async fn load(client: &mongodb::Client, db: &str, documents: i32) {
    let payload = "p".repeat(300);
    for first in (0..documents).step_by(10_000) {
        let chunk: Vec<Document> =
            (first..documents.min(first + 10_000)).map(|n| doc! {"_id": n, "payload": &payload}).collect();
        client.database(db).collection("seed").insert_many(chunk).await.expect("inserts");
    }
}

/// All files below `dir` whose bytes contain `text`.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("is a directory") {
        let path = entry.expect("is readable").path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).expect("is readable").windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// What a migration host keeps on its disk of its migrations.
fn kept(state: &Path) -> Vec<String> {
    let of = |kind: &str| fs::read_dir(state.join("agent").join(kind)).into_iter().flatten();
    let all = of("spool").chain(of("verify"));
    all.map(|entry| entry.expect("is readable").path().display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_cluster_is_moved_and_no_secret_is_seen() {
    let source = ReplicaSet::builder().auth(true).tls(true).start().await.expect("starts");
    let destination = ReplicaSet::builder().auth(true).members(2).start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    load(&from, "app", 20_000).await;
    let writers = Workload::start(&from, "app", 5, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let mut run = Running::start(&mut migrate(&source.uri(), &destination.uri(), &state));
    let started = run.until_event("started");
    assert!(started["url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{started}");
    let profile = started["profile"].as_str().expect("a path").to_owned();
    assert_eq!(fs::metadata(&profile).expect("is there").permissions().mode() & 0o777, 0o600);
    let ready = run.until_event("readyForCutover");
    assert_eq!(ready["migrationId"], started["migrationId"]);
    let acknowledged = writers.stop("app").await.expect("writes");
    let listed = finish(limosa().args(["migrations", "list", "--output", "json", "--profile", &profile]));
    let listed: serde_json::Value = serde_json::from_str(&listed.1).expect("JSON");
    assert_eq!(listed["results"][0]["readyForCutover"], true);
    let (status, _, errors) = finish(limosa().args(["migrations", "cutover", "--wait", "--profile", &profile]));
    assert_eq!(status, 0, "{errors}");
    let complete = run.until_event("complete");
    assert!(complete["documentsCopied"].as_u64().is_some_and(|n| n >= 20_000), "{complete}");
    let (status, said, errors) = run.end();
    assert!(status.success(), "{errors}");
    let progress = said.lines().filter(|l| l.contains("\"event\":\"progress\"")).count();
    assert!(progress > 0, "{said}");
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["app"]).await.expect("equal");
    // As it is, and as it stands in the URI.
    for secret in [ADMIN.1, "secret%3A%2F%401"] {
        assert!(source.uri().contains(secret) || secret == ADMIN.1);
        for text in [&said, &errors, &listed.to_string()] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(holding(&state, secret), Vec::<String>::new());
    }
    // Once more: it is over, and says so.
    let (status, said, errors) = finish(&mut migrate(&source.uri(), &destination.uri(), &state));
    assert_eq!(status, 0, "{errors}");
    assert!(said.contains("\"event\":\"complete\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_or_killed_migration_goes_on() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    load(&from, "app", 60_000).await;
    let writers = Workload::start(&from, "app", 6, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let command = || migrate(&source.uri(), &destination.uri(), &state);

    let mut run = Running::start(&mut command());
    let first = run.until(|event| event["phase"] == "copying");
    let (status, _, errors) = finish(&mut command());
    assert_eq!(status, 2, "a second one on the same directory: {errors}");
    assert!(errors.contains("in use"), "{errors}");
    run.signal("INT");
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(130), "{errors}");
    assert!(errors.contains("run the same command again"), "{errors}");

    // Neither end may be another cluster now.
    let (status, said, _) = finish(&mut migrate(&destination.uri(), &source.uri(), &state));
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("CONFIGURATION_CHANGED"), "{said}");

    let mut run = Running::start(&mut command());
    assert_eq!(run.until_event("started")["migrationId"], first["migrationId"]);
    run.until(|event| event["phase"] == "catchingUp" || event["phase"] == "synced");
    run.kill();

    let mut run = Running::start(command().args(["--cutover", "manual"]));
    run.until_event("readyForCutover");
    let acknowledged = writers.stop("app").await.expect("writes");
    run.kill();
    let (status, said, errors) = finish(command().args(["--cutover", "when-ready"]));
    assert_eq!(status, 0, "{said} {errors}");
    acknowledged.check(&to).await.expect("acknowledged writes are there");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_nobody_cuts_over_ends_with_3() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    load(&source.client().await, "app", 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let mut command = migrate(&source.uri(), &destination.uri(), &state);
    let (status, said, errors) = finish(command.args(["--cutover-window", "1s"]));
    assert_eq!(status, 3, "{said} {errors}");
    assert!(said.contains("\"EXPIRED\""), "{said}");
    assert_eq!(kept(&state), Vec::<String>::new());
    compare(&source.client().await, &destination.client().await, &["app"]).await.expect("nothing was deleted");
}

/// A receiver that takes its time; the messages of those who waited for its answer.
fn slow_receiver() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/hook", listener.local_addr().expect("has one"));
    let (taken, messages) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let body = body_of(&stream);
            thread::sleep(Duration::from_secs(3));
            stream.set_nonblocking(true).expect("sets");
            let waits = stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            if waits {
                let _ = taken.send(body);
            }
        }
    });
    (url, messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_wanted_is_told_to_all_before_the_program_ends() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    load(&source.client().await, "app", 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (url, messages) = slow_receiver();
    let notify = dir.path().join("notify.toml");
    let text = format!("on = [\"expired\"]\n[[webhook]]\nurl = \"{url}\"\nsecret = \"of sixteen letters\"\n");
    fs::write(&notify, text).expect("writes");
    fs::set_permissions(&notify, fs::Permissions::from_mode(0o600)).expect("sets");
    let mut command = migrate(&source.uri(), &destination.uri(), &dir.path().join("state"));
    let mut run = Running::start(command.args(["--cutover-window", "5s", "--notify"]).arg(&notify));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    run.until_event("readyForCutover");
    let watching = Running::start(limosa().args(["migrations", "watch", "--output", "json", "--profile", &profile]));
    let (status, said, errors) = run.end();
    assert_eq!(status.code(), Some(3), "{said} {errors}");
    let (status, said, errors) = watching.end();
    assert_eq!(status.code(), Some(3), "who watches: {said} {errors}");
    let message = messages.recv_timeout(Duration::from_secs(5)).expect("was waited for");
    assert!(message.contains("\"event\":\"expired\""), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_chosen_namespaces_go_and_existing_data_is_dropped_when_asked() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    for db in ["app", "logs"] {
        load(&from, db, 100).await;
        from.database(db).collection("extra").insert_one(doc! {"_id": 1}).await.expect("inserts");
    }
    to.database("app").collection("seed").insert_one(doc! {"_id": "old"}).await.expect("inserts");
    to.database("kept").collection("seed").insert_one(doc! {"_id": "old"}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let mut command = migrate(&source.uri(), &destination.uri(), &state);
    command.args(["--include-ns", "app.*", "--exclude-ns", "app.extra", "--cutover", "when-ready"]);
    let (status, said, _) = finish(&mut command);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("DESTINATION_NOT_EMPTY"), "{said}");
    let (status, said, errors) = finish(command.arg("--drop-destination-data"));
    assert_eq!(status, 0, "{said} {errors}");
    let count = async |db: &str, coll: &str| {
        to.database(db).collection::<Document>(coll).count_documents(doc! {}).await.expect("counts")
    };
    assert_eq!((count("app", "seed").await, count("app", "extra").await), (100, 0));
    assert_eq!((count("logs", "seed").await, count("kept", "seed").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_host_that_cannot_begin_ends_the_command_and_says_why() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("creates");
    fs::write(state.join("agent"), "in the way").expect("writes");
    let (status, said, errors) = finish(&mut migrate(&source.uri(), &destination.uri(), &state));
    assert_eq!((status, said.as_str()), (1, ""), "{errors}");
    assert!(errors.contains(&state.join("agent").display().to_string()), "{errors}");
    // With what was in the way gone, the same command continues.
    fs::remove_file(state.join("agent")).expect("removes");
    let mut run = Running::start(&mut migrate(&source.uri(), &destination.uri(), &state));
    run.until_event("readyForCutover");
    run.signal("INT");
    assert_eq!(run.end().0.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_migration_ends_when_what_it_copied_is_gone() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    load(&from, "app", 1_000).await;
    let dir = tempfile::tempdir().expect("a directory");
    let left = async || to.database("app").list_collection_names().await.expect("lists");

    let state = dir.path().join("state");
    let mut run = Running::start(&mut migrate(&source.uri(), &destination.uri(), &state));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    run.until_event("readyForCutover");
    for holding in ["agent", "agent/spool", "agent/verify"] {
        let mode = fs::metadata(state.join(holding)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{holding}");
    }
    assert_eq!(kept(&state).len(), 2);
    verb(Path::new(&profile), &["migrations", "cancel", "--drop-copied"]);
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("what was copied is gone"), "{errors}");
    assert_eq!((left().await, kept(&state)), (Vec::<String>::new(), Vec::new()));

    // Killed while something keeps it from removing anything, it continues with that.
    let state = dir.path().join("other");
    let command = || migrate(&source.uri(), &destination.uri(), &state);
    let mut run = Running::start(&mut command());
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    run.until_event("readyForCutover");
    let refuse_drops = async |mode: &str| {
        let data = doc! {"failCommands": ["drop"], "errorCode": 8000};
        let command = doc! {"configureFailPoint": "failCommand", "mode": mode, "data": data};
        to.database("admin").run_command(command).await.expect("the server has this failpoint");
    };
    refuse_drops("alwaysOn").await;
    verb(Path::new(&profile), &["migrations", "cancel", "--drop-copied"]);
    wait_for("what keeps it", || {
        let now = verb(Path::new(&profile), &["migrations", "describe"]);
        assert_eq!((&now["phase"], &now["removalPending"]), (&"cancelled".into(), &true.into()), "{now}");
        now["progress"]["waiting"]["code"].is_string().then_some(())
    });
    run.kill();
    refuse_drops("off").await;
    assert_eq!(left().await, ["seed"]);
    let (status, _, errors) = finish(&mut command());
    assert_eq!(status, 1, "{errors}");
    assert!(errors.contains("what was copied is gone"), "{errors}");
    assert_eq!((left().await, kept(&state)), (Vec::<String>::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_repeated_command_hold_as_far_as_they_can_and_the_rest_is_told() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    load(&source.client().await, "app", 10).await;
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let command = || migrate(&source.uri(), &destination.uri(), &state);
    let mut run = Running::start(command().args(["--block-source-writes", "--reversible"]));
    run.until_event("readyForCutover");
    run.kill();

    let mut run = Running::start(command().args(["--reversible=false", "--recopy", "--drop-destination-data"]));
    run.until_event("readyForCutover");
    run.signal("INT");
    let (_, _, errors) = run.end();
    for told in ["--recopy is not heard", "--drop-destination-data is not heard"] {
        assert!(errors.contains(told), "{errors}");
    }

    // What isn't said stays as it was said before.
    let mut run = Running::start(&mut command());
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    // What is stored is what was before; the agent begins again.
    run.until(|event| event["phase"] == "catchingUp");
    run.until_event("readyForCutover");
    verb(Path::new(&profile), &["migrations", "cutover", "--reversible", "--wait"]);
    let id = run.until_event("complete")["migrationId"].as_str().expect("an id").to_owned();
    let report = verb(Path::new(&profile), &["migrations", "report", &id]);
    let options = serde_json::json!({"blockSourceWrites": true, "reversible": true});
    assert_eq!(report["cutoverOptions"], options, "{report}");
    run.until_event("started");
    run.kill();

    let mut run = Running::start(command().args(["--reversible=false"]));
    run.until_event("complete");
    run.signal("INT");
    let (_, _, errors) = run.end();
    assert!(errors.contains("come too late"), "{errors}");
}
