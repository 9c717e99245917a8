//! One migration under a test's control.

use bson::{Bson, doc};
use limosa_engine::{EngineReport, Metrics, Outcome, Settings};
use limosa_model::{
    AgentId, Epoch, Failure, MigrationId, NamespaceFilter, PhaseKind, Progress, Secret, cutover::Rehearsal,
    protocol::Directive,
};
use limosa_testkit::ReplicaSet;
use mongodb::Client;
use std::time::Duration;
use tokio::{sync::watch, task::JoinHandle};

/// A running engine with its controls.
pub struct Run {
    orders: watch::Sender<Directive>,
    reports: watch::Receiver<EngineReport>,
    task: JoinHandle<Outcome>,
}

/// Two clusters, and what speaks to each.
pub struct Pair {
    pub source: ReplicaSet,
    pub destination: ReplicaSet,
    pub from: Client,
    pub to: Client,
}

impl Pair {
    pub async fn start() -> Self {
        let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
        let (source, destination) = (source.expect("starts"), destination.expect("starts"));
        let (from, to) = (source.client().await, destination.client().await);
        Self { source, destination, from, to }
    }
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
        recopies: 0,
        data_dir: dir.to_owned(),
        tuning: limosa_engine::Tuning::default(),
        steering: limosa_engine::ControlHandle::default(),
        metrics: limosa_engine::Metrics::default(),
        reversal_from: None,
        claim: limosa_engine::Claim { allow_reverse: true, ..limosa_engine::Claim::default() },
    }
}

/// Makes reads of one collection wait on the source: a copy that reads it first gets no document. Whatever else reads
/// there continues; were it all held, a rename could wait for a read of the copy that waits for the test.
pub async fn hold_reads(source: &Client, namespace: &str, hold: bool) {
    let mode = if hold { "alwaysOn" } else { "off" };
    let command = doc! {"configureFailPoint": "waitInFindBeforeMakingBatch", "mode": mode, "data": {"nss": namespace}};
    source.database("admin").run_command(command).await.expect("the server has this failpoint");
}

impl Run {
    pub fn start(settings: &Settings) -> Self {
        // `LIMOSA_LOG=limosa_engine=debug` shows what the engine does.
        let filter = tracing_subscriber::EnvFilter::from_env("LIMOSA_LOG");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (orders, given) = watch::channel(Directive::Run);
        let (sender, reports) = watch::channel(EngineReport::begin());
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

    /// The same; how it ended if it ended before.
    pub async fn reach_or_end(&mut self, phase: PhaseKind) -> Option<Outcome> {
        let (reports, task) = (&mut self.reports, &mut self.task);
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            tokio::select! {
                biased;
                ended = task => Some(ended.expect("doesn't panic")),
                reached = reports.wait_for(|r| r.phase == phase) => reached.map(|_| ()).map_or(None, |()| None),
            }
        });
        waited.await.expect("comes to one of both")
    }

    async fn see(&mut self, phase: PhaseKind, wanted: impl Fn(&EngineReport) -> bool) -> EngineReport {
        self.wait_until(|report| report.phase == phase && wanted(report)).await
    }

    /// Waits for a report for which `wanted` holds; panics if the engine ends before.
    pub async fn wait_until(&mut self, wanted: impl Fn(&EngineReport) -> bool) -> EngineReport {
        let (reports, task) = (&mut self.reports, &mut self.task);
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            tokio::select! {
                report = reports.wait_for(|r| wanted(r)) => report.expect("reports").clone(),
                ended = task => panic!("ended with {ended:?} before what was waited for"),
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("never came to what was waited for, is at {:?}", self.report()))
    }

    /// Waits until the counters are as `wanted`.
    pub async fn count(&mut self, wanted: impl Fn(&Progress) -> bool) -> Progress {
        let (reports, task) = (&mut self.reports, &mut self.task);
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            tokio::select! {
                report = reports.wait_for(|r| wanted(&r.progress)) => report.expect("reports").progress.clone(),
                ended = task => panic!("ended with {ended:?} before"),
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("it never came to that, is at {:?}", self.report()))
    }

    /// Orders a cutover that doesn't complete, and waits until the migration is ready again; why it didn't.
    pub async fn cut_over_in_vain(&mut self) -> Failure {
        self.order(Directive::CutOver);
        let back = self.wait_until(|r| r.phase == PhaseKind::Synced && r.failure.is_some()).await;
        back.failure.expect("says why")
    }

    /// Waits for the result of a rehearsal.
    pub async fn rehearsed(&mut self, number: u32) -> Rehearsal {
        let wanted = |report: &EngineReport| report.rehearsal.as_ref().is_some_and(|r| r.number == number);
        let (reports, task) = (&mut self.reports, &mut self.task);
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                report = reports.wait_for(wanted) => report.expect("reports").rehearsal.clone().expect("is there"),
                ended = task => panic!("ended with {ended:?} before"),
            }
        });
        waited.await.expect("comes in time")
    }

    /// Waits until the engine ends, or for a report for which `wanted` holds.
    pub async fn end_or(&mut self, wanted: impl Fn(&EngineReport) -> bool) -> Result<Outcome, Box<EngineReport>> {
        let (reports, task) = (&mut self.reports, &mut self.task);
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            tokio::select! {
                ended = task => Ok(ended.expect("doesn't panic")),
                Ok(report) = reports.wait_for(|r| wanted(r)) => Err(Box::new(report.clone())),
            }
        });
        waited.await.unwrap_or_else(|_| panic!("neither ended nor came to what was waited for: {:?}", self.report()))
    }

    pub fn report(&self) -> EngineReport {
        self.reports.borrow().clone()
    }

    /// What is reported, also after the end.
    pub fn reports(&self) -> watch::Receiver<EngineReport> {
        self.reports.clone()
    }

    pub fn order(&self, directive: Directive) {
        self.orders.send_replace(directive);
    }

    pub async fn end(self) -> Outcome {
        tokio::time::timeout(Duration::from_secs(120), self.task).await.expect("ends in time").expect("doesn't panic")
    }

    /// The same for one that is waited for no more.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// The engine dies where it stands, as if the process had been killed.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn cut_over(self) -> Progress {
        self.cut_over_and_tell().await.progress
    }

    /// The same, with the whole last report.
    pub async fn cut_over_and_tell(mut self) -> EngineReport {
        self.reach(PhaseKind::Synced).await;
        self.order(Directive::CutOver);
        let mut reports = self.reports.clone();
        let refused = tokio::spawn(async move { reports.wait_for(|r| r.failure.is_some()).await.map(|r| r.clone()) });
        let reports = self.reports.clone();
        tokio::select! {
            outcome = self.end() => assert_eq!(outcome, Outcome::Complete),
            Ok(Ok(report)) = refused => panic!("the cutover was refused: {:?}", report.failure),
        }
        reports.borrow().clone()
    }
}

