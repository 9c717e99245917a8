//! A migration host: joins the control plane with a link token, announces what it can read, and runs what it is given,
//! one migration at a time.

mod assignment;
mod bounds;
pub mod http;
mod metrics;

pub use bounds::{Bounds, Files};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use limosa_engine::{Metrics, Tuning};
use limosa_model::{AgentId, ErrorCode, Failure, NamespaceFilter, Secret, Uri, ValidationId, protocol};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashSet},
    fs,
    future::Future,
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tracing::Instrument;

/// How often the announced facts are read again.
const REFRESH: Duration = Duration::from_secs(30);

/// What an agent needs to know.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The control plane.
    pub server_url: String,
    /// From `limosa link create`.
    pub link_token: Secret,
    /// The name by which migrations ask for this host.
    pub host_name: String,
    /// The group whose deployments it announces.
    pub group_name: String,
    /// Name and URI of each.
    pub sources: Vec<(String, Secret)>,
    /// Which namespaces it carries at most; a migration may carry fewer.
    pub filter: NamespaceFilter,
    /// Identity and spool.
    pub data_dir: PathBuf,
    /// How its engine is set.
    pub tuning: Tuning,
    /// Speak plain HTTP to a server on another machine.
    pub plain_http: bool,
    /// Where `/metrics` is served, to anyone who can connect; nowhere if absent.
    pub metrics_listen: Option<SocketAddr>,
    /// What the control plane can order it to do.
    pub bounds: Bounds,
}

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The token is not one of ours.
    #[error("the link token can't be read: copy it whole from the answer of 'limosa link create'")]
    MalformedToken,
    /// How it is to run.
    #[error("a setting is out of bounds: {0}")]
    Tuning(String),
    /// Its own disk.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// Its metrics.
    #[error("the metrics can't be served at {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The control plane.
    #[error(transparent)]
    Http(#[from] http::HttpError),
}

/// What goes from task to task.
pub(crate) struct Agent {
    pub config: AgentConfig,
    pub id: AgentId,
    pub client: http::Client,
    pub lease: Duration,
    pub metrics: Metrics,
    /// `replicaSetId`s of all sources that were ever reached.
    pub sources: Mutex<BTreeSet<String>>,
}

/// How long a lease that someone else may hold under this agent's id is waited for, and how often it is tried.
const LEASE_RUNS: Duration = Duration::from_secs(60);
const TRY_EVERY: Duration = Duration::from_secs(2);

impl Agent {
    fn know(&self, deployments: &[protocol::Deployment]) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.extend(deployments.iter().map(|deployment| deployment.cluster_id.to_string()));
    }

    /// Presents itself. One that held a migration before it had a secret waits until its lease is over.
    async fn join(&self, join: &protocol::Join) -> Result<protocol::Joined, http::HttpError> {
        let began = Instant::now();
        loop {
            match self.post("", join).await {
                Err(http::HttpError::Refused(409, code, detail))
                    if code == "AGENT_LEASE_RUNS" && began.elapsed() < LEASE_RUNS =>
                {
                    tracing::info!("{detail}");
                    tokio::time::sleep(TRY_EVERY).await;
                }
                answer => return answer,
            }
        }
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl serde::Serialize) -> Result<T, http::HttpError> {
        let body = serde_json::to_value(body).map_err(|e| http::HttpError::Malformed(e.to_string()))?;
        let answer = self.client.call(Method::POST, &format!("/api/limosa/v1/agents{path}"), Some(body)).await?;
        serde_json::from_value(answer).map_err(|e| http::HttpError::Malformed(e.to_string()))
    }
}

fn client(config: &AgentConfig) -> Result<http::Client, AgentError> {
    let decoded = STANDARD.decode(config.link_token.expose().trim()).map_err(|_| AgentError::MalformedToken)?;
    let token: serde_json::Value = serde_json::from_slice(&decoded).map_err(|_| AgentError::MalformedToken)?;
    match (token["publicApiKey"].as_str(), token["privateApiKey"].as_str()) {
        (Some(public), Some(private)) => {
            Ok(http::Client::new_with(&config.server_url, public, &Secret::new(private), config.plain_http)?)
        }
        _ => Err(AgentError::MalformedToken),
    }
}

/// Which agent this is, and what proves it: made once, kept for good, so that a restarted agent is the same agent.
struct Identity {
    id: AgentId,
    secret: Secret,
}

