//! The full screen, in a real terminal: keys pressed, screens read.

use crate::support::{finish, limosa, migrate, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare, tool};
use std::{path::Path, process::Command};

/// A terminal of its own; ends when dropped.
struct Terminal {
    dir: tempfile::TempDir,
}

impl Terminal {
    fn start() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("socket")).args(["-f", "/dev/null"]).args(arguments);
        let done = command.output().expect("tmux runs");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// A window `name` in which `command` runs, and a shell's end mark after it.
    fn run(&self, name: &str, environment: &[(&str, &str)], command: &str) {
        let mut arguments = vec!["new-session", "-d", "-s", name, "-x", "130", "-y", "40"];
        let settings: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        settings.iter().for_each(|setting| arguments.extend(["-e", setting]));
        let line = format!("{command}; echo \"ended with $?\"; exec cat");
        arguments.push(&line);
        self.tmux(&arguments);
    }

    fn keys(&self, name: &str, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", name], keys].concat());
    }

    /// What the window shows, its colours too if asked.
    fn screen(&self, name: &str, coloured: bool) -> String {
        let how: &[&str] = if coloured { &["-e"] } else { &[] };
        self.tmux(&[&["capture-pane", "-p", "-S", "-200", "-t", name], how].concat())
    }

    fn until(&self, name: &str, wanted: &str) -> String {
        wait_for(wanted, || {
            let screen = self.screen(name, false);
            assert!(wanted.contains("ended") || !screen.contains("ended with"), "{wanted:?} never came: {screen}");
            screen.contains(wanted).then_some(screen)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Whether a colour is chosen anywhere: parameters 30 to 38 or 90 to 97 of a terminal's `m` sequence.
fn is_coloured(screen: &str) -> bool {
    let sequences = screen.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m').map(|(numbers, _)| numbers));
    let mut numbers = sequences.flat_map(|numbers| numbers.split(';')).filter_map(|number| number.parse::<u32>().ok());
    numbers.any(|number| (30..=38).contains(&number) || (90..=97).contains(&number))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_watched_paused_and_cut_over_on_the_screen() {
    if !tool::have("the full screen in tmux", &["tmux"]) {
        return;
    }
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let documents: Vec<Document> = (0..2_000).map(|n| doc! {"_id": n, "payload": "p".repeat(300)}).collect();
    from.database("app").collection("seed").insert_many(documents).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let terminal = Terminal::start();
    let program = env!("CARGO_BIN_EXE_limosa");
    let ends = [("LIMOSA_SOURCE_URI", source.uri()), ("LIMOSA_DESTINATION_URI", destination.uri())];
    let ends = ends.each_ref().map(|(name, uri)| (*name, uri.as_str()));

    // The migration's own screen; leaving it ends nothing.
    terminal.run("migrate", &ends, &format!("{program} migrate --state-dir {}", state.display()));
    let shown = terminal.until("migrate", "SYNCED");
    for fact in
        ["source → destination", "✓ copying", "changes applied", "time for the cutover", "app.seed", "c cut over"]
    {
        assert!(shown.contains(fact), "{fact} is not on {shown}");
    }
    assert!(is_coloured(&terminal.screen("migrate", true)), "there is no colour");
    terminal.keys("migrate", &["q"]);
    terminal.until("migrate", "ready for cutover");

    // Another one's, without colours: it pauses, resumes, cuts over.
    let profile = state.join("profile.toml");
    let watch = format!("{program} migrations watch --profile {}", profile.display());
    terminal.run("watch", &[("NO_COLOR", "1")], &watch);
    terminal.until("watch", "SYNCED");
    let coloured = terminal.screen("watch", true);
    assert!(!is_coloured(&coloured), "{coloured}");
    terminal.keys("watch", &["l"]);
    terminal.until("watch", "Now: load level 3");
    terminal.keys("watch", &["9"]);
    terminal.until("watch", "A load level is a number from 1 to 5.");
    terminal.keys("watch", &["l", "2"]);
    terminal.until("watch", "load level 2: done");
    terminal.keys("watch", &["l"]);
    terminal.until("watch", "Now: load level 2");
    terminal.keys("watch", &["Escape"]);
    terminal.keys("watch", &["p"]);
    terminal.until("watch", "Stop where it is");
    terminal.keys("watch", &["x", "p", "y"]);
    terminal.until("watch", "PAUSED");
    terminal.keys("watch", &["p", "y"]);
    terminal.until("watch", "resume: done");
    terminal.until("watch", "SYNCED");
    terminal.keys("watch", &["c"]);
    terminal.until("watch", "Then type the destination's name");
    terminal.keys("watch", &["-l", "elsewhere"]);
    terminal.keys("watch", &["Enter"]);
    let still = terminal.until("watch", "> elsewhere_");
    assert!(still.contains("SYNCED"), "{still}");
    terminal.keys("watch", &["Escape"]);
    wait_for("the question's end", || (!terminal.screen("watch", false).contains("elsewhere")).then_some(()));
    terminal.keys("watch", &["c"]);
    terminal.keys("watch", &["-l", "destination"]);
    terminal.keys("watch", &["Enter"]);
    let ended = terminal.until("watch", "ended with 0");
    assert!(ended.contains("complete: 2,000 documents"), "{ended}");
    terminal.until("migrate", "ended with 0");
    compare(&from, &to, &["app"]).await.expect("equal");
    quiet(&source, &destination, &state);
}

/// It is over by now; with `--quiet` it says just that, and that nothing was done.
fn quiet(source: &ReplicaSet, destination: &ReplicaSet, state: &Path) {
    let (status, _, errors) = finish(migrate(&source.uri(), &destination.uri(), state).arg("--quiet"));
    assert_eq!(status, 0, "{errors}");
    assert!(errors.starts_with("complete: ") && errors.trim_end().ends_with("; nothing was done"), "{errors}");
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

#[test]
fn every_verb_explains_itself() {
    let help = |words: &[&str]| {
        let (status, said, errors) = finish(limosa().args(words).arg("--help"));
        assert_eq!(status, 0, "{words:?}: {errors}");
        said
    };
    for verb in [
        "migrate",
        "check",
        "verify",
        "migrations",
        "server",
        "agent",
        "clusters",
        "link",
        "explain",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(help(&[verb]).contains("Example"), "limosa {verb} --help has no example");
    }
    let (status, said, _) = finish(limosa().args(["explain", "history_lost"]));
    assert!(status == 0 && said.starts_with("# HISTORY_LOST\n"), "{said}");
    let (status, _, errors) = finish(limosa().args(["explain", "NO_SUCH_CODE"]));
    assert!(status == 2 && errors.contains("limosa explain"), "{errors}");
    for shell in ["bash", "zsh", "fish"] {
        let (status, said, _) = finish(limosa().args(["completions", shell]));
        assert!(status == 0 && said.contains("limosa") && said.contains("cutover"), "{shell}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (status, ..) = finish(limosa().arg("man").arg(dir.path()));
    let page = std::fs::read_to_string(dir.path().join("limosa-migrate.1")).expect("is there");
    assert!(status == 0 && page.contains("state"), "{page}");
}

#[test]
fn a_support_bundle_holds_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().join("state");
    std::fs::create_dir(&home).expect("makes it");
    let secrets = ["hunter2-private", "hunter2-client", "hunter2-token", "hunter2%2Fpw"];
    let profile = "url = \"http://127.0.0.1:1\"\norg_id = \"o\"\ngroup_id = \"g\"\npublic_key = \"abcdefgh\"\nprivate_key = \"hunter2-private\"\n";
    std::fs::write(home.join("profile.toml"), profile).expect("writes");
    std::fs::write(
        home.join("bootstrap.json"),
        r#"{"privateKey": "hunter2-private", "clientSecret": "hunter2-client"}"#,
    )
    .expect("writes");
    std::fs::write(home.join("link-token"), "hunter2-token").expect("writes");
    std::fs::write(
        home.join("limosa.log"),
        format!("a line with {} and mongodb://u:hunter2@h/", secrets.join(" and ")),
    )
    .expect("writes");
    let file = dir.path().join("report.json");
    let mut command = limosa();
    command.args(["doctor", "--profile"]).arg(home.join("profile.toml")).arg("--file").arg(&file);
    let uri = "mongodb://user:hunter2%2Fpw@127.0.0.1:1/";
    let (status, said, errors) = finish(command.env("LIMOSA_SOURCE_URI", uri));
    assert_eq!(status, 0, "{errors}");
    let report = std::fs::read_to_string(file).expect("is there");
    for secret in ["hunter2"].iter().chain(&secrets) {
        assert!(!report.contains(secret) && !said.contains(secret) && !errors.contains(secret), "{secret}: {report}");
    }
    for fact in ["a line with ***", "\"version\"", "LIMOSA_SOURCE_URI", "mongodb://***@h/"] {
        assert!(report.contains(fact), "{fact}: {report}");
    }
}
