//! What an attacker tries at the edges of authentication, and what is answered.

use crate::support::{Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};

const SESSION: &str = "/api/limosa/v1/session";

async fn sign_in(server: &TestServer, name: &str, secret: &str) -> Answer {
    let request = server.request(Method::POST, SESSION).header("x-limosa-request", "1");
    Answer::of(request.json(&json!({"name": name, "secret": secret}))).await
}

/// A key made for the first group with `roles`: its halves and its id.
async fn group_key(server: &TestServer, roles: &[&str]) -> (String, String, String) {
    let made =
        server.call(Method::POST, &server.group("apiKeys"), Some(json!({"desc": "a", "roles": roles}))).await.json();
    let text = |name: &str| made[name].as_str().expect("is there").to_owned();
    (text("publicKey"), text("privateKey"), text("id"))
}

#[tokio::test]
async fn wrong_sign_ins_lock_nobody_out_who_has_the_right_secret() {
    let server = TestServer::start().await;
    let keys = &server.keys;
    // One attacker behind the same proxy tries the owner's name and many others.
    let mut waits = 0;
    for n in 0..120 {
        let name = if n % 2 == 0 { keys.public_key.clone() } else { format!("nobody{n}") };
        let answer = sign_in(&server, &name, "wrong").await;
        match answer.status {
            401 => {}
            429 => {
                waits += 1;
                assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|s| (1..=60).contains(&s)), "{answer:?}");
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(waits >= 40, "wrong sign-ins are tried without an end: {waits}");
    assert_eq!(sign_in(&server, &keys.public_key, keys.private_key.expose()).await.status, 200);
    assert_eq!(sign_in(&server, &keys.client_id, keys.client_secret.expose()).await.status, 200);
}

#[tokio::test]
async fn keys_and_accounts_are_listed_for_members_of_the_organization() {
    let server = TestServer::start().await;
    let (public, private, id) = group_key(&server, &["GROUP_OWNER"]).await;
    for path in [
        "apiKeys".to_owned(),
        format!("apiKeys/{id}"),
        format!("apiKeys/{id}/accessList"),
        "serviceAccounts".to_owned(),
        format!("serviceAccounts/{}", server.keys.client_id),
    ] {
        let answer = server.by(&public, &private, Method::GET, &server.org(&path), None).await;
        assert_eq!(answer.error(), (401, "USER_UNAUTHORIZED".to_owned()), "{path}");
    }
    assert_eq!(server.by(&public, &private, Method::GET, &server.group("apiKeys"), None).await.status, 200);
    let made = server
        .call(Method::POST, &server.org("apiKeys"), Some(json!({"desc": "a", "roles": ["ORG_MEMBER"]})))
        .await
        .json();
    let text = |name: &str| made[name].as_str().expect("is there").to_owned();
    let answer =
        server.by(&text("publicKey"), &text("privateKey"), Method::GET, &server.org("serviceAccounts"), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn answers_with_secrets_are_kept_by_no_cache() {
    let server = TestServer::start().await;
    let secret = json!({"name": "ci", "description": "x", "roles": ["ORG_MEMBER"], "secretExpiresAfterHours": 8});
    for (path, body) in [
        (server.org("apiKeys"), json!({"desc": "a", "roles": ["ORG_MEMBER"]})),
        (server.group("apiKeys"), json!({"desc": "a", "roles": ["GROUP_OWNER"]})),
        (server.org("serviceAccounts"), secret),
        (server.org("liveMigrations/linkTokens"), json!({})),
    ] {
        let answer = server.call(Method::POST, &path, Some(body)).await;
        assert_eq!((answer.status / 100, answer.header("cache-control")), (2, "no-store"), "{path}: {answer:?}");
    }
    let request = server.http.post(format!("{}/api/oauth/token", server.url));
    let request = request.basic_auth(&server.keys.client_id, Some(server.keys.client_secret.expose()));
    assert_eq!(Answer::of(request.body("grant_type=client_credentials")).await.header("cache-control"), "no-store");
    let page = Answer::of(server.http.get(format!("{}/ui/app.js", server.url))).await;
    assert_ne!(page.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_bodys_faults_are_told_up_to_a_bound() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let mut body = server.request_body();
    body["includeNamespaces"] = json!([]);
    body["migrationHosts"] = Value::Array(vec![json!(""); 10_000]);
    let answer = server.call(Method::POST, &server.own("liveMigrations"), Some(body)).await;
    assert_eq!(answer.error(), (400, "VALIDATION_ERROR".to_owned()));
    assert_eq!(answer.json()["badRequestDetail"]["fields"].as_array().map(Vec::len), Some(20), "{answer:?}");
}

#[tokio::test]
async fn what_was_refused_is_audited_and_cannot_fill_the_disk() {
    let server = TestServer::start().await;
    let (public, private, _) = group_key(&server, &["GROUP_READ_ONLY"]).await;
    let cluster = json!({"name": "mine", "uri": "mongodb://evil:1/"});
    for _ in 0..60 {
        let answer = server.by(&public, &private, Method::POST, &server.own("clusters"), Some(cluster.clone())).await;
        assert_eq!(answer.error().0, 401);
    }
    let audit = server.get(&format!("/api/limosa/v1/orgs/{}/audit?itemsPerPage=500", server.keys.org_id)).await.json();
    let refused: Vec<&Value> =
        audit["results"].as_array().expect("a list").iter().filter(|entry| entry["outcome"] == "REFUSED").collect();
    // A minute may end in between.
    assert!((1..=40).contains(&refused.len()), "{} of 60", refused.len());
    let first = refused[0];
    assert_eq!((&first["actor"], &first["operation"]), (&json!(public), &json!("registerCluster")), "{first}");
    assert_eq!((&first["address"], &first["target"]), (&json!("127.0.0.1"), &json!(server.own("clusters"))), "{first}");
    let done = audit["results"].as_array().expect("a list").iter().find(|entry| entry["outcome"] == "DONE");
    assert_eq!(done.expect("the key was made")["operation"], "createGroupApiKey");
}
