//! The data plane as a library: copies, replicates, verifies and cuts over one migration. It speaks to MongoDB and to
//! the local disk only; whoever embeds it passes orders in and gets reports out.

mod apply;
mod catalog;
mod checkpoint;
mod cluster;
mod copy;
mod cutover;
mod error;
mod indexes;
mod migration;
mod preflight;
mod progress;
mod raw;
mod replicate;
mod retry;
mod stream;

use limosa_model::{AgentId, Epoch, Failure, MigrationId, NamespaceFilter, PhaseKind, Progress, Secret, protocol};
use std::path::PathBuf;
use tokio::sync::watch;

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
    /// The agent's disk: spool and verifier's state live below it.
    pub data_dir: PathBuf,
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
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Cut over: the destination is an exact image.
    Complete,
    /// An order to pause, cancel or stop was followed; a later run with the same id goes on.
    Stopped,
    /// It can't go on by itself; a later run with the same id goes on once the cause is mended.
    Failed(Failure),
}

/// Runs the migration from wherever it was until it is complete, stopped or failed. `orders` says what is wanted,
/// `reports` tells at least once a second where it is.
pub async fn run(
    settings: Settings,
    orders: watch::Receiver<protocol::Directive>,
    reports: watch::Sender<EngineReport>,
) -> Outcome {
    migration::run(settings, orders, reports).await
}

/// Every reason why the migration can't start; empty when it can. Writes nothing anywhere.
pub async fn preflight(settings: &Settings) -> Vec<Failure> {
    preflight::preflight(settings).await
}

/// What an agent announces of a source deployment.
pub async fn describe(name: &str, source_uri: &Secret) -> Result<protocol::Deployment, Failure> {
    cluster::describe(name, source_uri).await
}
