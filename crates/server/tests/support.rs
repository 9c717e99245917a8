//! A server of a test's own, a client that shows raw answers, and an agent under the test's control.

use base64::{Engine, engine::general_purpose::STANDARD};
use limosa_model::{
    AgentId, DeploymentId, Epoch, ErrorCode, Failure, PhaseKind, Progress, Secret, digest,
    protocol::{
        Deployment, Directive, Heartbeat, Join, Joined, MigrationAssignment, Report, ReportResponse, SECRET_HEADER,
        ValidationReport, Work,
    },
    report::Record,
};
use limosa_server::{Bootstrap, NotifyConfig, RequestLimits, Server, ServerConfig, ServerError};
use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use std::path::Path;
use tokio::{sync::oneshot, task::JoinHandle};

/// The media type at the date that most scripts name.
pub const ACCEPT: &str = "application/vnd.atlas.2025-03-12+json";

/// What proves that calls are the test's own agent's.
const AGENT_SECRET: &str = "a-secret-of-the-tests-own-agent-of-some-length";

pub struct TestServer {
    pub url: String,
    pub keys: Bootstrap,
    pub http: Client,
    token: String,
    dir: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let answer = request.send().await.expect("answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, text: answer.text().await.expect("is text") }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("is text"))
    }

    /// Status and error code.
    pub fn error(&self) -> (u16, String) {
        let code = self.json()["errorCode"].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.header("content-type"), "application/json");
        (self.status, code)
    }

    /// All of it but the date, sorted.
    pub fn raw(&self) -> String {
        let mut lines: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("is text")))
            .collect();
        lines.sort();
        format!("{}\n{}\n\n{}\n", self.status, lines.join("\n"), self.text)
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with_window(limosa_model::transition::CUTOVER_WINDOW_SECONDS).await
    }

    pub async fn with_window(cutover_window_seconds: i64) -> Self {
        Self::launch(cutover_window_seconds, None).await
    }

    pub async fn launch(cutover_window_seconds: i64, notify: Option<NotifyConfig>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let most = limosa_server::MOST_CONNECTIONS;
        Self::launch_in(dir, None, cutover_window_seconds, notify, most, None, RequestLimits::default()).await
    }

    /// One that has few connections.
    pub async fn with_connections(most: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let window = limosa_model::transition::CUTOVER_WINDOW_SECONDS;
        Self::launch_in(dir, None, window, None, most, None, RequestLimits::default()).await
    }

    /// One that counts nobody's requests.
    pub async fn without_limits() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let window = limosa_model::transition::CUTOVER_WINDOW_SECONDS;
        let limits = RequestLimits { orgs: u32::MAX, groups: u32::MAX };
        Self::launch_in(dir, None, window, None, limosa_server::MOST_CONNECTIONS, None, limits).await
    }

    /// The owner's bearer token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Behind a proxy that is reached at `public_url`.
    pub async fn behind(public_url: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let window = limosa_model::transition::CUTOVER_WINDOW_SECONDS;
        let most = limosa_server::MOST_CONNECTIONS;
        Self::launch_in(dir, None, window, None, most, Some(public_url.to_owned()), RequestLimits::default()).await
    }

    /// On a data directory whose first owner's keys may be known already.
    async fn launch_in(
        dir: tempfile::TempDir,
        keys: Option<Bootstrap>,
        cutover_window_seconds: i64,
        notify: Option<NotifyConfig>,
        most_connections: usize,
        public_url: Option<String>,
        limits: RequestLimits,
    ) -> Self {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let session_seconds = limosa_server::SESSION_SECONDS;
        let config = ServerConfig {
            data_dir: dir.path().to_owned(),
            listen,
            cutover_window_seconds,
            session_seconds,
            notify,
            tls: None,
            limits,
            most_connections,
            public_url,
        };
        let server = Server::start(&config).expect("starts");
        let url = format!("http://{}", server.local_addr());
        let keys = keys.unwrap_or_else(|| server.bootstrap().expect("is made").clone());
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve_until(async move {
            let _ = stopped.await;
        }));
        let mut made = Self { url, keys, http: Client::new(), token: String::new(), dir, stop, serving };
        made.token = made.new_token().await;
        made
    }

    /// Ends it in order; what it leaves, and its first owner's keys.
    pub async fn stop(self) -> (tempfile::TempDir, Bootstrap) {
        let Self { keys, dir, stop, serving, http, .. } = self;
        drop((stop, http));
        serving.await.expect("ends").expect("in order");
        (dir, keys)
    }

    /// Ends it and starts another on what it leaves, after something was done to that.
    pub async fn restarted(self, between: impl FnOnce(&Path)) -> Self {
        let (dir, keys) = self.stop().await;
        between(dir.path());
        let most = limosa_server::MOST_CONNECTIONS;
        Self::launch_in(
            dir,
            Some(keys),
            limosa_model::transition::CUTOVER_WINDOW_SECONDS,
            None,
            most,
            None,
            RequestLimits::default(),
        )
        .await
    }

    /// The number that a query of its store yields.
    pub fn count(&self, query: &str) -> i64 {
        let connection = rusqlite::Connection::open(self.dir.path().join("limosa.db")).expect("opens");
        connection.query_row(query, [], |r| r.get(0)).expect("is counted")
    }

    /// Changes its store behind its back.
    pub fn store(&self, statement: &str) {
        let connection = rusqlite::Connection::open(self.dir.path().join("limosa.db")).expect("opens");
        connection.busy_timeout(std::time::Duration::from_secs(10)).expect("is set");
        connection.execute_batch(statement).expect("is changed");
    }

    /// Keeps everyone else from writing to its store, as a slow disk does, until the connection is dropped.
    pub fn hold_store(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.dir.path().join("limosa.db")).expect("opens");
        connection.busy_timeout(std::time::Duration::from_secs(10)).expect("is set");
        connection.execute_batch("BEGIN IMMEDIATE").expect("begins");
        connection
    }

    /// Takes tables away under the running server, as a damaged disk might.
    pub fn break_store(&self) {
        let connection = rusqlite::Connection::open(self.dir.path().join("limosa.db")).expect("opens");
        connection.execute_batch("DROP TABLE tokens; DROP TABLE api_keys;").expect("drops");
    }

    /// A bearer token by the owner's client credentials.
    pub async fn new_token(&self) -> String {
        let request = self
            .http
            .post(format!("{}/api/oauth/token", self.url))
            .basic_auth(&self.keys.client_id, Some(self.keys.client_secret.expose()))
            .body("grant_type=client_credentials");
        Answer::of(request).await.json()["access_token"].as_str().expect("a token").to_owned()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("accept", ACCEPT)
    }

    /// As the owner.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).bearer_auth(&self.token);
        Answer::of(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// The same with the owner's API key.
    pub async fn get_signed(&self, path: &str) -> Answer {
        let asked = Answer::of(self.request(Method::GET, path)).await;
        let key = (self.keys.public_key.as_str(), self.keys.private_key.expose());
        let signature = sign(asked.header("www-authenticate"), key, "GET", path, "00000001");
        Answer::of(self.request(Method::GET, path).header("authorization", signature)).await
    }

    /// Signed with any key.
    pub async fn by(&self, public: &str, private: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let asked = Answer::of(self.request(method.clone(), path)).await;
        let signature = sign(asked.header("www-authenticate"), (public, private), method.as_str(), path, "00000001");
        let request = self.request(method, path).header("authorization", signature);
        Answer::of(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub fn group(&self, rest: &str) -> String {
        format!("/api/atlas/v2/groups/{}/{rest}", self.keys.group_id)
    }

    pub fn own(&self, rest: &str) -> String {
        format!("/api/limosa/v1/groups/{}/{rest}", self.keys.group_id)
    }

    pub fn org(&self, rest: &str) -> String {
        format!("/api/atlas/v2/orgs/{}/{rest}", self.keys.org_id)
    }

    /// An agent on `mover1` that announces `old`; the destination `new` is registered.
    pub async fn agent(&self) -> TestAgent<'_> {
        let made = self.call(Method::POST, &self.org("liveMigrations/linkTokens"), Some(json!({}))).await;
        let token = STANDARD.decode(made.json()["linkToken"].as_str().expect("a token")).expect("base64");
        let token: Value = serde_json::from_slice(&token).expect("JSON");
        let text = |name: &str| token[name].as_str().expect("is there").to_owned();
        let mut agent = TestAgent {
            server: self,
            id: AgentId::generate(),
            key: (text("publicApiKey"), Secret::new(text("privateApiKey"))),
            epoch: Epoch(0),
        };
        let join = Join {
            agent_id: agent.id,
            host_name: "mover1".to_owned(),
            agent_version: "0.1.0".to_owned(),
            group_name: "limosa".to_owned(),
            secret: Some(Secret::new(AGENT_SECRET)),
            deployments: vec![deployment()],
        };
        let joined: Joined = agent.post("", &join).await;
        assert_eq!(joined.group_id, self.keys.group_id);
        let cluster = json!({"name": "new", "uri": "mongodb://user:hidden@127.0.0.1:1/"});
        assert_eq!(self.call(Method::POST, &self.own("clusters"), Some(cluster)).await.status, 201);
        agent.epoch = Epoch(0);
        agent
    }

    pub fn request_body(&self) -> Value {
        json!({
            "source": {"groupId": self.keys.group_id, "clusterName": "old", "managedAuthentication": true, "ssl": false},
            "destination": {"groupId": self.keys.group_id, "clusterName": "new", "hostnameSchemaType": "PUBLIC"},
            "migrationHosts": ["mover1"], "dropDestinationData": false,
        })
    }

    /// The same with a source's credentials.
    pub fn request_with_password(&self) -> Value {
        let mut body = self.request_body();
        body["source"]["managedAuthentication"] = false.into();
        (body["source"]["username"], body["source"]["password"]) = ("reader".into(), "hidden".into());
        body
    }

    /// Creates a migration and returns its path.
    pub async fn migration(&self) -> String {
        self.migration_of(self.request_body()).await
    }

    pub async fn migration_of(&self, request: Value) -> String {
        let created = self.call(Method::POST, &self.group("liveMigrations"), Some(request)).await;
        assert_eq!(created.status, 201, "{created:?}");
        self.group(&format!("liveMigrations/{}", created.json()["_id"].as_str().expect("an id")))
    }
}

fn deployment() -> Deployment {
    Deployment {
        name: "old".to_owned(),
        cluster_id: "0123456789abcdef01234567".parse::<DeploymentId>().expect("an id"),
        db_size_bytes: 5_000_000_000,
        feature_compatibility_version: "6.0".to_owned(),
        mongo_db_version: "6.0.5".to_owned(),
        oplog_size_mb: 990,
        sharded: false,
        shards_size: 1,
        tls_enabled: true,
        managed: true,
    }
}

/// The answer to a challenge, by hand.
pub fn sign(challenge: &str, key: (&str, &str), method: &str, uri: &str, nc: &str) -> String {
    let parameters = digest::parse_parameters(challenge).expect("a challenge");
    let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).expect("is there");
    let (realm, nonce) = (get("realm"), get("nonce"));
    let signed = digest::Challenge { method, uri, nonce, nc, cnonce: "abcdef", qop: "auth" };
    let response = digest::response(&digest::ha1(key.0, realm, key.1), signed);
    format!(
        r#"Digest username="{}", realm="{realm}", nonce="{nonce}", uri="{uri}", response="{response}", algorithm="MD5", qop=auth, nc={nc}, cnonce="abcdef""#,
        key.0
    )
}

