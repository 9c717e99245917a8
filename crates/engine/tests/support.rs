//! One migration under a test's control.

use limosa_engine::{EngineReport, Outcome, Settings};
use limosa_model::{AgentId, Epoch, MigrationId, NamespaceFilter, PhaseKind, Progress, Secret, protocol::Directive};
use limosa_testkit::ReplicaSet;
use std::time::Duration;
use tokio::{sync::watch, task::JoinHandle};

/// A running engine with its controls.
pub struct Run {
    orders: watch::Sender<Directive>,
    reports: watch::Receiver<EngineReport>,
    task: JoinHandle<Outcome>,
}

pub fn settings(source: &ReplicaSet, destination: &ReplicaSet, dir: &std::path::Path) -> Settings {
    Settings {
        migration_id: MigrationId::generate(),
        epoch: Epoch(1),
        agent_id: AgentId::generate(),
        source_uri: Secret::new(source.uri()),
        destination_uri: Secret::new(destination.uri()),
        filter: NamespaceFilter::default(),
        drop_destination_data: false,
        data_dir: dir.to_owned(),
    }
}

impl Run {
    pub fn start(settings: &Settings) -> Self {
        let (orders, given) = watch::channel(Directive::Run);
        let (sender, reports) =
            watch::channel(EngineReport { phase: PhaseKind::Preparing, progress: Progress::default(), failure: None });
        let task = tokio::spawn(limosa_engine::run(settings.clone(), given, sender));
        Self { orders, reports, task }
    }

    /// Waits until `phase` is reported; panics if the engine ends before.
    pub async fn reach(&mut self, phase: PhaseKind) -> EngineReport {
        self.see(phase, |_| true).await
    }

    /// The same, without a failure that is still told.
    pub async fn reach_quietly(&mut self, phase: PhaseKind) -> EngineReport {
        self.see(phase, |report| report.failure.is_none()).await
    }

    async fn see(&mut self, phase: PhaseKind, wanted: impl Fn(&EngineReport) -> bool) -> EngineReport {
        let (reports, task) = (&mut self.reports, &mut self.task);
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            tokio::select! {
                report = reports.wait_for(|r| r.phase == phase && wanted(r)) => report.expect("reports").clone(),
                ended = task => panic!("ended with {ended:?} before {phase:?}"),
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("never came to {phase:?}, is at {:?}", self.report()))
    }

    pub fn report(&self) -> EngineReport {
        self.reports.borrow().clone()
    }

    pub fn order(&self, directive: Directive) {
        self.orders.send_replace(directive);
    }

    pub async fn end(self) -> Outcome {
        tokio::time::timeout(Duration::from_secs(120), self.task).await.expect("ends in time").expect("doesn't panic")
    }

    /// The engine dies where it stands, as if the process had been killed.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn cut_over(mut self) -> Progress {
        self.reach(PhaseKind::Synced).await;
        self.order(Directive::CutOver);
        let reports = self.reports.clone();
        assert_eq!(self.end().await, Outcome::Complete);
        reports.borrow().progress.clone()
    }
}
