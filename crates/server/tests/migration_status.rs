//! One migration job as clients read it, at every status.

use crate::support::{Answer, TestServer};
use limosa_model::{
    PhaseKind,
    protocol::Directive,
    report::{NamespaceReport, Record},
    verification::NamespaceVerification,
};
use reqwest::Method;
use std::time::Duration;

/// The answer with what differs from run to run replaced, and a line that says where it was taken.
fn shown(title: &str, server: &TestServer, answer: &Answer) -> String {
    let id = answer.json()["_id"].as_str().map(str::to_owned).unwrap_or_default();
    let left = answer.header("ratelimit-remaining").to_owned();
    let raw = answer.raw().replace(&format!("ratelimit-remaining: {left}"), "ratelimit-remaining: [left]");
    let raw = if id.is_empty() { raw } else { raw.replace(&id, "[migration id]") };
    format!("## {title}\n{}\n", raw.replace(&server.keys.group_id.to_string(), "[group id]"))
}

#[tokio::test]
async fn every_status_is_answered_as_atlas_does() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    let mut all = String::new();
    let mut look = async |title: &str| {
        let answer = server.get(&migration).await;
        all.push_str(&shown(title, &server, &answer));
    };
    look("NEW: scheduled").await;
    agent.claim().await;
    for (title, phase, lag) in [
        ("WORKING: preparing", PhaseKind::Preparing, None),
        ("WORKING: copying", PhaseKind::Copying, None),
        ("WORKING: building indexes", PhaseKind::BuildingIndexes, None),
        ("WORKING: catching up", PhaseKind::CatchingUp, Some(120)),
        ("WORKING: synced", PhaseKind::Synced, Some(1)),
    ] {
        assert_eq!(agent.report(&migration, phase, lag).await, Directive::Run);
        look(title).await;
    }
    let accepted = server.call(Method::PUT, &format!("{migration}/cutover"), None).await;
    look("WORKING: cutting over").await;
    assert_eq!(agent.report(&migration, PhaseKind::CuttingOver, Some(0)).await, Directive::CutOver);
    agent.report(&migration, PhaseKind::Finalizing, Some(0)).await;
    look("WORKING: finalizing").await;
    assert_eq!(agent.report(&migration, PhaseKind::Complete, Some(0)).await, Directive::Stop);
    look("COMPLETE").await;
    all.push_str(&shown("the cutover's answer", &server, &empty_as_json(accepted)));

    let failed = server.migration().await;
    agent.claim().await;
    agent.report(&failed, PhaseKind::Failed, None).await;
    all.push_str(&shown("FAILED", &server, &server.get(&failed).await));

    let cancelled = server.migration().await;
    let cancel = cancelled.replace("/api/atlas/v2", "/api/limosa/v1") + "/cancel";
    assert_eq!(server.call(Method::POST, &cancel, None).await.status, 200);
    all.push_str(&shown("FAILED: cancelled", &server, &server.get(&cancelled).await));
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_migration_of_tens_of_thousands_of_collections_ends_with_a_report_of_each() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Synced, Some(0)).await;
    server.call(Method::PUT, &format!("{migration}/cutover"), None).await;
    agent.report(&migration, PhaseKind::Finalizing, Some(0)).await;
    let of = |n: u32| NamespaceReport {
        verification: NamespaceVerification {
            namespace: format!("a_database.a_collection_{n}"),
            digest: Some("0".repeat(32)),
            ..NamespaceVerification::default()
        },
        ..NamespaceReport::default()
    };
    let record = Record { namespaces: (0..40_000).map(of).collect(), ..Record::default() };
    let answer = agent.completes(&migration, record).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.get(&migration).await.json()["status"], "COMPLETE");
    let kept = server.get(&(migration.replace("/api/atlas/v2", "/api/limosa/v1") + "/report")).await;
    assert_eq!(kept.json()["namespaces"].as_array().map(Vec::len), Some(40_000));
}

/// An answer without a body, as a snapshot can take it.
fn empty_as_json(mut answer: Answer) -> Answer {
    assert_eq!(answer.text, "");
    answer.text = "{}".to_owned();
    answer
}

#[tokio::test]
async fn a_migration_that_nobody_cuts_over_expires() {
    let server = TestServer::with_window(1).await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Synced, Some(0)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.get(&migration).await.json()["status"] != "EXPIRED" {
        assert!(tokio::time::Instant::now() < deadline, "it never expired");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    insta::assert_snapshot!(shown("EXPIRED", &server, &server.get(&migration).await));
    let told = agent.report(&migration, PhaseKind::Synced, Some(0)).await;
    assert_eq!(told, Directive::Cancel { drop_copied: false });
    let late = server.call(Method::PUT, &format!("{migration}/cutover"), None).await;
    assert_eq!(late.error(), (409, "LIVE_MIGRATION_NOT_READY".to_owned()));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told() {
    let server = TestServer::start().await;
    let mut all = String::new();
    let unknown = server.group("liveMigrations/0123456789abcdef01234567");
    let cases = [
        ("an unknown migration", unknown.clone()),
        ("no id", server.group("liveMigrations/x")),
        (
            "an unknown group",
            "/api/atlas/v2/groups/0123456789abcdef01234567/liveMigrations/0123456789abcdef01234567".to_owned(),
        ),
        ("no group id", "/api/atlas/v2/groups/x/liveMigrations/0123456789abcdef01234567".to_owned()),
        ("pretty", format!("{unknown}?pretty=true")),
        ("in an envelope", format!("{unknown}?envelope=true")),
    ];
    for (title, path) in cases {
        all.push_str(&shown(title, &server, &server.get(&path).await));
    }
    for accept in ["*/*", "application/json", "application/vnd.atlas.2022-12-31+json"] {
        let token = server.new_token().await;
        let request = server.http.get(format!("{}{unknown}", server.url)).header("accept", accept).bearer_auth(token);
        all.push_str(&shown(&format!("Accept: {accept}"), &server, &Answer::of(request).await));
    }
    insta::assert_snapshot!(all);
}