/// The identity in `data_dir`. Files of versions before have no secret; they get one.
fn identity(data_dir: &Path) -> Result<Identity, AgentError> {
    let file = data_dir.join("agent.json");
    let error = |e| AgentError::File(file.clone(), e);
    // The spool and the verifier's notes in it hold documents.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(error)?;
    let known = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let text = |name: &str| known.as_ref().and_then(|value| value[name].as_str());
    let id = text("agentId").and_then(|id| id.parse().ok());
    if let (Some(id), Some(secret)) = (id, text("secret")) {
        return Ok(Identity { id, secret: Secret::new(secret) });
    }
    let random: [u8; 32] = rand::random();
    let made =
        Identity { id: id.unwrap_or_else(AgentId::generate), secret: Secret::new(URL_SAFE_NO_PAD.encode(random)) };
    let text = json!({"agentId": made.id, "secret": made.secret.expose()}).to_string();
    // Written whole or not at all: what was joined with must be found again.
    let draft = data_dir.join("agent.json.new");
    let _ = fs::remove_file(&draft);
    let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(error)?;
    written.write_all(text.as_bytes()).and_then(|()| written.sync_all()).map_err(error)?;
    fs::rename(&draft, &file).map_err(error)?;
    Ok(made)
}

async fn describe(config: &AgentConfig) -> Vec<protocol::Deployment> {
    let mut found = Vec::new();
    for (name, uri) in &config.sources {
        match limosa_engine::describe(name, uri).await {
            Ok(deployment) => found.push(deployment),
            Err(failure) => tracing::warn!(name, %failure, "a deployment can't be announced"),
        }
    }
    found
}

/// Runs until `shutdown`; a running migration is then stopped where it is, and continues with the next start.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
    config.tuning.validate().map_err(AgentError::Tuning)?;
    let Identity { id, secret } = identity(&config.data_dir)?;
    let client = client(&config)?.with_proof(protocol::SECRET_HEADER, secret.clone());
    let metrics = Metrics::default();
    // Ends with this function.
    let mut serving = JoinSet::new();
    if let Some(address) = config.metrics_listen {
        serving.spawn(metrics::listen(address, &metrics).await?);
    }
    let mut deployments = describe(&config).await;
    let join = protocol::Join {
        agent_id: id,
        host_name: config.host_name.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        group_name: config.group_name.clone(),
        secret: Some(secret),
        deployments: deployments.clone(),
    };
    let mut agent = Agent { config, id, client, lease: Duration::ZERO, metrics, sources: Mutex::default() };
    agent.know(&deployments);
    for line in agent.config.bounds.words() {
        tracing::info!("{line}");
    }
    let joined = agent.join(&join).await?;
    agent.lease = Duration::from_secs(joined.lease_seconds);
    let agent = Arc::new(agent);
    let mut beat = tokio::time::interval(Duration::from_secs(joined.heartbeat_seconds));
    let mut described = Instant::now();
    let mut running: Option<assignment::Running> = None;
    let mut validated = HashSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = beat.tick() => {}
        }
        if described.elapsed() >= REFRESH || deployments.len() < agent.config.sources.len() {
            deployments = describe(&agent.config).await;
            agent.know(&deployments);
            described = Instant::now();
        }
        if running.as_ref().is_some_and(assignment::Running::is_finished) {
            running = None;
        }
        let mut kept = limosa_engine::kept_migrations(&agent.config.data_dir);
        kept.retain(|id| running.as_ref().is_none_or(|running| running.id != *id));
        let heartbeat = protocol::Heartbeat { deployments: deployments.clone(), idle: running.is_none(), kept };
        match agent.post::<protocol::Work>(&format!("/{id}/heartbeat"), &heartbeat).await {
            Ok(work) => take(&agent, work, &mut running, &mut validated).await,
            Err(error) => tracing::warn!(%error, "the heartbeat failed"),
        }
    }
    if let Some(running) = running {
        running.stop().await;
    }
    Ok(())
}

/// Begins what the server has for this agent, and forgets what is over.
async fn take(
    agent: &Arc<Agent>,
    work: protocol::Work,
    running: &mut Option<assignment::Running>,
    validated: &mut HashSet<ValidationId>,
) {
    for waiting in work.validations {
        if validated.insert(waiting.validation_id) {
            let span = tracing::info_span!("validation", id = %waiting.validation_id);
            tokio::spawn(assignment::validate(Arc::clone(agent), waiting).instrument(span));
        }
    }
    for id in work.over {
        limosa_engine::forget(&agent.config.data_dir, id).await;
    }
    if let (None, Some(given)) = (&running, work.migration) {
        *running = Some(assignment::Running::start(Arc::clone(agent), given));
    }
}

