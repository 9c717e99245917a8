//! What a data directory holds from one start to the next.

use crate::support::TestServer;
use std::fs;

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
    let delete = |dir: &std::path::Path| fs::remove_file(dir.join("bootstrap.json")).expect("is there");
    let server = server.restarted(delete).await;
    assert_eq!(server.get_signed(&path).await.status, 200);
    assert_eq!(server.count("SELECT count(*) FROM orgs"), 1);
}
