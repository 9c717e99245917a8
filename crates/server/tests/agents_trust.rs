//! What someone can do who has the link token and no agent's secret, and what an agent can say that isn't true.

use crate::support::{Answer, TestServer, sign};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

const AGENTS: &str = "/api/limosa/v1/agents";

/// Whoever has a link token: an agent, or an attacker.
struct Speaker<'a> {
    server: &'a TestServer,
    key: (String, String),
    id: String,
    secret: Option<String>,
}

fn key_of(link_token: &Value) -> (String, String) {
    let token = STANDARD.decode(link_token.as_str().expect("a token")).expect("base64");
    let token: Value = serde_json::from_slice(&token).expect("JSON");
    let text = |name: &str| token[name].as_str().expect("is there").to_owned();
    (text("publicApiKey"), text("privateApiKey"))
}

async fn link(server: &TestServer) -> (String, String) {
    let made = server.call(Method::POST, &server.org("liveMigrations/linkTokens"), Some(json!({}))).await;
    key_of(&made.json()["linkToken"])
}

fn id(n: u32) -> String {
    format!("{n:024x}")
}

fn secret(letter: char) -> Option<String> {
    Some(letter.to_string().repeat(43))
}

fn deployment() -> Value {
    json!({
        "name": "old", "clusterId": "0123456789abcdef01234567", "dbSizeBytes": 5, "featureCompatibilityVersion": "6.0",
        "mongoDbVersion": "6.0.5", "oplogSizeMb": 990, "sharded": false, "shardsSize": 1, "tlsEnabled": true, "managed": true,
    })
}

impl Speaker<'_> {
    async fn post(&self, path: &str, body: &Value) -> Answer {
        let asked = Answer::of(self.server.request(Method::POST, path).json(body)).await;
        let key = (self.key.0.as_str(), self.key.1.as_str());
        let signature = sign(asked.header("www-authenticate"), key, "POST", path, "00000001");
        let mut request = self.server.request(Method::POST, path).header("authorization", signature).json(body);
        if let Some(secret) = &self.secret {
            request = request.header("x-limosa-agent-secret", secret);
        }
        Answer::of(request).await
    }

    fn join_body(&self, host: &str) -> Value {
        let mut body = json!({
            "agentId": self.id, "hostName": host, "agentVersion": "0.1.0", "groupName": "limosa", "deployments": [deployment()],
        });
        if let Some(secret) = &self.secret {
            body["secret"] = secret.as_str().into();
        }
        body
    }

    async fn join(&self) -> Answer {
        self.post(AGENTS, &self.join_body("mover1")).await
    }

    async fn beat(&self, idle: bool) -> Answer {
        let body = json!({"deployments": [deployment()], "idle": idle, "kept": []});
        self.post(&format!("{AGENTS}/{}/heartbeat", self.id), &body).await
    }

    async fn report(&self, migration: &str, phase: &str) -> Answer {
        let body = json!({"epoch": 1, "phase": phase, "progress": {}, "failure": null});
        let id = migration.rsplit('/').next().expect("an id");
        self.post(&format!("{AGENTS}/{}/migrations/{id}/report", self.id), &body).await
    }

    async fn validated(&self, validation: &str) -> Answer {
        let path = format!("{AGENTS}/{}/validations/{validation}/report", self.id);
        self.post(&path, &json!({"findings": []})).await
    }
}

async fn destination(server: &TestServer) {
    let cluster = json!({"name": "new", "uri": "mongodb://user:hidden@127.0.0.1:1/"});
    assert_eq!(server.call(Method::POST, &server.own("clusters"), Some(cluster)).await.status, 201);
}

