//! The data plane as a library: copies, replicates, verifies and cuts over one migration. It speaks to MongoDB and to
//! the local disk only; the program that embeds it passes orders in and gets reports out.

#[cfg(feature = "bench")]
pub mod bench;
mod component;
mod control;
mod copy;
mod cutover;
mod destination;
pub mod failpoint;
#[cfg(test)]
mod fuzz;
mod lag;
mod local_state;
mod metrics;
mod migration;
mod missing_indexes;
mod mongo;
mod pace;
mod preflight;
mod progress;
mod replication;
mod retry;
mod source;
mod throttle;
pub mod tuning;
mod verify;

pub use control::ControlHandle;
pub use metrics::Metrics;
pub use verify::compare_clusters::{VerifyOptions, VerifyProgress};

use limosa_model::{
    AgentId, Epoch, Failure, Finding, Identities, MigrationId, NamespaceFilter, PhaseKind, Progress, Secret,
    cutover::{CutoverTime, Rehearsal},
    protocol,
    report::Record,
};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

pub use tuning::Tuning;

/// Everything one migration needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which migration; the checkpoint on the destination is kept under it.
    pub migration_id: MigrationId,
    /// The lease's epoch: older holders are fenced out.
    pub epoch: Epoch,
    /// Who runs it.
    pub agent_id: AgentId,
    /// The cluster to read.
    pub source_uri: Secret,
    /// The cluster to write.
    pub destination_uri: Secret,
    /// Which namespaces.
    pub filter: NamespaceFilter,
    /// Drop the destination's user data before the copy.
    pub drop_destination_data: bool,
    /// How often the copy was asked for again; a higher number than the checkpoint has makes it again.
    pub recopies: i64,
    /// The agent's disk: spool and verifier's state live below it.
    pub data_dir: PathBuf,
    /// How fast, how much, how long.
    pub tuning: Tuning,
    /// What it is told while it runs.
    pub steering: ControlHandle,
    /// Where it counts; shared by all migrations of one process.
    pub metrics: Metrics,
    /// For a way back: nothing is copied, the destination is what the source was at this time.
    pub reversal_from: Option<CutoverTime>,
    /// Whose it is, and what it may write.
    pub claim: Claim,
}

/// What a migration's place on its destination is decided by.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The name of the host that runs it: the destination tells others who holds it.
    pub host: String,
    /// Migrations that write the same namespaces to the destination and are to be replaced by this one.
    pub replaces: Vec<MigrationId>,
    /// What both clusters were when it was claimed first, if the control plane knows; the data directory knows as well.
    pub pinned: Option<Identities>,
    /// `replicaSetId`s of clusters that are written by a reverse migration only.
    pub read_only: Vec<String>,
    /// Whether a reverse migration is carried out at all.
    pub allow_reverse: bool,
    /// The migration that a reverse migration leads back from.
    pub reversal_of: Option<MigrationId>,
}

/// Where the migration is; the newest one is what counts.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineReport {
    /// Where.
    pub phase: PhaseKind,
    /// How far.
    pub progress: Progress,
    /// Why a cutover went back to `Synced`.
    pub failure: Option<Failure>,
    /// What the newest rehearsal found.
    pub rehearsal: Option<Rehearsal>,
    /// Once complete: what its report is made of.
    pub record: Option<Box<Record>>,
    /// What both clusters are, once it was begun.
    pub identities: Option<Identities>,
}

impl EngineReport {
    /// Where every run begins.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            phase: PhaseKind::Preparing,
            progress: Progress::default(),
            failure: None,
            rehearsal: None,
            record: None,
            identities: None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Cut over: the destination is an exact image.
    Complete,
    /// An order to pause or stop was followed; a later run with the same id continues.
    Stopped,
    /// An order to cancel was carried out, with all that it asked to be removed.
    Cancelled,
    /// It can't continue; a later run with the same id does, once the cause is fixed.
    Failed(Failure),
}

/// Runs the migration from wherever it was until it is complete, stopped or failed. `orders` says what is wanted,
/// `reports` tells at least once a second where it is.
pub async fn run(
    settings: Settings,
    orders: watch::Receiver<protocol::Directive>,
    reports: watch::Sender<EngineReport>,
) -> Outcome {
    migration::supervisor::run(settings, orders, reports).await
}

/// Of which migrations something is kept below the data directory.
#[must_use]
pub fn kept_migrations(data_dir: &Path) -> Vec<MigrationId> {
    local_state::migrations(data_dir)
}

/// Removes what a run of this migration kept below its data directory. For one that nobody will continue with; a run that was
/// cancelled or is complete has done so itself.
pub async fn forget(data_dir: &Path, id: MigrationId) {
    local_state::remove(data_dir, id).await;
}

/// Everything to know before the migration starts; it can when none is an error. Writes nothing anywhere.
pub async fn preflight(settings: &Settings) -> Vec<Finding> {
    preflight::checks::preflight(settings).await
}

/// When a migration was completed, if both clusters, the options and the record on the destination are what they were then.
/// An error says what isn't. Writes nothing anywhere.
pub async fn completed(settings: &Settings) -> Result<String, Failure> {
    preflight::ownership::completed(settings).await
}

/// What an agent announces of a source deployment.
pub async fn describe(name: &str, source_uri: &Secret) -> Result<protocol::Deployment, Failure> {
    mongo::cluster::describe(name, source_uri).await
}

/// What there is to show of a destination: its version, its set's name and its members' addresses.
pub async fn facts(destination_uri: &Secret) -> Result<protocol::ClusterFacts, Failure> {
    mongo::cluster::facts(destination_uri).await
}

/// Compares two clusters document by document and definition by definition; writes nothing on either. An error means that
/// it could not be said whether they are equal.
pub async fn verify(
    options: &VerifyOptions,
    progress: &watch::Sender<VerifyProgress>,
) -> Result<limosa_model::verification::VerificationReport, Failure> {
    verify::compare_clusters::run(options, progress).await
}
