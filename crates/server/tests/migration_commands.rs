//! The verbs beside Atlas's, event streams, restarts and TLS.

use crate::support::{Answer, TestServer};
use futures::StreamExt;
use limosa_model::{PhaseKind, protocol::Directive};
use limosa_server::{RequestLimits, Server, ServerConfig};
use limosa_testkit::tls::Certificates;
use reqwest::{Method, Version};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_migration_is_paused_resumed_extended_and_cancelled() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    let own = migration.replace("/api/atlas/v2", "/api/limosa/v1");
    let verb = async |name: &str, body| server.call(Method::POST, &format!("{own}/{name}"), body).await;
    let early = server.call(Method::PUT, &format!("{migration}/cutover"), None).await;
    assert_eq!(early.error(), (409, "LIVE_MIGRATION_NOT_READY".to_owned()));
    assert_eq!(verb("extend", None).await.error().0, 409);
    agent.claim().await;
    agent.report(&migration, PhaseKind::Copying, None).await;
    assert_eq!(verb("pause", None).await.json()["phase"], "paused");
    assert_eq!(agent.report(&migration, PhaseKind::Copying, None).await, Directive::Pause);
    assert!(agent.heartbeat(true).await.migration.is_none(), "a paused migration is handed out");
    assert_eq!(verb("resume", None).await.json()["phase"], "scheduled");
    agent.claim().await;
    agent.report(&migration, PhaseKind::Synced, Some(3)).await;
    let before = server.get(&own).await.json();
    let after = verb("extend", Some(json!({"seconds": 60}))).await.json();
    assert_ne!(before["expiresAt"], after["expiresAt"]);
    assert_eq!((after["attempts"].as_i64(), after["lagHistory"][0]["seconds"].as_i64()), (Some(2), Some(3)));
    assert_eq!(verb("extend", Some(json!({"seconds": 60.0}))).await.status, 200);
    assert_eq!(verb("extend", Some(json!({"seconds": 60.5}))).await.error().1, "INVALID_JSON_ATTRIBUTE");
    assert_eq!(verb("extend", Some(json!({"seconds": 0}))).await.error().1, "VALIDATION_ERROR");
    let limited = verb("limits", Some(json!({"loadLevel": 1, "maxSourceReadMbps": 80}))).await.json();
    assert_eq!(limited["limits"], json!({"loadLevel": 1, "maxDestinationWriteMbps": null, "maxSourceReadMbps": 80}));
    for wrong in [json!({"loadLevel": 6}), json!({"maxSourceReadMbps": 0}), json!({"speed": 1})] {
        assert_eq!(verb("limits", Some(wrong.clone())).await.error().0, 400, "{wrong}");
    }
    assert_eq!(verb("fly", None).await.error().0, 404);
    let found = server.get(&server.own("liveMigrations?status=WORKING&phase=synced")).await.json();
    assert_eq!(found["totalCount"], 1);
    assert_eq!(server.get(&server.own("liveMigrations?status=NEW")).await.json()["totalCount"], 0);
    assert_eq!(server.get(&server.own("liveMigrations?status=ODD")).await.error().1, "INVALID_QUERY_PARAMETER");
    let in_use = server.call(Method::DELETE, &server.own("clusters/new"), None).await;
    assert_eq!(in_use.error(), (409, "CLUSTER_IN_USE".to_owned()));
    let second = server.call(Method::POST, &server.group("liveMigrations"), Some(server.request_body())).await;
    assert_eq!(second.error(), (409, "DESTINATION_CLUSTER_ALREADY_MIGRATING".to_owned()));
    assert_eq!(verb("cancel", Some(json!({"dropCopied": true}))).await.json()["status"], "FAILED");
    assert_eq!(agent.report(&migration, PhaseKind::Synced, Some(0)).await, Directive::Cancel { drop_copied: true });
}

