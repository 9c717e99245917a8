//! `limosa migrate`: a control plane and a migration host in one process, and a client that drives them through the
//! same API as everyone else's.

use super::{
    Interrupt, check,
    migration_handle::{Detail, MigrationHandle},
    progress_loop::follow_until_done,
    rerun,
};
use crate::{
    args::{EndpointArgs, Migrate},
    error::CliError,
    logging,
    profile::{Profile, write_private},
    ui::{self, Event, Ui},
};
use limosa_agent::{
    AgentConfig, Bounds, Files,
    http::{Client, HttpError},
};
use limosa_model::{ErrorCode, Failure, Finding, MigrationId, PhaseKind, Secret};
use limosa_server::{NotifyConfig, RequestLimits, Server, ServerConfig};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// This process's own names of the two clusters and of itself.
const SOURCE: &str = "source";
const DESTINATION: &str = "destination";
const HOST: &str = "localhost";

/// How long the API stays after the end, for those who watch to read it.
const LINGER: Duration = Duration::from_secs(2);

/// How often something is looked for that is about to be there.
const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn run(given: Migrate) -> Result<(), CliError> {
    let mut ui = Ui::new(given.output, given.quiet);
    let ended = migrate(&given, &mut ui).await;
    match &ended {
        Err(CliError::Refused(findings)) => {
            for finding in findings.iter().filter(|finding| finding.is_error()) {
                ui.show(Event::failed(finding));
            }
        }
        Err(CliError::Failed { code, message, remedy }) => ui.show(Event::Failed { code, message, remedy }),
        Err(CliError::Expired) => {
            ui.show(Event::Failed { code: "EXPIRED", message: "nobody cut over in time", remedy: "begin again" });
        }
        Err(CliError::Cancelled) => {
            ui.show(Event::Failed { code: "CANCELLED", message: "the migration was cancelled", remedy: "begin again" });
        }
        _ => {}
    }
    ended
}

async fn migrate(given: &Migrate, ui: &mut Ui) -> Result<(), CliError> {
    if !given.listen.ip().is_loopback() {
        let instead = "'limosa migrate' has no TLS; listen on 127.0.0.1 and come by 'ssh -L', or run 'limosa server' with \
                       --tls-cert and --tls-key, and 'limosa agent'";
        return Err(CliError::Usage(format!("plain HTTP on {}: other machines reach it, and {instead}", given.listen)));
    }
    let mut interrupt = Interrupt::listen()?;
    let resuming = given.state_dir.join("server").exists();
    if !resuming {
        // Nothing is written, here or anywhere, before this is over.
        // What only has to be known is shown with the last look, right before the start.
        let findings = interruptible(&mut interrupt, check::preflight(&given.ends, MigrationId::generate())).await?;
        if findings.iter().any(Finding::is_error) {
            return Err(CliError::Refused(findings));
        }
    }
    let state = State::open(&given.state_dir, &given.ends).await?;
    logging::log_to(&given.state_dir.join("limosa.log"), given.log.log_format)?;
    let server = server(given)?;
    // The state directory proved it to be the cluster that it was.
    server.know_cluster(DESTINATION, &given.ends.destination)?;
    let profile = Profile::of(&server, &state.profile)?;
    profile.write(&state.profile)?;
    let client = profile.client()?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve_until(stop.clone().cancelled_owned()));
    let ended = match interruptible(&mut interrupt, prepare(given, &state, &profile, &client)).await {
        Ok(Ok((known, token))) => {
            let own = Own { given, state: &state, profile: &profile, client: &client };
            own.run(known, token, ui, &mut interrupt).await
        }
        Ok(Err(error)) | Err(error) => Err(error),
    };
    stop.cancel();
    end(serving, &mut interrupt).await?;
    ended
}

/// The server of this migration alone, on this host.
fn server(given: &Migrate) -> Result<Server, CliError> {
    Ok(Server::start(&ServerConfig {
        data_dir: given.state_dir.join("server"),
        listen: given.listen,
        cutover_window_seconds: given.cutover_window,
        session_seconds: limosa_server::SESSION_SECONDS,
        notify: given.notify.as_deref().map(NotifyConfig::read).transpose()?,
        tls: None,
        limits: RequestLimits::default(),
        most_connections: limosa_server::MOST_CONNECTIONS,
        public_url: None,
    })?)
}

/// A migration whose server and agent this process runs itself.
struct Own<'a> {
    given: &'a Migrate,
    state: &'a State,
    profile: &'a Profile,
    client: &'a Client,
}

