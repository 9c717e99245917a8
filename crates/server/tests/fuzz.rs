//! Random requests over every route: whatever comes, the server answers, and never with a fault of its own.
//!
//! `LIMOSA_SEED=n` makes the requests of an earlier run again; `LIMOSA_FULL=1` makes a million.

use crate::support::TestServer;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// No request may take longer: it waits for nothing but the store.
const LONGEST: Duration = Duration::from_secs(30);

/// Requests under way at a time.
const SIDE_BY_SIDE: u64 = 8;

/// Strings that parsers trip over.
const STRANGE: &[&str] = &[
    "",
    " ",
    "\u{0}",
    "%00",
    "..",
    "../..",
    "%2e%2e%2f",
    "{}",
    "[]",
    "null",
    "-1",
    "0",
    "9223372036854775807",
    "1e400",
    "\u{202e}x",
    "\u{feff}",
    "'\"`;--",
    "<script>",
    "${x}",
    "a\r\nb: c",
    "0123456789abcdef01234567",
    "ffffffffffffffffffffffff",
    "PUBLIC",
    "mongodb://u:p@h/?w=0&w=1",
    "mongodb://[::1",
    "mongodb+srv://x",
];

/// What the requests of one run are made of.
struct Surface {
    url: String,
    token: String,
    org: String,
    group: String,
    /// Method, path with parameters in braces.
    routes: Vec<(Method, String)>,
    /// Names of attributes that the API knows.
    attributes: Vec<String>,
}

impl Surface {
    async fn of(server: &TestServer) -> Self {
        let document: Value = server.get("/api/openapi.json").await.json();
        let paths = document["paths"].as_object().expect("paths");
        let mut routes: Vec<(Method, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                methods.filter_map(|name| Some((name.to_uppercase().parse().ok()?, path.clone())))
            })
            .collect();
        for path in [
            "/api/limosa/v1/agents",
            "/api/limosa/v1/agents/{a}/heartbeat",
            "/api/limosa/v1/agents/{a}/migrations/{m}/report",
            "/api/oauth/token",
            "/api/oauth/revoke",
            "/api/limosa/v1/session",
            "/metrics",
            "/ui/{file}",
        ] {
            routes.push((Method::POST, path.to_owned()));
            routes.push((Method::GET, path.to_owned()));
        }
        let schemas = document["components"]["schemas"].as_object().expect("schemas").values();
        let mut attributes: Vec<String> = schemas
            .filter_map(|schema| schema["properties"].as_object())
            .flat_map(|properties| properties.keys().cloned())
            .collect();
        attributes.sort();
        attributes.dedup();
        assert!(routes.len() > 60 && attributes.len() > 60, "{} routes", routes.len());
        Self {
            url: server.url.clone(),
            token: server.token().to_owned(),
            org: server.keys.org_id.to_string(),
            group: server.keys.group_id.to_string(),
            routes,
            attributes,
        }
    }

    fn word(&self, rng: &mut StdRng) -> String {
        match rng.random_range(0..5) {
            0 => self.org.clone(),
            1 => self.group.clone(),
            2 => self.attributes[rng.random_range(0..self.attributes.len())].clone(),
            3 => (0..rng.random_range(0..40)).map(|_| rng.random_range('\u{20}'..'\u{2ff}')).collect(),
            _ => STRANGE[rng.random_range(0..STRANGE.len())].to_owned(),
        }
    }

    fn value(&self, rng: &mut StdRng, depth: u32) -> Value {
        match rng.random_range(0..if depth > 4 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => json!(rng.random::<bool>()),
            2 => json!(rng.random::<i64>()),
            3 => json!(rng.random::<f64>()),
            4 => self.word(rng).into(),
            5 => (0..rng.random_range(0..4)).map(|_| self.value(rng, depth + 1)).collect(),
            _ => {
                let fields = (0..rng.random_range(0..6)).map(|_| (self.word(rng), self.value(rng, depth + 1)));
                Value::Object(fields.collect())
            }
        }
    }

    fn path(&self, rng: &mut StdRng, template: &str) -> String {
        let parts = template.split('/').map(|part| match part {
            "{orgId}" if rng.random_ratio(3, 4) => self.org.clone(),
            "{groupId}" if rng.random_ratio(3, 4) => self.group.clone(),
            part if part.starts_with('{') => {
                let word = self.word(rng);
                url_encoded(&word)
            }
            part => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    fn body(&self, rng: &mut StdRng) -> Vec<u8> {
        match rng.random_range(0..4) {
            0 => Vec::new(),
            1 => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
            2 => {
                let mut text = self.value(rng, 0).to_string().into_bytes();
                let at = rng.random_range(0..=text.len());
                text.truncate(at);
                text
            }
            _ => self.value(rng, 0).to_string().into_bytes(),
        }
    }

    async fn send(&self, http: &Client, rng: &mut StdRng) {
        let (method, template) = &self.routes[rng.random_range(0..self.routes.len())];
        let method = if rng.random_ratio(1, 20) { Method::PATCH } else { method.clone() };
        let mut path = self.path(rng, template);
        if rng.random_ratio(1, 3) {
            path = format!("{path}?{}={}", url_encoded(&self.word(rng)), url_encoded(&self.word(rng)));
        }
        let mut request = http.request(method.clone(), format!("{}{path}", self.url));
        if rng.random_ratio(9, 10) {
            request = request.bearer_auth(&self.token);
        }
        let printable = |text: String| text.chars().filter(|c| (' '..='~').contains(c)).collect::<String>();
        let accept = match rng.random_range(0..4) {
            0 => printable(self.word(rng)),
            1 => "application/json".to_owned(),
            _ => format!("application/vnd.atlas.202{}-0{}-01+json", rng.random_range(3..7), rng.random_range(1..9)),
        };
        let media = if rng.random_ratio(9, 10) { "application/json".to_owned() } else { printable(self.word(rng)) };
        let body = self.body(rng);
        let shown = String::from_utf8_lossy(&body).into_owned();
        request = request.header("accept", accept).header("content-type", media).body(body);
        // An address that no client could send.
        let Ok(request) = request.build() else { return };
        let answer = tokio::time::timeout(LONGEST, http.execute(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer: {method} {path} {shown}"));
        let answer = answer.unwrap_or_else(|e| panic!("{e}: {method} {path} {shown}"));
        let status = answer.status().as_u16();
        assert!(status < 500, "{status}: {method} {path} {shown}: {:?}", answer.text().await);
    }
}

fn url_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_answered_with_a_fault_of_the_server() {
    let count: u64 = if limosa_testkit::tool::in_full() { 1_000_000 } else { 5_000 };
    let seed: u64 = std::env::var("LIMOSA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("LIMOSA_SEED={seed}, {count} requests");
    let server = TestServer::without_limits().await;
    let surface = Arc::new(Surface::of(&server).await);
    let mut tasks = tokio::task::JoinSet::new();
    for part in 0..SIDE_BY_SIDE {
        let surface = Arc::clone(&surface);
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed ^ (part << 32));
            let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("is one");
            for _ in 0..count / SIDE_BY_SIDE {
                surface.send(&http, &mut rng).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    assert_eq!(server.get(&server.group("clusters")).await.status, 200, "the server is no longer of use");
}