#[tokio::test]
async fn a_link_token_alone_takes_over_no_held_migration() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let speaker = |n: u32, secret| Speaker { server: &server, key: key.clone(), id: id(n), secret };
    let holder = speaker(1, secret('a'));
    assert_eq!(holder.join().await.status, 200);
    destination(&server).await;
    let migration = server.migration_of(server.request_with_password()).await;
    let claimed = holder.beat(true).await;
    assert_eq!(claimed.json()["migration"]["source"]["credentials"], json!(["reader", "hidden"]), "{claimed:?}");
    assert_eq!(claimed.header("cache-control"), "no-store");
    assert_eq!(holder.report(&migration, "copying").await.status, 200);

    // Under the holder's id, without its secret or with another one.
    for forged in [secret('b'), None] {
        let attacker = speaker(1, forged.clone());
        for answer in [attacker.join().await, attacker.beat(true).await, attacker.report(&migration, "failed").await] {
            assert!((400..=403).contains(&answer.status), "{forged:?}: {answer:?}");
            assert!(!answer.text.contains("hidden") && answer.error().1.starts_with("AGENT_"), "{answer:?}");
        }
    }
    // Under an id of its own, with the holder's host name.
    let attacker = speaker(2, secret('b'));
    assert_eq!(attacker.join().await.status, 200);
    let beaten = attacker.beat(true).await;
    assert!(beaten.json()["migration"].is_null() && !beaten.text.contains("hidden"), "{beaten:?}");
    let stopped = attacker.report(&migration, "failed").await;
    assert_eq!(stopped.json()["directive"]["kind"], "stop", "{stopped:?}");
    let detail = server.get(&migration.replace("/api/atlas/v2", "/api/limosa/v1")).await.json();
    assert_eq!((&detail["phase"], &detail["attempts"]), (&json!("copying"), &json!(1)), "{detail}");
    assert_eq!(holder.report(&migration, "copying").await.status, 200);
}

#[tokio::test]
async fn a_validation_is_the_agents_that_it_was_given_to() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let speaker = |n: u32, secret| Speaker { server: &server, key: key.clone(), id: id(n), secret };
    let (holder, attacker) = (speaker(1, secret('a')), speaker(2, secret('b')));
    assert_eq!((holder.join().await.status, attacker.join().await.status), (200, 200));
    destination(&server).await;
    let path = server.group("liveMigrations/validate");
    let asked = server.call(Method::POST, &path, Some(server.request_with_password())).await.json();
    let validation = asked["_id"].as_str().expect("an id");
    assert_eq!(attacker.validated(validation).await.error().0, 404, "it was given to nobody yet");
    let given = holder.beat(false).await;
    assert_eq!(given.json()["validations"][0]["validationId"], *validation, "{given:?}");
    let other = attacker.beat(false).await;
    assert!(other.json()["validations"] == json!([]) && !other.text.contains("hidden"), "{other:?}");
    assert_eq!(attacker.validated(validation).await.error().0, 404);
    assert_eq!(server.get(&format!("{path}/{validation}")).await.json()["status"], "PENDING");
    // The same agent is given it again, should it have died in between.
    assert_eq!(holder.beat(false).await.json()["validations"][0]["validationId"], *validation);
    assert_eq!(holder.validated(validation).await.status, 200);
    assert_eq!(server.get(&format!("{path}/{validation}")).await.json()["status"], "SUCCESS");
}

#[tokio::test]
async fn an_agent_of_the_version_before_is_told_what_to_do_and_joins_again() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let old = Speaker { server: &server, key: key.clone(), id: id(1), secret: None };
    let told = old.join().await;
    assert_eq!(told.error(), (403, "AGENT_TOO_OLD".to_owned()));
    assert!(told.json()["detail"].as_str().is_some_and(|detail| detail.contains("Install")), "{told:?}");

    // One that joined before the server was upgraded, and holds a migration.
    let new = Speaker { secret: secret('a'), server: &server, key: key.clone(), id: id(1) };
    assert_eq!(new.join().await.status, 200);
    destination(&server).await;
    let migration = server.migration().await;
    assert!(!new.beat(true).await.json()["migration"].is_null());
    server.store("UPDATE agents SET secret_hash = NULL");
    for answer in [old.beat(true).await, old.report(&migration, "copying").await, new.beat(true).await] {
        assert_eq!(answer.error(), (401, "AGENT_SECRET_MISSING".to_owned()));
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("join")), "{answer:?}");
    }
    // Nobody takes its place as long as its lease runs: this could be anyone who knows its id.
    assert_eq!(new.join().await.error(), (409, "AGENT_LEASE_RUNS".to_owned()));
    server.store("UPDATE migrations SET body = json_set(body, '$.lease.until', 1)");
    assert_eq!(new.join().await.status, 200);
    let again = new.beat(true).await.json();
    assert_eq!(again["migration"]["epoch"], 2, "{again}");
}