impl Own<'_> {
    /// Follows the migration to its end while the agent carries it out, and then ends the agent.
    async fn run(
        &self,
        known: Option<Detail>,
        token: Secret,
        ui: &mut Ui,
        interrupt: &mut Interrupt,
    ) -> Result<(), CliError> {
        let leave = CancellationToken::new();
        let agent = agent(self.given, self.profile, token);
        let mut agent = tokio::spawn(limosa_agent::run(agent, leave.clone().cancelled_owned()));
        tokio::select! {
            ended = self.drive(known, ui, interrupt) => {
                if matches!(ended, Ok(()) | Err(CliError::Failed { .. } | CliError::Expired | CliError::Cancelled)) {
                    tokio::time::sleep(LINGER).await;
                }
                if matches!(ended, Err(CliError::Interrupted)) {
                    ui::say("stopping; what is under way is brought to a point from which it can continue");
                }
                leave.cancel();
                end(agent, interrupt).await?;
                ended
            }
            // It was not asked to end: without it nothing continues.
            left = &mut agent => Err(match left {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) | Err(_) => CliError::AgentEnded,
            }),
        }
    }

    /// Creates the migration, or continues with the one that is there, and sees it to its end.
    async fn drive(&self, known: Option<Detail>, ui: &mut Ui, interrupt: &mut Interrupt) -> Result<(), CliError> {
        let Self { given, state, profile, client } = *self;
        let over = match known.as_ref().filter(|known| known.phase == PhaseKind::Complete) {
            Some(known) => Some(rerun::completed(given, known, given.state_dir.join("agent")).await?),
            None => None,
        };
        let id = match &known {
            Some(known) => {
                if matches!(known.phase, PhaseKind::Failed | PhaseKind::Paused) {
                    let path = profile.own(&format!("liveMigrations/{}/resume", known.id));
                    client.call(Method::POST, &path, Some(json!({"recopy": given.recopy}))).await?;
                }
                known.id
            }
            None => {
                interruptible(interrupt, announced(profile, client)).await??;
                create(given, profile, client).await?
            }
        };
        ui.begin(id);
        ui.show(Event::Started { url: &profile.url, profile: &state.profile, resumed: known.is_some() });
        let watched =
            MigrationHandle { profile, client, id, profile_file: &state.profile, cutover: given.cutover, is_own: true };
        rerun::apply(given, &watched, known.as_ref()).await?;
        interruptible(interrupt, follow_until_done(&watched, ui)).await??;
        super::report::keep(&watched, ui).await?;
        match watched.way_back().await? {
            Some(back) if !back.phase.is_final() || back.phase == PhaseKind::Failed => {
                follow_back(&watched, &back, ui, interrupt).await
            }
            Some(_) | None => {
                over.iter().for_each(|line| ui::say(line));
                Ok(())
            }
        }
    }
}

/// Shows what is only to be known; the rest stands in the way.
fn refuse_errors(findings: Vec<Finding>) -> Result<(), CliError> {
    if findings.iter().any(Finding::is_error) {
        return Err(CliError::Refused(findings));
    }
    findings.iter().for_each(ui::finding);
    Ok(())
}

/// Waits for a task's orderly end; a second Ctrl-C doesn't.
async fn end<E: Into<CliError>>(task: JoinHandle<Result<(), E>>, interrupt: &mut Interrupt) -> Result<(), CliError> {
    tokio::select! {
        ended = task => ended.unwrap_or(Ok(())).map_err(Into::into),
        () = interrupt.came() => Err(CliError::Interrupted),
    }
}

async fn interruptible<T>(interrupt: &mut Interrupt, work: impl Future<Output = T>) -> Result<T, CliError> {
    tokio::select! {
        done = work => Ok(done),
        () = interrupt.came() => Err(CliError::Interrupted),
    }
}

/// What the state directory holds beside the server's and the agent's own files.
struct State {
    profile: PathBuf,
    link: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

/// Which clusters the state directory belongs to.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Belongs {
    source_cluster_id: String,
    destination_cluster_id: String,
}

impl State {
    /// Creates or takes over the directory; refuses one that is in use or was begun with other clusters.
    async fn open(dir: &Path, ends: &EndpointArgs) -> Result<Self, CliError> {
        let error = |e| CliError::File(dir.to_owned(), e);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error)?;
        let lock = File::create(dir.join("lock")).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(CliError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(e)) => return Err(error(e)),
        }
        let file = dir.join("clusters.json");
        let identify = async |uri: &Secret| match limosa_engine::describe(SOURCE, uri).await {
            Ok(found) => Ok(found.cluster_id.to_string()),
            Err(failure) => Err(CliError::Refused(vec![failure.into()])),
        };
        let now = Belongs {
            source_cluster_id: identify(&ends.source).await?,
            destination_cluster_id: identify(&ends.destination).await?,
        };
        match fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Belongs>(&text).ok()) {
            Some(before) if before != now => {
                let which = if before.source_cluster_id == now.source_cluster_id { DESTINATION } else { SOURCE };
                let message = format!("{} belongs to a migration with another {which}", dir.display());
                return Err(CliError::Refused(vec![Failure::new(ErrorCode::ConfigurationChanged, message).into()]));
            }
            Some(_) => {}
            None => write_private(&file, &serde_json::to_vec_pretty(&now).unwrap_or_default())?,
        }
        Ok(Self { profile: dir.join("profile.toml"), link: dir.join("link-token"), _lock: lock })
    }
}

