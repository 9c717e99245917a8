//! What who runs a server looks at.

use crate::support::{Answer, TestServer, sign};
use limosa_model::PhaseKind;
use reqwest::Method;

#[tokio::test]
async fn metrics_tell_of_requests_migrations_and_agents() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Copying, None).await;
    server.get(&migration).await;
    server.get("/api/atlas/v2/nothing").await;
    assert_eq!(Answer::of(server.request(Method::GET, "/metrics")).await.status, 401);
    assert_eq!(agent.get("/metrics").await.error(), (401, "USER_UNAUTHORIZED".to_owned()));
    let told = server.get("/metrics").await;
    assert_eq!(told.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let job = r#"method="GET",route="/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}""#;
    for line in [
        "# HELP limosa_http_requests Requests answered.".to_owned(),
        "# TYPE limosa_http_requests counter".to_owned(),
        format!("limosa_http_requests_total{{{job},status=\"200\"}} 1"),
        r#"limosa_http_requests_total{method="GET",route="",status="404"} 1"#.to_owned(),
        "# TYPE limosa_http_request_duration_seconds histogram".to_owned(),
        "# UNIT limosa_http_request_duration_seconds seconds".to_owned(),
        format!("limosa_http_request_duration_seconds_count{{{job}}} 1"),
        format!("limosa_http_request_duration_seconds_bucket{{le=\"+Inf\",{job}}} 1"),
        r#"limosa_migrations{phase="copying"} 1"#.to_owned(),
        r#"limosa_migrations{phase="scheduled"} 0"#.to_owned(),
        "limosa_agents 1".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(told.text.lines().any(|l| l == line), "{line} is not in\n{}", told.text);
    }
    let id = migration.rsplit('/').next().expect("an id");
    let mut requests = told.text.lines().filter(|line| line.starts_with("limosa_http"));
    assert!(!requests.any(|line| line.contains(id)), "an id became a label");
}

#[tokio::test]
async fn a_store_that_breaks_is_not_taken_for_wrong_credentials() {
    let server = TestServer::start().await;
    let path = server.group("clusters");
    let asked = Answer::of(server.request(Method::GET, &path)).await;
    let key = (server.keys.public_key.as_str(), server.keys.private_key.expose());
    let signature = sign(asked.header("www-authenticate"), key, "GET", &path, "00000001");
    server.break_store();
    assert_eq!(server.get(&path).await.error(), (500, "UNEXPECTED_ERROR".to_owned()));
    let digest = Answer::of(server.request(Method::GET, &path).header("authorization", signature)).await;
    assert_eq!(digest.error(), (500, "UNEXPECTED_ERROR".to_owned()));
}

#[tokio::test]
async fn an_answer_names_its_request_as_the_client_did() {
    let server = TestServer::start().await;
    for path in ["/api/atlas/v2/orgs", "/api/openapi.json", "/api/limosa/v1/session", "/no/such/path"] {
        let asked = async |id: &str| {
            let answer = Answer::of(server.request(Method::GET, path).header("x-request-id", id)).await;
            answer.headers.get("x-request-id").map(|id| id.to_str().expect("is text").to_owned())
        };
        assert_eq!(asked("the-client.s_0").await.as_deref(), Some("the-client.s_0"));
        assert_eq!((asked("not plain").await, asked(&"a".repeat(65)).await), (None, None));
    }
}
