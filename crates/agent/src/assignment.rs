//! One piece of work under way: the engine, its reports, and the lease that it stands on.

use crate::{Agent, http::HttpError, source_uri};
use limosa_engine::{Claim, ControlHandle, EngineReport, Outcome, Settings};
use limosa_model::{
    Epoch, ErrorCode, Failure, MigrationId, PhaseKind, Secret, ValidationId,
    protocol::{
        ClusterFacts, Directive, MigrationAssignment, Report, ReportResponse, ValidationAssignment, ValidationReport,
    },
};
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{oneshot, watch},
    task::{JoinError, JoinHandle},
    time::MissedTickBehavior,
};
use tracing::Instrument;

/// How often it is reported where the engine is; a change of phase is reported at once.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// How long a server is asked whether a migration that was stopped is over.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Handle of a migration under way.
pub(crate) struct Running {
    pub id: MigrationId,
    orders: watch::Sender<Directive>,
    leaving: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(agent: Arc<Agent>, given: MigrationAssignment) -> Self {
        let first = if given.cancelled { Directive::Cancel { drop_copied: true } } else { Directive::Run };
        let orders = watch::Sender::new(first);
        let leaving = Arc::new(AtomicBool::new(false));
        let id = given.migration_id;
        // All that is logged of it names it.
        let span = tracing::info_span!("migration", %id, epoch = given.epoch.0);
        let task = tokio::spawn(run(agent, given, orders.clone(), Arc::clone(&leaving)).instrument(span));
        Self { id, orders, leaving, task }
    }

    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops the engine where it is and waits for it.
    pub async fn stop(self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.orders.send_replace(Directive::Pause);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that ran a migration ended");
        }
    }
}

/// Where reports of one migration go.
struct Reporter {
    agent: Arc<Agent>,
    id: MigrationId,
    epoch: Epoch,
    /// When the last report that got an answer was begun: the server counts the lease from later than that.
    renewed: Instant,
    /// What was seen of the destination, until a report with it was taken.
    destination: Option<ClusterFacts>,
}

impl Reporter {
    async fn send(&mut self, now: &EngineReport) -> Result<ReportResponse, HttpError> {
        let began = Instant::now();
        let path = format!("/{}/migrations/{}/report", self.agent.id, self.id);
        let EngineReport { phase, progress, failure, rehearsal, record, identities } = now.clone();
        let record = record.filter(|_| phase == PhaseKind::Complete).map(|record| *record);
        let destination = self.destination.clone();
        let report = Report { epoch: self.epoch, phase, progress, failure, rehearsal, destination, record, identities };
        let ordered: ReportResponse = self.agent.post(&path, &report).await?;
        self.destination = None;
        self.renewed = began;
        Ok(ordered)
    }

    fn lease_is_over(&self) -> bool {
        self.renewed.elapsed() >= self.agent.lease
    }
}

/// The engine at work on one migration.
struct Work {
    engine: JoinHandle<Outcome>,
    reports: watch::Receiver<EngineReport>,
    steering: ControlHandle,
    orders: watch::Sender<Directive>,
    /// The agent leaves: what the server orders counts no more.
    leaving: Arc<AtomicBool>,
    /// What was seen of the destination.
    facts: oneshot::Receiver<Option<ClusterFacts>>,
}

impl Work {
    fn start(
        agent: Arc<Agent>,
        given: MigrationAssignment,
        orders: watch::Sender<Directive>,
        leaving: Arc<AtomicBool>,
    ) -> Self {
        let (seen, facts) = oneshot::channel();
        // Beside the migration: nothing waits for what is only shown.
        if given.reversal_from.is_none() && may_write(&agent, &given.destination_uri).is_ok() {
            let uri = given.destination_uri.clone();
            let look = async move { seen.send(limosa_engine::facts(&uri).await.ok()) };
            tokio::spawn(look.in_current_span());
        }
        let (sender, reports) = watch::channel(EngineReport::begin());
        let steering = ControlHandle::default();
        let (steered, receiver) = (steering.clone(), orders.subscribe());
        let engine = async move {
            match settings(&agent, &given) {
                Ok(settings) => limosa_engine::run(Settings { steering: steered, ..settings }, receiver, sender).await,
                Err(failure) => Outcome::Failed(failure),
            }
        };
        Self { engine: tokio::spawn(engine.in_current_span()), reports, steering, orders, leaving, facts }
    }