#[tokio::test]
async fn a_cutover_under_way_is_ended_on_request() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    let own = migration.replace("/api/atlas/v2", "/api/limosa/v1");
    let end = async || server.call(Method::POST, &format!("{own}/cutover/abort"), None).await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Synced, Some(0)).await;
    assert_eq!(end().await.error(), (409, "LIVE_MIGRATION_NOT_READY".to_owned()));
    assert_eq!(server.call(Method::PUT, &format!("{migration}/cutover"), None).await.status, 202);
    agent.report(&migration, PhaseKind::Finalizing, Some(0)).await;
    assert_eq!(end().await.json()["phase"], "finalizing");
    assert_eq!(end().await.status, 200, "again");
    let events = server.get(&format!("{own}/events")).await.json();
    let asked = events["results"].as_array().expect("a list").iter().filter(|event| event["kind"] == "abort").count();
    assert_eq!(asked, 1, "{events}");
}

#[tokio::test]
async fn events_are_followed_to_the_end() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    let path = migration.replace("/api/atlas/v2", "/api/limosa/v1") + "/events";
    let follow = || server.http.get(format!("{}{path}", server.url)).header("accept", "text/event-stream");
    let request = follow();
    let answer = request.bearer_auth(server.new_token().await).send().await.expect("answers");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        let mut stream = answer.bytes_stream();
        while let Some(part) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&part.expect("is read")));
        }
        text
    });
    agent.claim().await;
    agent.report(&migration, PhaseKind::Copying, None).await;
    agent.report(&migration, PhaseKind::Failed, None).await;
    let text = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("ends").expect("reads");
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(kinds, ["created", "claimed", "phase", "failure", "phase"], "{text}");
    assert!(text.contains("HISTORY_LOST"), "{text}");
    let listed = server.get(&path).await.json();
    assert_eq!(listed["totalCount"], 5);
    let last = listed["results"][3]["id"].to_string();
    let request = follow().header("last-event-id", last);
    let rest = Answer::of(request.bearer_auth(server.new_token().await)).await;
    assert_eq!(rest.text.matches("event: ").count(), 1, "{rest:?}");
}

#[tokio::test]
async fn whoever_follows_is_woken_by_a_change_and_let_go_at_the_end() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let path = "/api/limosa/v1/changes";
    assert_eq!(server.get(path).await.json(), json!({"count": 0}));
    let asked = server.http.get(format!("{}{path}", server.url)).header("accept", "text/event-stream");
    let answer = asked.bearer_auth(server.new_token().await).send().await.expect("answers");
    let mut stream = answer.bytes_stream();
    let mut next = async || {
        let part = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time");
        part.map(|part| String::from_utf8(part.expect("is read").to_vec()).expect("is text"))
    };
    assert_eq!(next().await.as_deref(), Some("event: changed\ndata: {\"count\":0}\n\n"));
    server.migration().await;
    assert_eq!(next().await.as_deref(), Some("event: changed\ndata: {\"count\":1}\n\n"));
    drop(server);
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_validation_is_carried_out_by_an_agent() {
    let server = TestServer::start().await;
    let agent = server.agent().await;
    let path = server.group("liveMigrations/validate");
    for (findings, status) in [(vec![], "SUCCESS"), (vec!["SAME_CLUSTER", "SOURCE_STANDALONE"], "FAILED")] {
        let asked = server.call(Method::POST, &path, Some(server.request_with_password())).await.json();
        assert_eq!(asked["status"], "PENDING");
        let id = asked["_id"].as_str().expect("an id");
        let work = agent.heartbeat(true).await;
        assert_eq!(work.validations[0].source.credentials.as_ref().map(|(user, _)| user.as_str()), Some("reader"));
        agent.validated(id, &findings).await;
        let answer = server.get(&format!("{path}/{id}")).await;
        assert_eq!(answer.json()["status"], status, "{answer:?}");
        assert!(
            findings.iter().all(|code| answer.text.contains(code)) && !answer.text.contains("hidden"),
            "{answer:?}"
        );
        assert_eq!(server.count("SELECT count(credentials) FROM validations"), 0);
    }
    assert_eq!(server.get(&format!("{path}/0123456789abcdef01234567")).await.error().0, 404);
}

