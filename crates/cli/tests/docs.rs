//! What the documentation says: the quick start as it stands there, the API guide's calls, the reference.

use crate::support::{Process, finish, limosa, wait_for};
use bson::{Document, doc};
use limosa_testkit::{ReplicaSet, compare};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn docs(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The commands in a page's blocks that begin with `program`, one each.
fn commands(page: &str, program: &str) -> Vec<String> {
    let page = page.replace("\\\n", " ");
    let lines = page.split("```").skip(1).step_by(2).flat_map(str::lines);
    lines.map(str::trim).filter(|line| line.starts_with(&format!("{program} "))).map(ToOwned::to_owned).collect()
}

/// A shell in `home` in which `limosa` is this program.
fn shell(home: &Path, line: &str) -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_limosa"));
    let path =
        format!("{}:{}", program.parent().expect("has one").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euc", line]).current_dir(home).env("PATH", path).stdin(std::process::Stdio::null());
    command
}

#[test]
fn the_reference_is_what_the_program_says_of_itself() {
    let (status, said, errors) = finish(limosa().arg("reference"));
    assert_eq!(status, 0, "{errors}");
    let fix = "run: cargo run --quiet -- reference > docs/reference.md";
    assert!(said == docs("reference.md"), "docs/reference.md is out of date; {fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_works_as_it_stands() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let documents: Vec<Document> = (0..500).map(|n| doc! {"_id": n}).collect();
    from.database("app").collection("c").insert_many(documents).await.expect("inserts");
    let home = tempfile::tempdir().expect("a directory");
    let run = |line: &str| {
        let mut command = shell(home.path(), line);
        command.env("LIMOSA_SOURCE_URI", source.uri()).env("LIMOSA_DESTINATION_URI", destination.uri());
        command
    };
    let page = docs("quick-start.md");
    let commands = commands(&page, "limosa");
    assert_eq!(commands, ["limosa check", "limosa migrate", "limosa migrations cutover --wait"]);
    let (status, _, errors) = finish(&mut run(&commands[0]));
    assert_eq!(status, 0, "{errors}");
    // The shell is replaced, so that what is killed at the end is the program.
    let _migrate = Process::start(&mut run(&format!("exec {}", commands[1])));
    wait_for("readyForCutover", || {
        let (_, said, _) = finish(&mut run("limosa migrations describe"));
        said.lines().any(|line| line.starts_with("readyForCutover") && line.ends_with("true")).then_some(())
    });
    let (status, _, errors) = finish(&mut run(&commands[2]));
    assert_eq!(status, 0, "{errors}");
    compare(&from, &to, &["app"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_calls_are_answered() {
    let server = crate::page::Served::start(&[]);
    let home = tempfile::tempdir().expect("a directory");
    let mut seen = 0;
    for page in ["api.md", "operating.md"] {
        for line in commands(&docs(page), "curl") {
            let line = line.replace("http://127.0.0.1:8080", &server.url).replacen(
                "curl",
                "curl --silent --show-error --write-out '%{http_code}'",
                1,
            );
            let mut command = shell(home.path(), &line);
            for (name, value) in [
                ("PUBLIC_KEY", "publicKey"),
                ("PRIVATE_KEY", "privateKey"),
                ("GROUP_ID", "groupId"),
                ("ORG_ID", "orgId"),
                ("CLIENT_ID", "clientId"),
                ("CLIENT_SECRET", "clientSecret"),
            ] {
                command.env(name, server.key(value));
            }
            let (status, said, errors) = finish(command.env("MIGRATION_ID", "0123456789abcdef01234567"));
            // There is no such migration: that is what the server says, and not that the call is wrong.
            let answered = said.ends_with("200") || said.ends_with("404") && said.contains("RESOURCE_NOT_FOUND");
            assert!(status == 0 && answered, "{line}: {said} {errors}");
            seen += 1;
        }
    }
    assert!(seen >= 2, "only {seen} calls were found");
}