    /// Reports where the engine is until it ends.
    async fn report(&mut self, reporter: &mut Reporter) -> Result<Outcome, JoinError> {
        let mut tick = tokio::time::interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<PhaseKind> = None;
        loop {
            tokio::select! {
                ended = &mut self.engine => return ended,
                _ = tick.tick() => {}
                _ = self.reports.wait_for(|now| told.is_some_and(|told| told != now.phase)) => {}
            }
            if let Ok(found) = self.facts.try_recv() {
                reporter.destination = found;
            }
            let now = self.reports.borrow().clone();
            match reporter.send(&now).await {
                Ok(ordered) => {
                    told = Some(now.phase);
                    self.obey(ordered);
                }
                Err(error) => {
                    tracing::warn!(%error, "the server did not take a report of the migration");
                    // A server that can't be asked gives the migration to nobody else, and whom it gives it to later raises
                    // the fences first: the work continues. A server that answers and refuses may have done so already.
                    if error.is_refusal() && reporter.lease_is_over() {
                        self.orders.send_replace(Directive::Stop);
                    }
                    // Not at once again, whatever changes.
                    tokio::time::sleep(REPORT_EVERY).await;
                }
            }
        }
    }

    fn obey(&self, ReportResponse { directive, wishes }: ReportResponse) {
        self.steering.set(wishes);
        if !self.leaving.load(Ordering::SeqCst) {
            self.orders.send_if_modified(|held| std::mem::replace(held, directive) != directive);
        }
    }
}

/// Runs a migration to its end, or until it is stopped.
async fn run(
    agent: Arc<Agent>,
    given: MigrationAssignment,
    orders: watch::Sender<Directive>,
    leaving: Arc<AtomicBool>,
) {
    tracing::info!("the agent takes the migration on");
    let (id, epoch, renewed) = (given.migration_id, given.epoch, Instant::now());
    let mut reporter = Reporter { agent: Arc::clone(&agent), id, epoch, renewed, destination: None };
    let mut work = Work::start(agent, given, orders, leaving);
    let outcome = work.report(&mut reporter).await;
    let last = work.reports.borrow().clone();
    let last = match outcome {
        Ok(Outcome::Complete) => EngineReport { phase: PhaseKind::Complete, failure: None, ..last },
        Ok(Outcome::Failed(failure)) => failed(last, failure),
        Ok(Outcome::Cancelled) => EngineReport { phase: PhaseKind::Cancelled, failure: None, ..last },
        Ok(Outcome::Stopped) => return report_stop(&mut reporter, &last).await,
        Err(error) => failed(last, Failure::new(ErrorCode::Internal, format!("the engine ended: {error}"))),
    };
    tracing::info!(phase = ?last.phase, failure = ?last.failure, "the migration's engine ended");
    report_end(&mut reporter, &last, &work.leaving).await;
}

/// The migration may be over meanwhile, cancelled or expired: nobody continues then from what is kept here.
async fn report_stop(reporter: &mut Reporter, last: &EngineReport) {
    tracing::info!("the migration's engine was stopped");
    let told = tokio::time::timeout(LAST_WORD, reporter.send(last)).await;
    if matches!(told, Ok(Ok(ReportResponse { directive: Directive::Cancel { .. }, .. }))) {
        limosa_engine::forget(&reporter.agent.config.data_dir, reporter.id).await;
    }
}

fn failed(last: EngineReport, failure: Failure) -> EngineReport {
    EngineReport { phase: PhaseKind::Failed, failure: Some(failure), ..last }
}

