//! One run of a migration, from the connection to the cutover. Read from the top: [`Pipeline::start`] takes the destination
//! and begins to read the source's changes, [`Pipeline::attempt`] is all that writes to the destination.

use crate::{
    Settings,
    component::Component,
    copy::{batch_writer::CopyBatchWriter, worker::IN_FLIGHT},
    cutover::reverse,
    destination::{
        checkpoint::{Checkpoint, CheckpointStore, Stage},
        claims,
        collection_map::CollectionMap,
        fenced_session::FencedSession,
        fences,
    },
    failpoint, local_state,
    migration::{
        bootstrap::{self, Bootstrap},
        follow::{self, Back},
        initial_copy, load_monitor,
        meter::{self, Meter},
    },
    mongo::{calls, cluster::Cluster, incidents::Trouble},
    preflight::ownership,
    progress::ProgressTracker,
    replication::{
        batch::WORKERS,
        progress::StreamProgress,
        replicator::{Replicator, ReplicatorConfig},
        writer::Writer,
    },
    retry,
    source::{oplog_window, position::Position, reader::Reader, spool::Spool},
    throttle::Throttle,
    verify::{collection_pair::ClusterPair, online::Verifier},
};
use bson::Timestamp;
use limosa_model::{ErrorCode, Failure, PhaseKind, protocol::Directive};
use std::sync::{Arc, atomic::AtomicBool};
use tokio::sync::watch;
use tracing::Instrument;

/// Carries the migration out, from its checkpoint to its end. `claimed` is set once both clusters answered and the
/// destination is this migration's.
pub(crate) async fn run(
    settings: &Settings,
    orders: &mut watch::Receiver<Directive>,
    tracker: &ProgressTracker,
    claimed: &AtomicBool,
) -> Result<(), Failure> {
    let Some(begun) = Box::pin(bootstrap::bootstrap(settings, tracker, claimed)).await? else { return Ok(()) };
    let (pipeline, reader) = Box::pin(Pipeline::start(begun, tracker)).await?;
    pipeline.run(reader, orders).await
}

/// What a run has open.
struct Pipeline {
    settings: Settings,
    tracker: ProgressTracker,
    source: Cluster,
    destination: Cluster,
    store: CheckpointStore,
    /// One for each worker: those of change replication, then those of the copy.
    sessions: Vec<FencedSession>,
    /// Changes that are read and not yet applied.
    spool: Arc<Spool>,
    trouble: Trouble,
    verifier: Verifier,
    /// A write of the source that its majority had when the run began.
    seen: Option<Timestamp>,
    back: Back,
}

impl Pipeline {
    /// Raises the fences, and reads the stream from T0 on, or from where it was left, whatever else continues.
    async fn start(begun: Bootstrap, tracker: &ProgressTracker) -> Result<(Self, ReaderTask), Failure> {
        let Bootstrap { settings, source, destination, store, checkpoint } = begun;
        let seen = meter::same_history(&source, &checkpoint).await?;
        tracker.measure_again();
        let workers = WORKERS + Throttle::most_workers(settings.tuning.copy_workers) * IN_FLIGHT;
        let sessions = fences::take_over(&store, settings.agent_id, workers).await?;

        let dir = local_state::create_dir(local_state::spool(&settings))?;
        let (spool, position, token) = Spool::open(&dir, &checkpoint.position, &settings.tuning)?;
        let spool = Arc::new(spool);
        store.set_position(&position).await?;
        let trouble = Trouble::open(local_state::trouble(&settings))?;
        let reader = Reader {
            source: source.clone(),
            spool: Arc::clone(&spool),
            tracker: tracker.clone(),
            patience: settings.tuning.patience,
            t0: checkpoint.t0,
            trouble: trouble.clone(),
        };
        let reader = ReaderTask(tokio::spawn(reader.read(token).in_current_span()));

        let (ends, dir) = (
            ClusterPair::new(source.clone(), destination.clone()),
            local_state::create_dir(local_state::notes(&settings))?,
        );
        let (verifier, notes) = Verifier::open(ends, &dir, checkpoint.verifier.as_deref(), tracker, &settings.tuning)?;
        store.set_verifier(&notes).await?;
        let (tracker, back) = (tracker.clone(), Back::default());
        let pipeline =
            Self { settings, tracker, source, destination, store, sessions, spool, trouble, verifier, seen, back };
        Ok((pipeline, reader))
    }