#[tokio::test]
async fn joins_are_in_the_audit_and_agents_are_known_by_no_secret() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let agent = Speaker { server: &server, key: key.clone(), id: id(1), secret: secret('a') };
    assert_eq!(agent.join().await.status, 200);
    let forged = Speaker { server: &server, key: key.clone(), id: id(1), secret: secret('b') };
    assert_eq!(forged.join().await.error(), (401, "AGENT_SECRET_WRONG".to_owned()));
    let audit = server.get(&format!("/api/limosa/v1/orgs/{}/audit", server.keys.org_id)).await;
    assert!(!audit.text.contains(&"a".repeat(43)) && !audit.text.contains(&"b".repeat(43)), "{audit:?}");
    let audit = audit.json();
    let joins: Vec<(&str, &str)> = audit["results"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|entry| entry["operation"] == "joinAgent")
        .map(|entry| (entry["outcome"].as_str().unwrap_or_default(), entry["target"].as_str().unwrap_or_default()))
        .collect();
    let target = format!("{AGENTS}/{}", id(1));
    assert_eq!(joins, [("REFUSED", target.as_str()), ("DONE", target.as_str())], "{audit}");
    assert_eq!(audit["results"][1]["actor"], key.0, "{audit}");
    let kept = server.count(&format!("SELECT count(*) FROM agents WHERE secret_hash LIKE '%{}%'", "a".repeat(43)));
    assert_eq!(kept, 0, "the secret is kept as it is");
}

#[tokio::test]
async fn another_organizations_work_is_not_an_agents() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let agent = Speaker { server: &server, key, id: id(1), secret: secret('a') };
    assert_eq!(agent.join().await.status, 200);
    destination(&server).await;
    let migration = server.migration().await;
    assert!(!agent.beat(true).await.json()["migration"].is_null());
    let path = server.group("liveMigrations/validate");
    let asked = server.call(Method::POST, &path, Some(server.request_body())).await.json();
    let validation = asked["_id"].as_str().expect("an id");
    agent.beat(false).await;
    server.store("UPDATE migrations SET org_id = '0123456789abcdef01234567'; UPDATE validations SET org_id = '0123456789abcdef01234567'");
    assert_eq!(agent.report(&migration, "failed").await.error().0, 404);
    assert_eq!(agent.validated(validation).await.error().0, 404);
    assert_eq!(server.get(&format!("{path}/{validation}")).await.json()["status"], "PENDING");
    // Of one that is over, what another's agent keeps is not its business.
    server.store("UPDATE migrations SET body = json_set(body, '$.phase', json_object('kind', 'complete'))");
    let id = migration.rsplit('/').next().expect("an id");
    let body = json!({"deployments": [deployment()], "idle": false, "kept": [id]});
    let beaten = agent.post(&format!("{AGENTS}/{}/heartbeat", agent.id), &body).await;
    assert_eq!(beaten.json()["over"], json!([]), "{beaten:?}");
}

#[tokio::test]
async fn what_an_agent_presents_has_a_shape() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let agent = Speaker { server: &server, key, id: id(1), secret: secret('a') };
    let with = |name: &str, value: Value| {
        let mut body = agent.join_body("mover1");
        body[name] = value;
        body
    };
    let mut named = deployment();
    named["name"] = "old\u{1b}[2J".into();
    let many = Value::Array(vec![deployment(); 1_001]);
    for body in [
        with("hostName", json!("mover1\u{1b}[31m")),
        with("hostName", json!("")),
        with("hostName", json!("x".repeat(300))),
        with("hostName", json!("mover1\nmover2")),
        with("agentVersion", json!("0.1.0\u{202e}")),
        with("groupName", json!("g\u{0}")),
        with("groupName", json!("g".repeat(100))),
        with("deployments", json!([named])),
        with("deployments", many),
        with("secret", json!("short")),
        with("agentId", json!("x")),
    ] {
        let answer = agent.post(AGENTS, &body).await;
        assert_eq!(answer.status, 400, "{} {answer:?}", body.to_string().chars().take(300).collect::<String>());
        assert!(["VALIDATION_ERROR", "INVALID_JSON_ATTRIBUTE"].contains(&answer.error().1.as_str()), "{answer:?}");
    }
    assert_eq!(server.count("SELECT count(*) FROM agents"), 0);
    // What a later version says beside is no reason to refuse it.
    assert_eq!(agent.post(AGENTS, &with("later", json!(1))).await.status, 200);
}