/// Makes the next commands of Limosa on `client`'s server answer as `data` says, `mode` naming which of them; see the
/// server's own `failCommand`.
pub async fn fail_command(client: &Client, mode: impl Into<bson::Bson>, data: bson::Document) {
    let mut own = doc! {"appName": "limosa"};
    own.extend(data);
    let command = doc! {"configureFailPoint": "failCommand", "mode": mode.into(), "data": own};
    client.database("admin").run_command(command).await.expect("the server has this failpoint");
}

/// The indexes of a collection, as the server lists them.
pub async fn indexes_of(client: &Client, db: &str, coll: &str) -> Vec<bson::Document> {
    let listed = client.database(db).run_command(doc! {"listIndexes": coll}).await.expect("lists");
    let batch = listed.get_document("cursor").expect("is there").get_array("firstBatch").expect("is there").clone();
    batch.into_iter().filter_map(|index| index.as_document().cloned()).collect()
}

/// Their names.
pub async fn index_names(client: &Client, db: &str, coll: &str) -> Vec<String> {
    let all = indexes_of(client, db, coll).await;
    all.iter().map(|index| index.get_str("name").expect("has a name").to_owned()).collect()
}

/// A number of the server's own, such as `["document", "returned"]`: the metric at this path, 0 where it isn't counted yet.
pub async fn metric(client: &Client, path: &[&str]) -> i64 {
    let status = client.database("admin").run_command(doc! {"serverStatus": 1}).await.expect("answers");
    let metrics = Bson::from(status.get_document("metrics").expect("counts").clone());
    let found = path.iter().try_fold(&metrics, |inner, name| inner.as_document().and_then(|inner| inner.get(name)));
    found.and_then(Bson::as_i64).unwrap_or(0)
}

/// What Prometheus reads of an engine.
pub fn scraped(metrics: &Metrics) -> String {
    let mut registry = prometheus_client::registry::Registry::with_prefix("limosa_engine");
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
    text
}

/// Waits until `state` holds.
pub async fn until(what: &str, mut state: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !state().await {
        assert!(began.elapsed() < Duration::from_secs(100), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
