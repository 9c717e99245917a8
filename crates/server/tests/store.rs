//! What a data directory holds from one start to the next.

use crate::support::{Answer, TestServer};
use limosa_model::{PhaseKind, cutover::CutoverTime, report::Record};
use reqwest::Method;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

#[tokio::test]
async fn after_a_rotation_of_the_key_everyone_gets_in_as_before() {
    let server = TestServer::start().await;
    let path = server.own("clusters");
    let server = server.restarted(|dir| assert_eq!(limosa_server::rotate_key(dir).expect("rotates"), 1)).await;
    assert_eq!((server.get(&path).await.status, server.get_signed(&path).await.status), (200, 200));
}

#[tokio::test]
async fn whoever_deletes_the_first_owners_file_keeps_the_organization() {
    let server = TestServer::start().await;
    let path = server.own("clusters");
    let delete = |dir: &Path| fs::remove_file(dir.join("bootstrap.json")).expect("is there");
    let server = server.restarted(delete).await;
    assert_eq!(server.get_signed(&path).await.status, 200);
    assert_eq!(server.count("SELECT count(*) FROM orgs"), 1);
}

/// Credentials that migrations have.
const KEPT: &str = "SELECT count(credentials) FROM migrations";

#[tokio::test]
async fn a_sources_password_goes_once_nothing_makes_the_migration_go_on() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let own = |migration: &str| migration.replace("/api/atlas/v2", "/api/limosa/v1");
    let act = async |migration: &str, verb: &str, body: Value| {
        let answer = server.call(Method::POST, &format!("{}/{verb}", own(migration)), Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let migration = server.migration_of(server.request_with_password()).await;
    assert!(agent.claim().await.source.credentials.is_some());
    agent.report(&migration, PhaseKind::Failed, None).await;
    act(&migration, "resume", json!({})).await;
    assert!(agent.claim().await.source.credentials.is_some(), "a failed one can't continue");

    // The way back has them from the one that it belongs to.
    agent.report(&migration, PhaseKind::Synced, Some(0)).await;
    server.call(Method::PUT, &format!("{migration}/cutover"), None).await;
    let record = Record { turning_point: Some(CutoverTime { time: 1, increment: 1 }), ..Record::default() };
    assert_eq!(agent.completes(&migration, record).await.status, 200);
    assert_eq!(server.count(KEPT), 1, "the way back's only");
    assert_eq!(server.get(&format!("{}/report", own(&migration))).await.status, 200);
    let back = agent.claim().await;
    assert!(back.reversal_from.is_some() && back.source.credentials.is_some());
    act(&server.group(&format!("liveMigrations/{}", back.migration_id)), "cancel", json!({})).await;
    assert_eq!(server.count(KEPT), 0);

    // What was copied is still to be removed.
    let migration = server.migration_of(server.request_with_password()).await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Copying, None).await;
    act(&migration, "cancel", json!({"dropCopied": true})).await;
    assert_eq!(server.count(KEPT), 1);
    agent.report(&migration, PhaseKind::Cancelled, None).await;
    assert_eq!(server.count(KEPT), 0);
}

#[tokio::test]
async fn a_sources_password_goes_when_nobody_cuts_over_in_time() {
    let server = TestServer::with_window(1).await;
    let mut agent = server.agent().await;
    let migration = server.migration_of(server.request_with_password()).await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Synced, Some(0)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.count(KEPT) == 1 {
        assert!(tokio::time::Instant::now() < deadline, "it is kept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.get(&migration).await.json()["status"], "EXPIRED");
}

/// The server, its clients and this test have one thread: who waited for the disk there would stop everyone.
#[tokio::test]
async fn a_write_that_waits_for_the_disk_holds_up_nobody_else() {
    let server = TestServer::start().await;
    let held = server.hold_store();
    let others = async {
        for _ in 0..20 {
            assert_eq!(Answer::of(server.request(Method::GET, "/api/openapi.json")).await.status, 200);
            assert_eq!(server.get("/api/atlas/v2/orgs").await.status, 200);
            assert_eq!(server.get("/metrics").await.status, 200);
        }
    };
    let group = json!({"name": "another", "orgId": server.keys.org_id});
    let creating = server.call(Method::POST, "/api/atlas/v2/groups", Some(group));
    let writes = async { tokio::join!(server.new_token(), creating) };
    tokio::pin!(writes);
    tokio::select! {
        biased;
        _ = &mut writes => panic!("they did not wait"),
        () = others => drop(held),
    }
    let (token, created) = writes.await;
    assert!(!token.is_empty() && created.status == 201, "{created:?}");
}