/// The end is told as soon as the server is there, however long that takes; if somebody else has got the migration
/// meanwhile, or the agent leaves, the agent that takes over finds it done and reports it.
async fn report_end(reporter: &mut Reporter, last: &EngineReport, leaving: &AtomicBool) {
    let mut pause = Duration::from_millis(200);
    while let Err(error) = reporter.send(last).await {
        if reporter.lease_is_over() && (error.is_refusal() || leaving.load(Ordering::SeqCst)) {
            tracing::warn!(%error, "the migration's end could not be reported");
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn settings(agent: &Agent, given: &MigrationAssignment) -> Result<Settings, Failure> {
    let (mut source_uri, mut destination_uri) =
        (source_uri(&agent.config, &given.source)?, given.destination_uri.clone());
    match given.reversal_from {
        // It writes to a source: that is for the engine to allow, by what this host and both clusters know.
        Some(_) => agent.config.bounds.destination(&destination_uri, &[])?,
        None => may_write(agent, &destination_uri)?,
    }
    let claim = claim(agent, given, &destination_uri);
    if given.reversal_from.is_some() {
        std::mem::swap(&mut source_uri, &mut destination_uri);
    }
    let filter = given.filter.within(&agent.config.filter).ok_or_else(|| {
        let message = "the agent's --include-ns leaves none of the namespaces that the migration is to carry";
        Failure::new(ErrorCode::ConfigurationInvalid, message)
    })?;
    Ok(Settings {
        migration_id: given.migration_id,
        epoch: given.epoch,
        agent_id: agent.id,
        source_uri,
        destination_uri,
        filter,
        drop_destination_data: given.drop_destination_data,
        recopies: given.recopies,
        data_dir: agent.config.data_dir.clone(),
        tuning: agent.config.tuning.clone(),
        steering: ControlHandle::default(),
        metrics: agent.metrics.clone(),
        reversal_from: given.reversal_from,
        claim,
    })
}

/// Whether the agent connects to a destination at all, and opens the files that its URI names.
fn may_write(agent: &Agent, uri: &Secret) -> Result<(), Failure> {
    agent.config.bounds.destination(uri, &agent.config.sources)
}

fn claim(agent: &Agent, given: &MigrationAssignment, destination_uri: &Secret) -> Claim {
    let bounds = &agent.config.bounds;
    let read_only = match bounds.names_all(destination_uri) {
        true => Vec::new(),
        false => agent.sources.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect(),
    };
    Claim {
        host: host(&agent.config.host_name),
        replaces: given.replaces.clone(),
        pinned: given.identities.clone(),
        read_only,
        allow_reverse: bounds.allow_reverse,
        reversal_of: given.reversal_of,
    }
}

/// How other hosts call this one.
fn host(name: &str) -> String {
    let own = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|text| text.trim().to_owned());
    if name == "localhost" { own().unwrap_or_else(|| name.to_owned()) } else { name.to_owned() }
}

/// Carries a preflight out and reports its findings until they are taken.
pub(crate) async fn validate(agent: Arc<Agent>, given: ValidationAssignment) {
    let id: ValidationId = given.validation_id;
    let assignment = MigrationAssignment {
        migration_id: MigrationId::generate(),
        epoch: Epoch(0),
        source: given.source,
        destination_uri: given.destination_uri,
        drop_destination_data: given.drop_destination_data,
        filter: given.filter,
        recopies: 0,
        reversal_from: None,
        reversal_of: None,
        cancelled: false,
        replaces: given.replaces,
        identities: None,
    };
    let destination = match may_write(&agent, &assignment.destination_uri) {
        Ok(()) => limosa_engine::facts(&assignment.destination_uri).await.ok(),
        Err(_) => None,
    };
    let findings = match settings(&agent, &assignment) {
        Ok(settings) => limosa_engine::preflight(&settings).await,
        Err(failure) => vec![failure.into()],
    };
    let path = format!("/{}/validations/{id}/report", agent.id);
    let report = ValidationReport { findings, destination };
    let mut pause = Duration::from_millis(200);
    for _ in 0..10 {
        match agent.post::<serde_json::Value>(&path, &report).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "the server did not take the result of the validation"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
