//! What is refused: each with its own code, one sentence, status 2, and nothing written anywhere.

use crate::support::{finish, limosa, migrate};
use bson::doc;
use limosa_testkit::{ReplicaSet, replica_set::ADMIN};

#[tokio::test(flavor = "multi_thread")]
async fn bad_ends_are_named_and_nothing_is_written() {
    let guarded = ReplicaSet::builder().auth(true).start().await.expect("starts");
    let free = ReplicaSet::start().await.expect("starts");
    let old = ReplicaSet::builder().version("4.4.2").start().await.expect("starts");
    let standalone = ReplicaSet::builder().standalone().start().await.expect("starts");
    let filled = ReplicaSet::start().await.expect("starts");
    filled.client().await.database("app").collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let wrong = guarded.uri_with(Some((ADMIN.0, "hunter2")));
    let nowhere = "mongodb://user:hunter2@127.0.0.1:1/?replicaSet=rs&serverSelectionTimeoutMS=500";
    let cases = [
        ("SOURCE_UNREACHABLE", nowhere.to_owned(), free.uri()),
        ("DESTINATION_UNREACHABLE", free.uri(), nowhere.to_owned()),
        ("SOURCE_AUTHENTICATION_FAILED", wrong.clone(), free.uri()),
        ("DESTINATION_AUTHENTICATION_FAILED", free.uri(), wrong),
        ("SOURCE_STANDALONE", standalone.uri(), free.uri()),
        ("DESTINATION_STANDALONE", free.uri(), standalone.uri()),
        ("SAME_CLUSTER", free.uri(), free.uri()),
        ("DESTINATION_NOT_EMPTY", free.uri(), filled.uri()),
        ("UNSUPPORTED_VERSION", free.uri(), old.uri()),
        ("MALFORMED_URI", "mongodb://user:hunter2@@".to_owned(), free.uri()),
        ("MALFORMED_URI", free.uri(), "postgres://user:hunter2@localhost/".to_owned()),
        ("INSUFFICIENT_PRIVILEGES", guarded.uri_with(None), free.uri()),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    for (code, source, destination) in cases {
        let state = dir.path().join("state");
        let (status, said, errors) = finish(&mut migrate(&source, &destination, &state));
        assert_eq!(status, 2, "{code}: {said} {errors}");
        let event: serde_json::Value = serde_json::from_str(said.lines().next().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{code}: {e}: {said} {errors}"));
        assert_eq!((event["event"].as_str(), event["code"].as_str()), (Some("failed"), Some(code)), "{event}");
        assert!(event["message"].as_str().is_some_and(|m| !m.is_empty()), "{event}");
        assert!(errors.contains(code), "{errors}");
        assert!(!said.contains("hunter2") && !errors.contains("hunter2"), "{said} {errors}");
        assert!(!state.exists(), "{code} left {}", state.display());
    }
    let names = free.client().await.list_database_names().await.expect("lists");
    assert_eq!(names, ["admin", "config", "local"]);
    let names = filled.client().await.list_database_names().await.expect("lists");
    assert_eq!(names, ["admin", "app", "config", "local"]);
}

#[test]
fn wrong_usage_is_told_apart_and_teaches() {
    let ends = ["--source", "mongodb://a", "--destination", "mongodb://b"];
    let cases: [(&[&str], &str); 8] = [
        (&["server", "--data-dir", "/nowhere/limosa", "--listen", "0.0.0.0:0"], "--plain-http"),
        (&["migrate", "--sorce", "x"], "--source"),
        (&["migrate"], "--source"),
        (&["migrate", "--source", "mongodb://a", "--destination", "mongodb://b", "--include-ns", "app"], "db"),
        (&["migrate", "--source", "mongodb://a", "--destination", "mongodb://b", "--cutover-window", "5d"], "120h"),
        (&["migrate", ends[0], ends[1], ends[2], ends[3], "--listen", "0.0.0.0:0"], "limosa server"),
        (&["migrations", "list", "--profile", "/nowhere/profile.toml"], "limosa migrate"),
        (
            &["agent", "--server", "http://127.0.0.1:1", "--link-token", "x", "--host-name", "h", "--source", "y"],
            "NAME=URI",
        ),
    ];
    for (arguments, hint) in cases {
        let (status, said, errors) = finish(limosa().args(arguments));
        assert_eq!((status, said.as_str()), (2, ""), "{arguments:?}: {errors}");
        assert!(errors.contains(hint), "{arguments:?}: {errors}");
    }
    // Status 1 would mean that they are different.
    let (status, said, errors) = finish(limosa().env("TMPDIR", "/nowhere/limosa").arg("verify").args(ends));
    assert_eq!((status, said.as_str()), (2, ""), "{errors}");
    assert!(errors.contains("set TMPDIR"), "{errors}");
    let (status, said, _) = finish(limosa().arg("--help"));
    assert_eq!(status, 0);
    for word in ["migrate", "migrations", "server", "agent", "clusters", "link", "Examples"] {
        assert!(said.contains(word), "{said}");
    }
}
