//! The page in the browser: its files, its session, and what a session may do.

use crate::support::{Answer, TestServer};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

const SESSION: &str = "/api/limosa/v1/session";

/// As the page asks.
fn own(server: &TestServer, method: Method, path: &str) -> RequestBuilder {
    server.request(method, path).header("x-limosa-request", "1")
}

async fn sign_in(server: &TestServer, name: &str, secret: &str) -> Answer {
    Answer::of(own(server, Method::POST, SESSION).json(&json!({"name": name, "secret": secret}))).await
}

/// The cookie as a browser sends it back.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().expect("is there").to_owned()
}

#[tokio::test]
async fn the_page_is_served_under_a_strict_policy() {
    let server = TestServer::start().await;
    for (path, kind) in
        [("/", "text/html"), ("/ui/app.js", "text/javascript"), ("/ui/pages/home.js", "text/javascript")]
    {
        let answer = Answer::of(server.http.get(format!("{}{path}", server.url))).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").starts_with(kind), "{answer:?}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let page = Answer::of(server.http.get(format!("{}/ui/errors/HISTORY_LOST", server.url))).await;
    assert!(page.text.starts_with("# HISTORY_LOST"), "{page:?}");
    for path in ["/ui/none.js", "/ui/../bootstrap.json", "/ui/errors/NONE"] {
        assert_ne!(Answer::of(server.http.get(format!("{}{path}", server.url))).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn keys_and_service_accounts_sign_in_and_nothing_else_does() {
    let server = TestServer::start().await;
    let keys = &server.keys;
    for (name, secret) in [(&keys.public_key, &keys.private_key), (&keys.client_id, &keys.client_secret)] {
        let answer = sign_in(&server, name, secret.expose()).await;
        assert_eq!((answer.status, answer.json()["name"].as_str()), (200, Some(name.as_str())));
        let set = answer.header("set-cookie");
        for wanted in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
            assert!(set.contains(wanted), "{set}");
        }
        assert!(!answer.text.contains(secret.expose()));
        let groups = own(&server, Method::GET, "/api/atlas/v2/groups").header("cookie", cookie(&answer));
        assert_eq!(Answer::of(groups).await.json()["totalCount"], 1);
    }
    let (wrong, unknown) =
        (sign_in(&server, &keys.public_key, "wrong").await, sign_in(&server, "nobodyxx", "wrong").await);
    assert_eq!((wrong.status, &wrong.text), (401, &unknown.text));
    assert_eq!(wrong.json()["errorCode"], "WRONG_CREDENTIALS");
    assert_eq!(wrong.header("set-cookie"), "");
    let swapped = sign_in(&server, &keys.public_key, keys.client_secret.expose()).await;
    assert_eq!(swapped.status, 401);
    // An agent's key opens no session.
    let made = server.call(Method::POST, &server.org("liveMigrations/linkTokens"), Some(json!({}))).await;
    let token = made.json()["linkToken"].as_str().expect("a token").to_owned();
    let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token).expect("base64");
    let token: serde_json::Value = serde_json::from_slice(&token).expect("JSON");
    let text = |name: &str| token[name].as_str().expect("is there").to_owned();
    assert_eq!(sign_in(&server, &text("publicApiKey"), &text("privateApiKey")).await.status, 401);
    let mut refused = Vec::new();
    for _ in 0..60 {
        let answer = sign_in(&server, "nobodyxx", "wrong").await;
        refused.extend((answer.status == 429).then_some(answer));
    }
    assert!(refused.len() >= 20, "sign-ins may be tried without an end");
    for answer in refused {
        let wait: u32 = answer.header("retry-after").parse().expect("is told");
        assert!((1..=60).contains(&wait), "{answer:?}");
    }
}

#[tokio::test]
async fn a_session_changes_something_from_the_page_only() {
    let server = TestServer::start().await;
    let keys = &server.keys;
    let cookie = cookie(&sign_in(&server, &keys.public_key, keys.private_key.expose()).await);
    let body = json!({"name": "new", "uri": "mongodb://127.0.0.1:1/"});
    let register = |request: RequestBuilder| Answer::of(request.header("cookie", cookie.clone()).json(&body));
    let path = server.own("clusters");
    let forged = register(server.request(Method::POST, &path)).await;
    assert_eq!(forged.error(), (403, "CROSS_SITE_REQUEST".to_owned()));
    let elsewhere = own(&server, Method::POST, &path).header("origin", "http://evil.example");
    assert_eq!(register(elsewhere).await.error().0, 403);
    let elsewhere = own(&server, Method::POST, &path).header("sec-fetch-site", "cross-site");
    assert_eq!(register(elsewhere).await.error().0, 403);
    let forged = Answer::of(server.request(Method::POST, SESSION).json(&json!({"name": "a", "secret": "b"}))).await;
    assert_eq!(forged.error().0, 403, "a sign-in from elsewhere");
    assert_eq!(register(own(&server, Method::POST, &path).header("origin", &server.url)).await.status, 201);
    let audit = server.get(&format!("/api/limosa/v1/orgs/{}/audit", keys.org_id)).await.json();
    let entries = |outcome: &str| -> Vec<String> {
        let all = audit["results"].as_array().expect("a list").iter().filter(|entry| entry["outcome"] == outcome);
        all.map(|entry| entry["operation"].as_str().expect("is there").to_owned()).collect()
    };
    assert_eq!(entries("DONE"), ["registerCluster", "signIn"], "what was refused is not among what was done");
    assert_eq!(entries("REFUSED"), ["POST", "POST", "POST"], "{audit}");
}

#[tokio::test]
async fn a_session_ends_when_it_is_closed_and_with_its_key() {
    let server = TestServer::start().await;
    let created = json!({"desc": "for a night", "roles": ["ORG_OWNER"]});
    let path = format!("/api/atlas/v2/orgs/{}/apiKeys", server.keys.org_id);
    let key = server.call(Method::POST, &path, Some(created)).await.json();
    let (name, secret) = (key["publicKey"].as_str().expect("a key"), key["privateKey"].as_str().expect("a key"));
    let first = cookie(&sign_in(&server, name, secret).await);
    let second = cookie(&sign_in(&server, name, secret).await);
    assert_ne!(first, second);
    let read = async |cookie: &str| Answer::of(own(&server, Method::GET, SESSION).header("cookie", cookie)).await;
    assert_eq!((read(&first).await.status, read(&second).await.status), (200, 200));
    let out = Answer::of(own(&server, Method::DELETE, SESSION).header("cookie", &first)).await;
    assert!(out.status == 204 && out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
    assert_eq!((read(&first).await.status, read(&second).await.status), (401, 200));
    server.call(Method::DELETE, &format!("{path}/{}", key["id"].as_str().expect("an id")), None).await;
    let ended = read(&second).await;
    // Not a challenge that a browser would answer with a dialog of its own.
    assert_eq!((ended.status, ended.header("www-authenticate")), (401, "Session"));
    let groups = own(&server, Method::GET, "/api/atlas/v2/groups").header("cookie", &second);
    assert_eq!(Answer::of(groups).await.header("www-authenticate"), "Session");
}

/// HTTP/2 has no `Host`: its authority is what `Origin` must name.
#[tokio::test]
async fn another_sites_request_is_refused_over_http_2_too() {
    let server = TestServer::start().await;
    let keys = &server.keys;
    let cookie = cookie(&sign_in(&server, &keys.public_key, keys.private_key.expose()).await);
    let http = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let register = async |origin: &str| {
        let request = http.post(format!("{}{}", server.url, server.own("clusters"))).header("cookie", &cookie);
        let request = request.header("x-limosa-request", "1").header("origin", origin);
        Answer::of(request.json(&json!({"name": "new", "uri": "mongodb://a:1/"}))).await
    };
    for origin in ["http://evil.example", "null"] {
        assert_eq!(register(origin).await.error(), (403, "CROSS_SITE_REQUEST".to_owned()), "{origin}");
    }
    assert_eq!(register(&server.url).await.status, 201);
}

#[tokio::test]
async fn behind_a_proxy_with_tls_the_cookie_is_secure_and_its_origin_the_pages() {
    let server = TestServer::behind("https://limosa.example.com/").await;
    let keys = &server.keys;
    let answer = sign_in(&server, &keys.public_key, keys.private_key.expose()).await;
    let set = answer.header("set-cookie");
    assert!(set.starts_with("__Host-limosa_session=") && set.ends_with("; Secure"), "{set}");
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000; includeSubdomains;");
    let cookie = cookie(&answer);
    let path = server.own("clusters");
    let body = json!({"name": "new", "uri": "mongodb://127.0.0.1:1/"});
    let register = |origin: &str| {
        let request = own(&server, Method::POST, &path).header("cookie", &cookie).header("origin", origin);
        Answer::of(request.json(&body))
    };
    for origin in ["http://limosa.example.com", "https://evil.example", "https://limosa.example.com.evil.example"] {
        assert_eq!(register(origin).await.error(), (403, "CROSS_SITE_REQUEST".to_owned()), "{origin}");
    }
    assert_eq!(register("https://limosa.example.com").await.status, 201);
    let org = server.get(&server.org("")).await.json();
    let link = org["links"][0]["href"].as_str().expect("a link");
    assert!(link.starts_with("https://limosa.example.com/api/"), "{link}");
}
