//! A control plane that orders what no agent may do: the agent says no, and its sources stay as they are.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{Document, doc};
use limosa_agent::{AgentConfig, Bounds};
use limosa_engine::Tuning;
use limosa_model::{MigrationId, NamespaceFilter, Secret};
use limosa_testkit::ReplicaSet;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What is ordered next, and how each migration was reported to have failed.
#[derive(Clone, Default)]
struct Plane {
    order: Arc<Mutex<Option<Value>>>,
    failures: Arc<Mutex<HashMap<String, String>>>,
}

async fn join() -> Json<Value> {
    Json(json!({"groupId": MigrationId::generate(), "heartbeatSeconds": 1, "leaseSeconds": 20}))
}

async fn heartbeat(State(plane): State<Plane>, Json(beat): Json<Value>) -> Json<Value> {
    let idle = beat["idle"] == true && beat["deployments"].as_array().is_some_and(|all| all.len() == 2);
    let order = if idle { plane.order.lock().expect("is whole").take() } else { None };
    Json(json!({"migration": order, "validations": [], "over": []}))
}

async fn report(
    State(plane): State<Plane>,
    Path((_, id)): Path<(String, String)>,
    Json(report): Json<Value>,
) -> Json<Value> {
    if let Some(code) = report["failure"]["code"].as_str() {
        plane.failures.lock().expect("is whole").insert(id, code.to_owned());
    }
    Json(json!({"directive": {"kind": "run"}}))
}

impl Plane {
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has one"));
        let router = Router::new()
            .route("/api/limosa/v1/agents", post(join))
            .route("/api/limosa/v1/agents/{agent}/heartbeat", post(heartbeat))
            .route("/api/limosa/v1/agents/{agent}/migrations/{id}/report", post(report))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// Orders a migration; the code with which it fails.
    async fn orders(&self, what: &str, change: impl Fn(&mut Value)) -> String {
        let id = MigrationId::generate().to_string();
        let source = json!({"name": "old", "credentials": null, "caCertificatePath": null, "ssl": false});
        let mut order = json!({"migrationId": id, "epoch": 1, "source": source, "dropDestinationData": true});
        change(&mut order);
        *self.order.lock().expect("is whole") = Some(order);
        for _ in 0..1200 {
            if let Some(code) = self.failures.lock().expect("is whole").get(&id) {
                return code.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: it was not refused")
    }
}

fn config(url: &str, sources: [&ReplicaSet; 2], dir: &std::path::Path, bounds: Bounds) -> AgentConfig {
    let token = json!({"publicApiKey": "p", "privateApiKey": "k"}).to_string();
    AgentConfig {
        server_url: url.to_owned(),
        link_token: Secret::new(STANDARD.encode(token)),
        host_name: "mover1".to_owned(),
        group_name: "limosa".to_owned(),
        sources: vec![
            ("old".to_owned(), Secret::new(sources[0].uri())),
            ("production".to_owned(), Secret::new(sources[1].uri())),
        ],
        filter: NamespaceFilter::default(),
        data_dir: dir.to_owned(),
        tuning: Tuning::default(),
        plain_http: false,
        metrics_listen: None,
        bounds,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_control_plane_makes_an_agent_write_to_no_source_and_open_no_file() {
    let (old, production, hostile) = tokio::join!(ReplicaSet::start(), ReplicaSet::start(), ReplicaSet::start());
    let (old, production, hostile) = (old.expect("starts"), production.expect("starts"), hostile.expect("starts"));
    for set in [&old, &production] {
        set.client().await.database("app").collection("c").insert_one(doc! {"_id": "precious"}).await.expect("inserts");
    }
    hostile.client().await.database("app").collection("c").insert_one(doc! {"_id": "evil"}).await.expect("inserts");
    for allow_reverse in [false, true] {
        let (plane, dir) = (Plane::default(), tempfile::tempdir().expect("a directory"));
        let bounds = Bounds { allow_reverse, ..Bounds::default() };
        let config = config(&plane.serve().await, [&old, &production], dir.path(), bounds);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let agent = tokio::spawn(limosa_agent::run(config, async move {
            let _ = stopped.await;
        }));
        let code = plane.orders("a reverse migration from a cluster of the attacker", |order| {
            order["destinationUri"] = hostile.uri().into();
            order["reversalFrom"] = json!({"time": 1, "increment": 1});
        });
        assert_eq!(code.await, "REVERSE_NOT_ALLOWED");
        let code = plane.orders("a migration over one of its sources", |order| {
            order["destinationUri"] = production.uri().into();
        });
        assert_eq!(code.await, "DESTINATION_NOT_ALLOWED");
        let code = plane.orders("the same by another name", |order| {
            order["destinationUri"] = production.uri().replace("127.0.0.1", "localhost").into();
        });
        assert_eq!(code.await, "DESTINATION_NOT_ALLOWED");
        let code = plane.orders("a file as certificate authority", |order| {
            order["destinationUri"] = hostile.uri().into();
            order["source"]["caCertificatePath"] = "/etc/passwd".into();
        });
        assert_eq!(code.await, "FILE_NOT_ALLOWED");
        let code = plane.orders("a file in the destination's URI", |order| {
            order["destinationUri"] = format!("{}&tls=true&tlsCAFile=/etc/passwd", hostile.uri()).into();
        });
        assert_eq!(code.await, "FILE_NOT_ALLOWED");
        drop(stop);
        agent.await.expect("doesn't panic").expect("ends in order");
    }
    for set in [&old, &production] {
        let client = set.client().await;
        let found: Vec<String> = client.list_database_names().await.expect("lists");
        assert!(!found.contains(&"__limosa".to_owned()), "{found:?}");
        let all = client.database("app").collection::<Document>("c");
        assert_eq!(all.count_documents(doc! {}).await.expect("counts"), 1);
        assert!(all.find_one(doc! {"_id": "precious"}).await.expect("finds").is_some());
    }
}
