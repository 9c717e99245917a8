//! The same command once more when its migration is complete: it says so and does nothing; anything else is refused.

use crate::support::{finish, migrate};
use bson::{Document, doc};
use limosa_testkit::ReplicaSet;
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Replaces a directory by a copy of another.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").args(["--archive", "--sparse=always"]).arg(from).arg(to).status().expect("runs");
    assert!(copied.success());
}

/// Whatever the directory that it was told to use lets others do.
fn is_private(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("is listed").map(|entry| entry.expect("is one")) {
        let kind = entry.metadata().expect("is there");
        assert_eq!(kind.permissions().mode() & 0o077, 0, "{:?}", entry.path());
        if kind.is_dir() {
            is_private(&entry.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_migrations_command_does_nothing_and_another_one_is_refused() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    from.database("app").collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    std::fs::create_dir(&state).expect("is made");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).expect("is opened to others");
    let command = |more: &[&str]| {
        let mut command = migrate(&source.uri(), &destination.uri(), &state);
        command.args(["--cutover", "when-ready"]).args(more);
        finish(&mut command)
    };
    let (status, said, errors) = command(&[]);
    assert_eq!(status, 0, "{said} {errors}");
    is_private(&state);
    to.database("app").collection("c").insert_one(doc! {"_id": "the application's"}).await.expect("inserts");
    let (status, said, errors) = command(&[]);
    assert_eq!(status, 0, "{said} {errors}");
    assert!(errors.contains("completed on 20") && errors.contains("nothing was done"), "{errors}");
    for more in [&["--exclude-ns", "app.x"][..], &["--include-ns", "app.*"], &["--drop-destination-data"]] {
        let (status, said, errors) = command(more);
        assert_eq!(status, 2, "{more:?}: {said} {errors}");
        assert!(said.contains("\"CONFIGURATION_CHANGED\""), "{more:?}: {said}");
    }
    let count = to.database("app").collection::<Document>("c").count_documents(doc! {}).await;
    assert_eq!(count.expect("counts"), 2);
    let other = ReplicaSet::start().await.expect("starts");
    for (source, destination) in [(other.uri(), destination.uri()), (source.uri(), other.uri())] {
        let (status, said, errors) = finish(&mut migrate(&source, &destination, &state));
        assert_eq!(status, 2, "{said} {errors}");
        assert!(said.contains("\"CONFIGURATION_CHANGED\""), "{said}");
    }
    to.database("app").drop().await.expect("drops");
    let (status, said, _) = command(&[]);
    assert!(status == 2 && said.contains("\"CHECKPOINT_LOST\""), "{status}: {said}");
    to.database("__limosa").drop().await.expect("drops");
    let (status, said, _) = command(&[]);
    assert!(status == 2 && said.contains("\"CHECKPOINT_LOST\""), "{status}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_put_back_is_not_taken_for_the_one_that_was_migrated() {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (mut source, destination) = (source.expect("starts"), destination.expect("starts"));
    let from = source.client().await;
    from.database("app").collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let before = dir.path().join("before");
    source.kill(0);
    copy(&source.files(0), &before);
    source.restart(0).await.expect("restarts");
    from.database("app").collection("c").insert_one(doc! {"_id": 2}).await.expect("inserts");
    let command = |source: &ReplicaSet| {
        let mut command = migrate(&source.uri(), &destination.uri(), &dir.path().join("state"));
        finish(command.args(["--cutover", "when-ready"]))
    };
    let (status, said, errors) = command(&source);
    assert_eq!(status, 0, "{said} {errors}");
    source.kill(0);
    copy(&before, &source.files(0));
    source.restart(0).await.expect("restarts");
    let (status, said, errors) = command(&source);
    assert_eq!(status, 2, "{said} {errors}");
    assert!(said.contains("\"SOURCE_REWOUND\""), "{said}");
}