fn agent(given: &Migrate, profile: &Profile, link_token: Secret) -> AgentConfig {
    AgentConfig {
        server_url: profile.url.clone(),
        link_token,
        host_name: HOST.to_owned(),
        group_name: "limosa".to_owned(),
        sources: vec![(SOURCE.to_owned(), given.ends.source.clone())],
        filter: given.ends.namespaces.filter(),
        data_dir: given.state_dir.join("agent"),
        tuning: given.tuning.tuning(),
        plain_http: false,
        metrics_listen: None,
        // What orders it holds the keys of this state directory, and so is the one that started it.
        bounds: Bounds { files: Files::Any, allow_reverse: true, ..Bounds::default() },
    }
}

/// The migration that this directory already has, if any, and a link token; the destination is registered.
async fn prepare(
    given: &Migrate,
    state: &State,
    profile: &Profile,
    client: &Client,
) -> Result<(Option<Detail>, Secret), CliError> {
    let listed = client.call(Method::GET, &profile.own("liveMigrations"), None).await?;
    let all = listed["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all = all.iter().map(Detail::read).collect::<Result<Vec<_>, _>>()?;
    // Newest first; a way back belongs to the migration before it.
    let known = all.into_iter().find(|detail| detail.reversal_of.is_none());
    if known.as_ref().is_none_or(|known| !known.phase.is_final() || known.phase == PhaseKind::Failed) {
        let id = known.as_ref().map_or_else(MigrationId::generate, |known| known.id);
        let findings = check::preflight(&given.ends, id).await;
        refuse_errors(findings)?;
    }
    let cluster = json!({"name": DESTINATION, "uri": given.ends.destination.expose()});
    client.call(Method::POST, &profile.own("clusters"), Some(cluster)).await?;
    if let Ok(token) = fs::read_to_string(&state.link) {
        return Ok((known, Secret::new(token)));
    }
    let path = profile.org("liveMigrations/linkTokens");
    let created = match client.call(Method::POST, &path, Some(json!({}))).await {
        // An earlier run died before it could note the token down.
        Err(HttpError::Refused(409, ..)) => {
            client.call(Method::DELETE, &path, None).await?;
            client.call(Method::POST, &path, Some(json!({}))).await?
        }
        other => other?,
    };
    let token = created["linkToken"].as_str().unwrap_or_default().to_owned();
    write_private(&state.link, token.as_bytes())?;
    Ok((known, Secret::new(token)))
}

/// Follows the way back of a migration that is complete, until someone ends it or returns by it.
async fn follow_back(
    forth: &MigrationHandle<'_>,
    back: &Detail,
    ui: &mut Ui,
    interrupt: &mut Interrupt,
) -> Result<(), CliError> {
    let (id, profile) = (back.id, forth.profile_file.display());
    ui::say(&format!("reverse migration {id} carries the destination's changes to the source's cluster"));
    ui::say(&format!("  to close it: limosa migrations cancel {id} --profile {profile}"));
    ui::say(&format!("  to return to the source's cluster: limosa migrations cutover {id} --wait --profile {profile}"));
    if back.phase == PhaseKind::Failed {
        let path = forth.profile.own(&format!("liveMigrations/{id}/resume"));
        forth.client.call(Method::POST, &path, Some(json!({}))).await?;
    }
    ui.begin(id);
    let resumed = back.phase != PhaseKind::Scheduled;
    ui.show(Event::Started { url: &forth.profile.url, profile: forth.profile_file, resumed });
    let cutover = crate::args::Cutover::Manual;
    let watched = MigrationHandle { id, cutover, ..*forth };
    match interruptible(interrupt, follow_until_done(&watched, ui)).await? {
        // Closed: that is how it ends when all is well.
        Err(CliError::Cancelled) => Ok(()),
        ended => ended,
    }
}

/// Waits until the agent has announced the source.
async fn announced(profile: &Profile, client: &Client) -> Result<(), CliError> {
    let path = profile.org("liveMigrations/availableProjects");
    loop {
        let projects = client.call(Method::GET, &path, None).await?;
        let all = projects.as_array().map(Vec::as_slice).unwrap_or_default();
        if all.iter().any(|p| p["deployments"].as_array().is_some_and(|d| d.iter().any(|d| d["name"] == SOURCE))) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn create(given: &Migrate, profile: &Profile, client: &Client) -> Result<MigrationId, CliError> {
    let body = json!({
        "source": {"groupId": profile.group_id, "clusterName": SOURCE, "managedAuthentication": true, "ssl": false},
        "destination": {"groupId": profile.group_id, "clusterName": DESTINATION, "hostnameSchemaType": "PUBLIC"},
        "migrationHosts": [HOST],
        "dropDestinationData": given.ends.drop_destination_data,
        "replaceMigrations": given.ends.replaces,
    });
    let created: Value = client.call(Method::POST, &profile.own("liveMigrations"), Some(body)).await?;
    let id = created["id"].as_str().and_then(|id| id.parse().ok());
    id.ok_or_else(|| HttpError::Malformed("a created migration has no id".to_owned()).into())
}