#[tokio::test]
async fn what_an_agent_tells_is_shown_without_its_control_characters() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let agent = Speaker { server: &server, key, id: id(1), secret: secret('a') };
    assert_eq!(agent.join().await.status, 200);
    destination(&server).await;
    let migration = server.migration().await;
    assert!(!agent.beat(true).await.json()["migration"].is_null());
    let path = format!("{AGENTS}/{}/migrations/{}/report", agent.id, migration.rsplit('/').next().expect("an id"));
    let hostile = format!("\u{1b}]0;owned\u{7}\u{202e}\r{}", "x".repeat(100_000));
    let failure = json!({"code": "SERVER_ERROR", "message": hostile});
    let report = json!({"epoch": 1, "phase": "copying", "progress": {"waiting": failure}, "failure": null});
    assert_eq!(agent.post(&path, &report).await.status, 200);
    let report = json!({"epoch": 1, "phase": "failed", "progress": {"waiting": failure}, "failure": failure});
    assert_eq!(agent.post(&path, &report).await.status, 200);
    let own = migration.replace("/api/atlas/v2", "/api/limosa/v1");
    for path in [own.clone(), format!("{own}/events")] {
        let answer = server.get(&path).await;
        let is_hostile = |text: &str| text.contains("\\u001b") || text.contains("\\u0007") || text.contains('\u{202e}');
        assert!(!is_hostile(&answer.text) && answer.text.contains("owned"), "{path} {:.600}", answer.text);
        assert!(answer.text.len() < 30_000, "{path} has {} bytes", answer.text.len());
    }
}

#[tokio::test]
async fn the_link_token_is_rotated_and_revoked_while_a_migration_runs() {
    let server = TestServer::start().await;
    let key = link(&server).await;
    let holder = Speaker { server: &server, key, id: id(1), secret: secret('a') };
    assert_eq!(holder.join().await.status, 200);
    destination(&server).await;
    let migration = server.migration().await;
    assert!(!holder.beat(true).await.json()["migration"].is_null());
    let own = format!("/api/limosa/v1/orgs/{}/linkToken", server.keys.org_id);

    // The one before lets nobody in any more, and those who are in stay until it ends.
    let rotated = server.call(Method::POST, &format!("{own}/rotate"), Some(json!({"graceSeconds": 3600}))).await;
    assert_eq!((rotated.status, rotated.header("cache-control")), (201, "no-store"), "{rotated:?}");
    let fresh = key_of(&rotated.json()["linkToken"]);
    assert_eq!(holder.report(&migration, "copying").await.status, 200);
    let stranger = Speaker { server: &server, key: holder.key.clone(), id: id(2), secret: secret('b') };
    assert_eq!(stranger.join().await.error(), (401, "LINK_TOKEN_REPLACED".to_owned()));
    assert_eq!(holder.join().await.status, 200, "it restarts with the token that it has");
    let moved = Speaker { server: &server, key: fresh.clone(), id: id(1), secret: secret('a') };
    assert_eq!(moved.join().await.status, 200);
    assert_eq!(moved.report(&migration, "copying").await.status, 200);
    server.store("UPDATE api_keys SET ends_at = 1 WHERE ends_at IS NOT NULL");
    assert_eq!(holder.beat(false).await.status, 401, "its time is over");
    assert_eq!(moved.report(&migration, "copying").await.status, 200);

    // At once, whatever runs.
    let at_once = server.call(Method::POST, &format!("{own}/rotate"), Some(json!({"graceSeconds": 0}))).await;
    let newest = key_of(&at_once.json()["linkToken"]);
    assert_eq!(moved.beat(false).await.status, 401);
    let moved = Speaker { server: &server, key: newest, id: id(1), secret: secret('a') };
    assert_eq!(moved.report(&migration, "copying").await.status, 200);
    assert_eq!(server.call(Method::DELETE, &own, None).await.status, 204);
    assert_eq!(moved.report(&migration, "copying").await.status, 401);
    assert_eq!(server.call(Method::DELETE, &own, None).await.error().0, 404);
    let detail = server.get(&migration.replace("/api/atlas/v2", "/api/limosa/v1")).await.json();
    assert_eq!(detail["phase"], "copying", "the migration waits for an agent with another token");
}