/// The source's URI for this work: the agent's own, or with the credentials that came with the request.
pub(crate) fn source_uri(config: &AgentConfig, access: &protocol::SourceAccess) -> Result<Secret, Failure> {
    let own = config.sources.iter().find(|(name, _)| *name == access.name).map(|(_, uri)| uri);
    let own = own.ok_or_else(|| {
        Failure::new(ErrorCode::SourceUnreachable, format!("this host has no deployment {}", access.name))
    })?;
    if access.credentials.is_none() && access.ca_certificate_path.is_none() && !access.ssl {
        return Ok(own.clone());
    }
    let mut uri = Uri::parse(own).map_err(|fault| {
        let message = format!("the URI of the deployment {} can't be read: {fault}", access.name);
        Failure::new(ErrorCode::MalformedUri, message)
    })?;
    if let Some((user, password)) = &access.credentials {
        uri.set_credentials(user, password);
    }
    if access.ssl && uri.option("ssl").is_none() {
        uri.add_option("tls", "true");
    }
    if let Some(file) = &access.ca_certificate_path {
        config.bounds.file("caCertificatePath", file)?;
        uri.add_option("tlsCAFile", file);
    }
    Ok(uri.to_secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_credentials_replace_the_agents_own() {
        let config = AgentConfig {
            server_url: String::new(),
            link_token: Secret::new(""),
            host_name: String::new(),
            group_name: String::new(),
            sources: vec![("a".into(), Secret::new("mongodb://own:pw@h:1,g:2"))],
            filter: NamespaceFilter::default(),
            data_dir: PathBuf::new(),
            tuning: Tuning::default(),
            plain_http: false,
            metrics_listen: None,
            bounds: Bounds { files: Files::Any, ..Bounds::default() },
        };
        let mut access =
            protocol::SourceAccess { name: "a".into(), credentials: None, ca_certificate_path: None, ssl: false };
        assert_eq!(source_uri(&config, &access), Ok(Secret::new("mongodb://own:pw@h:1,g:2")));
        access.credentials = Some(("u@x".into(), Secret::new("p /")));
        access.ssl = true;
        assert_eq!(source_uri(&config, &access), Ok(Secret::new("mongodb://u%40x:p%20%2F@h:1,g:2/?tls=true")));
        access.ca_certificate_path = Some("/ca.pem&tlsInsecure=true".into());
        let written = source_uri(&config, &access).expect("is one");
        let read = Uri::parse(&written).expect("is well formed");
        let trusted = (read.option("tlsCAFile"), read.option("tlsInsecure"));
        assert_eq!(trusted, (Some("/ca.pem&tlsInsecure=true"), None), "a path became an option");
        access.name = "b".into();
        assert!(source_uri(&config, &access).is_err());
    }

    #[test]
    fn an_agent_keeps_its_id_and_its_secret_for_itself() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("agent.json");
        let first = identity(dir.path()).expect("is made");
        let mode = fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = identity(dir.path()).expect("is read");
        assert_eq!((again.id, &again.secret), (first.id, &first.secret));
        assert!(first.secret.expose().len() >= 43);
        // A version before kept the id alone, for everyone to read.
        fs::write(&file, json!({"agentId": first.id}).to_string()).expect("writes");
        let upgraded = identity(dir.path()).expect("is made");
        assert_eq!(upgraded.id, first.id);
        assert_ne!(upgraded.secret, first.secret);
        assert_eq!(identity(dir.path()).expect("is read").secret, upgraded.secret);
    }

    #[test]
    fn a_malformed_uri_of_this_host_is_not_repeated() {
        for text in limosa_testkit::uris::malformed(5, 10_000) {
            let config = AgentConfig {
                server_url: String::new(),
                link_token: Secret::new(""),
                host_name: String::new(),
                group_name: String::new(),
                sources: vec![("a".into(), Secret::new(text.as_str()))],
                filter: NamespaceFilter::default(),
                data_dir: PathBuf::new(),
                tuning: Tuning::default(),
                plain_http: false,
                metrics_listen: None,
                bounds: Bounds::default(),
            };
            let (name, ca_certificate_path) = ("a".into(), Some("/ca.pem".into()));
            let access = protocol::SourceAccess { name, credentials: None, ca_certificate_path, ssl: true };
            let said = format!("{:?} {config:?}", source_uri(&config, &access));
            assert_eq!(limosa_testkit::uris::leak(&said), None, "{text:?}: {said}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_must_be_asked_for() {
        let key = Secret::new("k");
        let refused = http::Client::new("http://mover.example.com:8080", "p", &key);
        assert!(matches!(refused, Err(http::HttpError::Insecure(_))));
        assert!(http::Client::new("http://127.0.0.1:8080", "p", &key).is_ok());
        assert!(http::Client::new("http://127.0.0.2:8080", "p", &key).is_ok());
        assert!(http::Client::new("http://[::1]:8080", "p", &key).is_ok());
        assert!(http::Client::new("http://0.0.0.0:8080", "p", &key).is_err());
        assert!(http::Client::new("https://mover.example.com", "p", &key).is_ok());
        assert!(http::Client::new_with("http://mover.example.com:8080", "p", &key, true).is_ok());
    }
}