    /// Replicates until the cutover, while the reader continues (the source's oplog doesn't wait) and others watch: over the
    /// claim, both clusters' answers, the oplog's window and what the clusters have to bear. The first that fails ends all.
    async fn run(self, mut reader: ReaderTask, orders: &mut watch::Receiver<Directive>) -> Result<(), Failure> {
        let (source, destination, spool, store, tracker) =
            (&self.source, &self.destination, &self.spool, &self.store, &self.tracker);
        let (heard, seen) = (orders.clone(), self.seen);
        let window = oplog_window::watch(source, spool, tracker, self.settings.tuning.oplog_look_every);
        let meter = Meter { source, destination, spool, store, tracker, orders: heard, seen };
        let silence = calls::tell_of_silence(source.calls(), destination.calls(), tracker);
        // Whatever reads the source goes slower while a cluster suffers: the copy, and the verifier after it.
        let throttle = self.settings.steering.throttle();
        let pressure = load_monitor::watch(source.clone(), destination.clone(), throttle, tracker.clone());
        tokio::select! {
            done = self.replicate(orders) => if let Err(failure) = done {
                return Err(match failure.code {
                    ErrorCode::Fenced => claims::why_fenced(store, failure).await,
                    _ => failure,
                });
            },
            lost = claims::watch(store) => return Err(lost),
            never = pressure => match never {},
            never = window => match never {},
            never = silence => match never {},
            changed = meter.watch() => return Err(changed),
            broken = &mut reader.0 => {
                let broken = broken.unwrap_or_else(|e| Failure::new(ErrorCode::Internal, format!("the reader ended: {e}")));
                let seen = tracker.with_lag(|lag, _| lag.majority()).or(seen);
                return Err(meter::explained(source, seen, broken).await);
            }
        }
        self.end(reader).await;
        Ok(())
    }

    /// All that writes to the destination, again from the checkpoint for as long as what failed can be fixed.
    async fn replicate(&self, orders: &mut watch::Receiver<Directive>) -> Result<(), Failure> {
        while let Err(failure) = Box::pin(self.attempt(orders)).await {
            if failure.code == ErrorCode::LocalStorage {
                return Err(failure);
            }
            if self.back.is_new() {
                continue;
            }
            follow::end_if_aborted(&self.tracker, &self.settings, *orders.borrow());
            retry::wait_until_fixed(Component::Applier, failure, &self.tracker, self.settings.tuning.patience).await?;
        }
        Ok(())
    }

    /// One go at it, from where the last one ended: collections and ranges, the data, the indexes, then the changes until
    /// the cutover.
    async fn attempt(&self, orders: &mut watch::Receiver<Directive>) -> Result<(), Failure> {
        let checkpoint = bootstrap::load(&self.store).await?;
        let position = self.spool.applied_to();
        self.trouble.begin(&self.destination).await?;
        let registry = self.plan(&checkpoint).await?;
        self.initial_copy(&checkpoint).await?;
        self.build_indexes(&checkpoint, &registry).await?;
        let mut replicator = self.replicator(&checkpoint, position, registry).await?;
        self.follow(&mut replicator, &checkpoint, orders).await?;
        ownership::complete(&self.settings, &self.source, &self.store, &self.tracker).await
    }