pub struct TestAgent<'a> {
    server: &'a TestServer,
    id: AgentId,
    key: (String, Secret),
    epoch: Epoch,
}

impl TestAgent<'_> {
    /// Of its own part of the API.
    pub fn path(&self, rest: &str) -> String {
        format!("/api/limosa/v1/agents/{}{rest}", self.id)
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, rest: &str, body: &impl serde::Serialize) -> T {
        let answer = self.post_raw(&format!("/api/limosa/v1/agents{rest}"), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.text).expect("as the protocol says")
    }

    /// Signed with the link's key.
    pub async fn post_raw(&self, path: &str, body: &impl serde::Serialize) -> Answer {
        let asked = Answer::of(self.server.request(Method::POST, path)).await;
        assert_eq!(asked.status, 401);
        let key = (self.key.0.as_str(), self.key.1.expose());
        let signature = sign(asked.header("www-authenticate"), key, "POST", path, "00000001");
        let request = self.server.request(Method::POST, path).header("authorization", signature);
        Answer::of(request.header(SECRET_HEADER, AGENT_SECRET).json(body)).await
    }

    /// Below the agent's own path.
    pub async fn post_own(&self, rest: &str, body: &impl serde::Serialize) -> Answer {
        self.post_raw(&format!("/api/limosa/v1/agents/{}/{rest}", self.id), body).await
    }

    /// As the agent, where it has no business.
    pub async fn get(&self, path: &str) -> Answer {
        let asked = Answer::of(self.server.request(Method::GET, path)).await;
        let key = (self.key.0.as_str(), self.key.1.expose());
        let signature = sign(asked.header("www-authenticate"), key, "GET", path, "00000001");
        Answer::of(self.server.request(Method::GET, path).header("authorization", signature)).await
    }

    /// Reports a validation's findings.
    pub async fn validated(&self, id: &str, codes: &[&str]) {
        let finding = |code: &&str| {
            let code = ErrorCode::ALL.iter().find(|known| known.name() == *code).expect("a code");
            Failure::new(*code, "seen").into()
        };
        let report = ValidationReport { findings: codes.iter().map(finding).collect(), destination: None };
        let _: Value = self.post(&format!("/{}/validations/{id}/report", self.id), &report).await;
    }

    pub async fn heartbeat(&self, idle: bool) -> Work {
        let beat = Heartbeat { deployments: vec![deployment()], idle, kept: Vec::new() };
        self.post(&format!("/{}/heartbeat", self.id), &beat).await
    }

    /// Takes what waits.
    pub async fn claim(&mut self) -> MigrationAssignment {
        let work = self.heartbeat(true).await.migration.expect("a migration waits");
        assert_eq!(work.destination_uri.expose(), "mongodb://user:hidden@127.0.0.1:1/");
        self.epoch = work.epoch;
        work
    }

    pub async fn report(&self, migration: &str, phase: PhaseKind, lag_seconds: Option<i64>) -> Directive {
        let progress = Progress { lag_seconds, documents_copied: 10, ..Progress::default() };
        self.report_with(migration, phase, progress).await
    }

    /// The last report, with what only the engine knows.
    pub async fn completes(&self, migration: &str, record: Record) -> Answer {
        let id = migration.rsplit('/').next().expect("an id");
        let path = format!("/api/limosa/v1/agents/{}/migrations/{id}/report", self.id);
        let (progress, record) = (Progress::default(), Some(record));
        let (phase, failure, rehearsal, destination) = (PhaseKind::Complete, None, None, None);
        let report =
            Report { epoch: self.epoch, phase, progress, failure, rehearsal, destination, record, identities: None };
        self.post_raw(&path, &report).await
    }

    pub async fn report_with(&self, migration: &str, phase: PhaseKind, progress: Progress) -> Directive {
        let id = migration.rsplit('/').next().expect("an id");
        let failure = (phase == PhaseKind::Failed).then(|| Failure::new(ErrorCode::HistoryLost, "the oplog rolled"));
        let (rehearsal, destination, record) = (None, None, None);
        let report =
            Report { epoch: self.epoch, phase, progress, failure, rehearsal, destination, record, identities: None };
        let path = format!("/{}/migrations/{id}/report", self.id);
        self.post::<ReportResponse>(&path, &report).await.directive
    }
}