#[tokio::test]
async fn a_migrations_namespaces_reach_its_agent() {
    let server = TestServer::start().await;
    let agent = server.agent().await;
    let (create, validate) = (server.own("liveMigrations"), server.own("liveMigrations/validate"));
    let mut body = server.request_body();
    for (attribute, pattern) in
        [("includeNamespaces", "shop"), ("excludeNamespaces", "*.*"), ("includeNamespaces", "shop.o*")]
    {
        let mut bad = body.clone();
        bad[attribute] = json!(["shop.*", pattern]);
        for path in [&create, &validate] {
            let answer = server.call(Method::POST, path, Some(bad.clone())).await;
            assert_eq!(answer.error(), (400, "INVALID_ATTRIBUTE".to_owned()));
            let detail = format!("Invalid attribute {attribute} specified: {pattern:?} is not a namespace: write");
            assert!(answer.json()["detail"].as_str().is_some_and(|d| d.starts_with(&detail)), "{answer:?}");
        }
    }
    // Atlas's part of the API knows no such attribute.
    (body["includeNamespaces"], body["excludeNamespaces"]) = (json!(["shop.*", "log.a.b"]), json!([" shop.carts "]));
    for path in [server.group("liveMigrations"), server.group("liveMigrations/validate")] {
        let answer = server.call(Method::POST, &path, Some(body.clone())).await;
        assert_eq!(answer.error(), (400, "INVALID_ATTRIBUTE".to_owned()));
    }
    let asked = server.call(Method::POST, &validate, Some(body.clone())).await.json();
    let id = asked["id"].as_str().expect("an id");
    let chosen = json!({"include": ["shop.*", "log.a.b"], "exclude": ["shop.carts"]});
    let waiting = agent.heartbeat(false).await.validations;
    assert_eq!(json!(waiting[0].filter), chosen);
    agent.validated(id, &["SAME_CLUSTER"]).await;
    let found = server.get(&format!("{validate}/{id}")).await.json();
    let finding = json!({
        "code": "SAME_CLUSTER", "severity": "ERROR", "subject": "", "evidence": "seen",
        "remedy": limosa_model::ErrorCode::SameCluster.remedy(),
    });
    assert_eq!((&found["status"], &found["findings"]), (&json!("FAILED"), &json!([finding])), "{found}");
    assert_eq!(found["errorMessage"], Value::Null, "{found}");

    let created = server.call(Method::POST, &create, Some(body)).await;
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("{create}/{}", created.json()["id"].as_str().expect("an id"));
    let detail = server.get(&path).await.json();
    assert_eq!(detail["includeNamespaces"], chosen["include"]);
    assert_eq!(detail["excludeNamespaces"], chosen["exclude"]);
    let given = agent.heartbeat(true).await.migration.expect("it waits");
    assert_eq!(json!(given.filter), chosen);
}

#[tokio::test]
async fn a_restart_keeps_everything_and_tls_speaks_http_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Certificates::write(dir.path()).expect("writes");
    let data_dir = dir.path().join("data");
    let tls = Some((files.certificate.clone(), files.key.clone()));
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = ServerConfig {
        data_dir,
        listen,
        cutover_window_seconds: 60,
        session_seconds: 60,
        notify: None,
        tls,
        limits: RequestLimits::default(),
        most_connections: limosa_server::MOST_CONNECTIONS,
        public_url: None,
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pem = std::fs::read(&files.authority).expect("is there");
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
        .build()
        .expect("a client");
    let mut token = None;
    for _ in 0..2 {
        let server = Server::start(&config).expect("starts");
        let (url, keys) = (format!("https://{}", server.local_addr()), server.bootstrap().expect("is there").clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve_until(async move {
            let _ = stopped.await;
        }));
        if token.is_none() {
            let request = http.post(format!("{url}/api/oauth/token")).body("grant_type=client_credentials");
            let answer = Answer::of(request.basic_auth(&keys.client_id, Some(keys.client_secret.expose()))).await;
            token = Some(answer.json()["access_token"].as_str().expect("a token").to_owned());
        }
        let request = http.get(format!("{url}/api/atlas/v2/orgs/{}", keys.org_id));
        let request = request.bearer_auth(token.as_deref().expect("made")).header("accept", crate::support::ACCEPT);
        let answer = request.send().await.expect("answers");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000; includeSubdomains;");
        drop(stop);
        serving.await.expect("ends").expect("in order");
    }
    let text = std::fs::read(config.data_dir.join("limosa.db")).expect("is there");
    let secret = token.expect("made");
    assert!(!text.windows(secret.len()).any(|w| w == secret.as_bytes()), "a token is stored as it is");
}
