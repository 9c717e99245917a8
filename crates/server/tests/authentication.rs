//! Digest and bearer, as strict clients use them.

use crate::support::{ACCEPT, Answer, TestServer, sign};
use reqwest::Method;

#[tokio::test]
async fn digest_is_asked_for_and_answered_once() {
    let server = TestServer::start().await;
    let path = server.group("liveMigrations/0123456789abcdef01234567");
    let asked = Answer::of(server.request(Method::GET, &path)).await;
    assert_eq!(asked.status, 401);
    assert_eq!(asked.headers.get_all("www-authenticate").iter().count(), 1);
    assert_eq!(asked.headers.get("ratelimit-limit"), None);
    let body = "{\n  \"error\" : 401,\n  \"reason\" : \"Unauthorized\",\n  \"detail\" : \"You are not authorized for this resource.\",\n  \"errorCode\" : \"UNEXPECTED_ERROR\"\n}";
    assert_eq!(asked.text, body);
    let challenge = asked.header("www-authenticate").to_owned();
    // Split as Go's client does.
    let parts: Vec<&str> = challenge.strip_prefix("Digest ").expect("digest").split(", ").collect();
    let nonce = parts[2].strip_prefix("nonce=\"").and_then(|n| n.strip_suffix('"')).expect("a nonce");
    assert_eq!(nonce.len(), 32);
    let expected =
        ["realm=\"MMS Public API\"", "domain=\"\"", parts[2], "algorithm=MD5", "qop=\"auth\"", "stale=false"];
    assert_eq!(parts, expected);

    let key = (server.keys.public_key.as_str(), server.keys.private_key.expose());
    let signed = sign(&challenge, key, "GET", &path, "00000001");
    let send = async |path: &str, signature: &str| {
        Answer::of(server.request(Method::GET, path).header("authorization", signature)).await
    };
    assert_eq!(send(&path, &signed).await.error(), (404, "RESOURCE_NOT_FOUND".to_owned()));
    assert_eq!(send(&path, &signed).await.status, 401, "a replay");
    let second = sign(&challenge, key, "GET", &path, "00000002");
    assert_eq!(send(&format!("{path}?pretty=true"), &second).await.status, 404, "uri without the query");
    let elsewhere = sign(&challenge, key, "GET", &server.group("liveMigrations"), "00000003");
    assert_eq!(send(&path, &elsewhere).await.status, 401, "signed for another path");
    let wrong = sign(&challenge, (key.0, "wrong"), "GET", &path, "00000004");
    let unknown = sign(&challenge, ("nobodyxx", key.1), "GET", &path, "00000005");
    let (wrong, unknown) = (send(&path, &wrong).await, send(&path, &unknown).await);
    assert_eq!((wrong.status, wrong.text), (unknown.status, unknown.text));
    let forged = sign(&challenge.replace(nonce, &"A".repeat(32)), key, "GET", &path, "00000001");
    let stale = send(&path, &forged).await;
    assert!(stale.header("www-authenticate").ends_with("stale=true"), "{stale:?}");
}

#[tokio::test]
async fn bearer_tokens_are_given_checked_and_revoked() {
    let server = TestServer::start().await;
    let token = server.new_token().await;
    let path = server.group("liveMigrations/0123456789abcdef01234567");
    let ask = async |token: &str| Answer::of(server.request(Method::GET, &path).bearer_auth(token)).await;
    assert_eq!(ask(&token).await.status, 404);
    let refused = ask("made-up").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer error=\"invalid_token\""));
    let oauth = async |what: &str, secret: &str, form: &str| {
        let request = server.http.post(format!("{}/api/oauth/{what}", server.url));
        let answer = Answer::of(request.basic_auth(&server.keys.client_id, Some(secret)).body(form.to_owned())).await;
        let error = if answer.text.is_empty() { String::new() } else { answer.json()["error"].to_string() };
        (answer.status, error)
    };
    let secret = server.keys.client_secret.expose();
    let grant = "grant_type=client_credentials";
    assert_eq!(oauth("token", "wrong", grant).await, (401, "\"invalid_client\"".to_owned()));
    assert_eq!(oauth("token", secret, "").await, (400, "\"invalid_request\"".to_owned()));
    assert_eq!(oauth("token", secret, "grant_type=password").await, (400, "\"unsupported_grant_type\"".to_owned()));
    assert_eq!(oauth("revoke", "wrong", &format!("token={token}")).await.0, 401);
    assert_eq!(ask(&token).await.status, 404);
    assert_eq!(oauth("revoke", secret, &format!("token={token}")).await, (200, String::new()));
    assert_eq!(ask(&token).await.status, 401);
}

#[tokio::test]
async fn the_caller_is_known_before_anything_else_is_looked_at() {
    let server = TestServer::start().await;
    for (method, path, accept) in [
        (Method::GET, server.group("liveMigrations/x"), "text/plain"),
        (Method::POST, server.group("liveMigrations"), ACCEPT),
        (Method::GET, "/api/atlas/v2/nothing".to_owned(), ACCEPT),
    ] {
        let request = server.http.request(method, format!("{}{path}", server.url)).header("accept", accept);
        assert_eq!(Answer::of(request.body("{")).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_braked_and_good_ones_from_there_are_not() {
    let server = TestServer::start().await;
    let path = server.group("clusters");
    let signed = async |private: &str| {
        let asked = Answer::of(server.request(Method::GET, &path)).await;
        assert_eq!(asked.status, 401, "who has no credentials yet is asked for them");
        let key = (server.keys.public_key.as_str(), private);
        let signature = sign(asked.header("www-authenticate"), key, "GET", &path, "00000001");
        Answer::of(server.request(Method::GET, &path).header("authorization", signature)).await
    };
    let bearer = async || Answer::of(server.request(Method::GET, &path).bearer_auth("made-up")).await;
    let client = async || {
        let request = server.http.post(format!("{}/api/oauth/token", server.url));
        let request = request.basic_auth(&server.keys.client_id, Some("wrong"));
        Answer::of(request.body("grant_type=client_credentials")).await
    };
    let mut waits = [None, None, None];
    // So many that they are too many also where a minute ends in between.
    for _ in 0..100 {
        for (kind, answer) in [signed("wrong").await, bearer().await, client().await].into_iter().enumerate() {
            match answer.status {
                401 => assert_eq!(answer.header("retry-after"), ""),
                429 => waits[kind] = answer.header("retry-after").parse::<u32>().ok(),
                _ => panic!("{answer:?}"),
            }
        }
        if waits.iter().all(Option::is_some) {
            break;
        }
    }
    assert!(waits.iter().all(|wait| wait.is_some_and(|seconds| (1..=60).contains(&seconds))), "{waits:?}");
    assert_eq!(signed(server.keys.private_key.expose()).await.status, 200);
    assert_eq!(server.get(&path).await.status, 200);
    server.new_token().await;
}