    /// Creates the collections and writes the copy's ranges down.
    async fn plan(&self, checkpoint: &Checkpoint) -> Result<CollectionMap, Failure> {
        let filter = &self.settings.filter;
        let mut registry = CollectionMap::load(&self.source, &self.destination, &self.store, filter).await?;
        if checkpoint.stage < Stage::Planned {
            initial_copy::plan(&self.source, &mut registry, &self.store).await?;
            failpoint::reach(failpoint::PLANNED, &self.store.id()).await;
            self.store.set_stage(Stage::Planned).await?;
        }
        Ok(registry)
    }

    /// Copies the ranges that aren't copied yet.
    async fn initial_copy(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let slots: Vec<CopyBatchWriter> = self.sessions.iter().skip(WORKERS).cloned().map(CopyBatchWriter).collect();
        let Self { settings, source, tracker, spool, store, .. } = self;
        initial_copy::copy(settings, source, tracker, spool, checkpoint, store, &slots).await?;
        if checkpoint.stage < Stage::Copied {
            failpoint::reach(failpoint::COPIED, &self.store.id()).await;
            self.store.set_stage(Stage::Copied).await?;
        }
        Ok(())
    }

    /// Builds the indexes; what is unique or expires waits for the cutover.
    async fn build_indexes(&self, checkpoint: &Checkpoint, registry: &CollectionMap) -> Result<(), Failure> {
        if checkpoint.stage < Stage::Indexed {
            initial_copy::build_indexes(&self.source, registry, &self.tracker, &self.settings).await?;
            self.store.set_stage(Stage::Indexed).await?;
        }
        Ok(())
    }

    /// Who applies changes from `position` on.
    async fn replicator(
        &self,
        checkpoint: &Checkpoint,
        position: Position,
        mut registry: CollectionMap,
    ) -> Result<Replicator, Failure> {
        // Whatever the copy, or an earlier run past its checkpoint, may have seen of the future lies before this.
        let (now, _) = self.source.optimes().await?;
        if self.settings.reversal_from.is_some() {
            self.verifier.allow_expiry(reverse::prepare(&self.destination, &mut registry).await?);
        }
        let writers = self.sessions.iter().take(WORKERS).map(|session| Writer {
            source: self.source.clone(),
            session: session.clone(),
            tracker: self.tracker.clone(),
            trouble: self.trouble.clone(),
            taken: Arc::default(),
        });
        let mut replicator = Replicator::new(ReplicatorConfig {
            registry,
            writers: writers.collect(),
            spool: Arc::clone(&self.spool),
            store: self.store.clone(),
            tracker: self.tracker.clone(),
            progress: StreamProgress::begin(position, now),
            intent: checkpoint.intent.clone(),
            verifier: self.verifier.clone(),
        });
        replicator.begin().await?;
        Ok(replicator)
    }

    /// Applies changes until a cutover succeeds.
    async fn follow(
        &self,
        replicator: &mut Replicator,
        checkpoint: &Checkpoint,
        orders: &mut watch::Receiver<Directive>,
    ) -> Result<(), Failure> {
        let Self { settings, tracker, source, back, .. } = self;
        if checkpoint.cutover.is_some() {
            // The last run died in it; it begins again.
            Box::pin(follow::roll_back_cutover(source, replicator, settings)).await?;
        }
        // Boxed, as the cutover is: what is below them is deep, and a thread's stack is small.
        Box::pin(follow::follow(source, replicator, orders, tracker, settings, back)).await?;
        failpoint::reach(failpoint::CUT_OVER, &self.store.id()).await;
        Ok(())
    }

    /// The migration is complete: nothing of it stays on this host.
    async fn end(self, reader: ReaderTask) {
        reader.end().await;
        let Self { settings, tracker, spool, verifier, .. } = self;
        drop((spool, verifier));
        local_state::remove(&settings.data_dir, settings.migration_id).await;
        tracker.enter_phase(PhaseKind::Complete, None);
    }
}

/// The reader ends with the migration, however that ends.
struct ReaderTask(tokio::task::JoinHandle<Failure>);

impl ReaderTask {
    /// Ends it, and waits until it holds nothing any more.
    async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for ReaderTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
