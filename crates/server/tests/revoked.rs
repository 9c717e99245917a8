//! What ends with a key, a session, a secret or a role: tried with streams that are open when it goes.

use crate::support::{Answer, TestServer, sign};
use futures::StreamExt;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a stream may outlive what let it in.
const MOST: Duration = Duration::from_secs(5);

/// Follows a stream until it ends; how long that took after `revoke`.
async fn ends_after(stream: Response, revoke: impl Future<Output = ()>) -> Duration {
    assert_eq!(stream.status(), 200, "{stream:?}");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut stream = stream.bytes_stream();
    // It is alive: the first event comes at once.
    let first = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("in time");
    assert!(first.is_some_and(|part| part.is_ok()));
    revoke.await;
    let began = Instant::now();
    let rest = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), rest).await.map_or(Duration::MAX, |()| began.elapsed())
}

/// Paths of both kinds of stream.
async fn streams(server: &TestServer) -> [String; 2] {
    let migration = server.migration().await;
    ["/api/limosa/v1/changes".to_owned(), migration.replace("/api/atlas/v2", "/api/limosa/v1") + "/events"]
}

async fn by_key(server: &TestServer, key: &Value, path: &str) -> Response {
    let asked = Answer::of(server.request(Method::GET, path)).await;
    let text = |name: &str| key[name].as_str().expect("is there");
    let key = (text("publicKey"), text("privateKey"));
    let signature = sign(asked.header("www-authenticate"), key, "GET", path, "00000001");
    let request = server.http.get(format!("{}{path}", server.url)).header("accept", "text/event-stream");
    request.header("authorization", signature).send().await.expect("answers")
}

async fn new_key(server: &TestServer) -> Value {
    let body = json!({"desc": "a", "roles": ["GROUP_READ_ONLY"]});
    server.call(Method::POST, &server.group("apiKeys"), Some(body)).await.json()
}

#[tokio::test]
async fn a_stream_ends_with_its_key_its_role_and_its_address() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    for path in streams(&server).await {
        for what in ["key", "role", "address"] {
            let key = new_key(&server).await;
            let id = key["id"].as_str().expect("an id");
            let stream = by_key(&server, &key, &path).await;
            let took = ends_after(stream, async {
                let (method, path, body) = match what {
                    "key" => (Method::DELETE, server.org(&format!("apiKeys/{id}")), None),
                    "role" => (Method::DELETE, server.group(&format!("apiKeys/{id}")), None),
                    _ => {
                        let elsewhere = json!([{"ipAddress": "10.0.0.1"}]);
                        (Method::POST, server.org(&format!("apiKeys/{id}/accessList")), Some(elsewhere))
                    }
                };
                let answer = server.call(method, &path, body).await;
                assert_eq!(answer.status / 100, 2, "{answer:?}");
            });
            let took = took.await;
            assert!(took <= MOST, "{path} outlives its {what}: {took:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    for path in streams(&server).await {
        for what in ["signed out", "secret deleted"] {
            let wanted =
                json!({"name": "ci", "description": "x", "roles": ["ORG_OWNER"], "secretExpiresAfterHours": 8});
            let made = server.call(Method::POST, &server.org("serviceAccounts"), Some(wanted)).await.json();
            let account = server.org(&format!("serviceAccounts/{}", made["clientId"].as_str().expect("an id")));
            let session = "/api/limosa/v1/session";
            let own = |method, path: &str| server.request(method, path).header("x-limosa-request", "1");
            let body = json!({"name": made["clientId"], "secret": made["secrets"][0]["secret"]});
            let signed_in = Answer::of(own(Method::POST, session).json(&body)).await;
            assert_eq!(signed_in.status, 200, "{signed_in:?}");
            let cookie = signed_in.header("set-cookie").split(';').next().expect("is there").to_owned();
            let request = server.http.get(format!("{}{path}", server.url)).header("accept", "text/event-stream");
            let stream = request.header("cookie", &cookie).send().await.expect("answers");
            let took = ends_after(stream, async {
                let answer = match what {
                    "signed out" => Answer::of(own(Method::DELETE, session).header("cookie", &cookie)).await,
                    _ => {
                        // Its own secret goes, the account and another secret stay.
                        let more = json!({"secretExpiresAfterHours": 8});
                        let more = server.call(Method::POST, &format!("{account}/secrets"), Some(more)).await;
                        assert_eq!(more.status, 201, "{more:?}");
                        let id = made["secrets"][0]["id"].as_str().expect("an id");
                        server.call(Method::DELETE, &format!("{account}/secrets/{id}"), None).await
                    }
                };
                assert_eq!(answer.status, 204, "{answer:?}");
            });
            let took = took.await;
            assert!(took <= MOST, "{path} outlives its session, {what}: {took:?}");
            let after = Answer::of(own(Method::GET, session).header("cookie", &cookie)).await;
            assert_eq!(after.status, 401, "{what}");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_its_secret_and_its_account() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    for path in streams(&server).await {
        for what in ["token", "secret's time", "role", "account"] {
            let wanted =
                json!({"name": "ci", "description": "x", "roles": ["ORG_OWNER"], "secretExpiresAfterHours": 8});
            let made = server.call(Method::POST, &server.org("serviceAccounts"), Some(wanted)).await.json();
            let text = |value: &Value| value.as_str().expect("is there").to_owned();
            let (client, secret) = (text(&made["clientId"]), text(&made["secrets"][0]["secret"]));
            let oauth = |what: &str, form: String| {
                let request = server.http.post(format!("{}/api/oauth/{what}", server.url));
                Answer::of(request.basic_auth(&client, Some(&secret)).body(form))
            };
            let token = oauth("token", "grant_type=client_credentials".to_owned()).await.json();
            let token = text(&token["access_token"]);
            let request = server.http.get(format!("{}{path}", server.url)).header("accept", "text/event-stream");
            let stream = request.bearer_auth(&token).send().await.expect("answers");
            let account = server.org(&format!("serviceAccounts/{client}"));
            let took = ends_after(stream, async {
                match what {
                    "token" => assert_eq!(oauth("revoke", format!("token={token}")).await.status, 200),
                    "secret's time" => {
                        let id = text(&made["secrets"][0]["id"]);
                        server.store(&format!("UPDATE service_account_secrets SET expires_at = 1 WHERE id = '{id}'"));
                    }
                    "role" => {
                        server.store(&format!("UPDATE service_accounts SET roles = '[]' WHERE client_id = '{client}'"));
                    }
                    _ => assert_eq!(server.call(Method::DELETE, &account, None).await.status, 204),
                }
            });
            let took = took.await;
            assert!(took <= MOST, "{path} outlives its {what}: {took:?}");
        }
    }
}
