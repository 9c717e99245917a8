//! The whole life of one migration.

use crate::{
    EngineReport, Outcome, Settings,
    component::Part,
    copy::{batch_writer::Slot, worker::IN_FLIGHT},
    cutover::{reverse, steps},
    destination::{
        checkpoint::{Stage, Store},
        claims::{self, Standing},
        collection_map::Registry,
        fences,
    },
    failpoint, local_state,
    migration::{
        cleanup,
        follow::{self, Back},
        initial_copy, load_monitor,
        meter::{self, Meter},
    },
    mongo::{calls, cluster::Cluster, incidents::Trouble, side::Side},
    preflight::ownership,
    progress::Tracker,
    replication::{
        batch::WORKERS,
        progress::StreamProgress,
        replicator::{Replicator, ReplicatorConfig},
        writer::Writer,
    },
    retry,
    source::{oplog_window, reader::Reader, spool::Spool},
    throttle::{Reads, Throttle},
    verify::{collection_pair::Ends, online::Verifier},
};
use limosa_model::{ErrorCode, Failure, PhaseKind, protocol::Directive};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// See [`crate::run`].
pub(crate) async fn run(
    settings: Settings,
    mut orders: watch::Receiver<Directive>,
    reports: watch::Sender<EngineReport>,
) -> Outcome {
    if let Err(wrong) = settings.tuning.validate() {
        return Outcome::Failed(Failure::new(ErrorCode::ConfigurationInvalid, wrong));
    }
    let tracker = Tracker::new(reports, settings.metrics.clone());
    let ticking = tokio::spawn({
        let tracker = tracker.clone();
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(500));
            loop {
                tick.tick().await;
                tracker.publish();
            }
        }
    });
    let mut stop = orders.clone();
    let ended = tokio::select! {
        ended = persist(&settings, &mut orders, &tracker) => Some(ended),
        _ = stop.wait_for(|order| matches!(order, Directive::Pause | Directive::Stop | Directive::Cancel { .. })) => None,
    };
    let outcome = match ended {
        None => Outcome::Stopped,
        Some(Ok(())) => Outcome::Complete,
        Some(Err(failure)) if failure.code == ErrorCode::Fenced => Outcome::Stopped,
        Some(Err(failure)) => {
            if failure.code == ErrorCode::DestinationTaken {
                claims::say_stopped(&settings).await;
            }
            Outcome::Failed(failure)
        }
    };
    if outcome != Outcome::Complete
        && matches!(tracker.phase(), PhaseKind::CuttingOver | PhaseKind::Finalizing)
        && let Err(failure) = follow::release_writes_after_the_end(&settings).await
    {
        tracing::error!(%failure, "whether the source's writes are still blocked is not known");
    }
    let outcome = match outcome {
        Outcome::Stopped => cleanup::carry_out(&settings, &mut stop, &tracker).await,
        Outcome::Complete | Outcome::Cancelled | Outcome::Failed(_) => outcome,
    };
    ticking.abort();
    tracker.publish();
    tracker.metrics.forget();
    outcome
}

/// Begins again from the checkpoint, as after a crash, when something failed that someone may fix. A migration that has
/// not begun yet doesn't wait: whoever asked for it is still there to be told.
async fn persist(
    settings: &Settings,
    orders: &mut watch::Receiver<Directive>,
    tracker: &Tracker,
) -> Result<(), Failure> {
    // Both clusters answered, and the destination is this migration's.
    let claimed = AtomicBool::new(false);
    loop {
        let failure = match Box::pin(migrate(settings, orders, tracker, &claimed)).await {
            // What a server can is asked again at every beginning.
            Err(changed) if changed.code == ErrorCode::CompatibilityChanged => {
                tracing::warn!(failure = %changed, "beginning again from the checkpoint");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(failure)
                if settings.epoch.0 > 1 || claimed.load(Ordering::Relaxed) || local_state::spool(settings).exists() =>
            {
                failure
            }
            ended => return ended,
        };
        end_if_aborted(tracker, settings, *orders.borrow());
        retry::hold(Part::Applier, failure, tracker, settings.tuning.patience).await?;
    }
}

/// A cutover that waits for the cause of a failure to go away ends on request too; what is left of it on the destination
/// is undone as soon as that can be reached.
fn end_if_aborted(tracker: &Tracker, settings: &Settings, order: Directive) {
    let phase = tracker.phase();
    if settings.steering.now().abort_cutover && matches!(phase, PhaseKind::CuttingOver | PhaseKind::Finalizing) {
        tracker.refuse_cutover();
        // How far behind it is by now nobody knows.
        tracker.enter(PhaseKind::CatchingUp, Some(steps::aborted()));
    } else if order != Directive::CutOver && tracker.has_refused() {
        tracker.forget_refusal();
    }
}

async fn migrate(
    settings: &Settings,
    orders: &mut watch::Receiver<Directive>,
    tracker: &Tracker,
    claimed: &AtomicBool,
) -> Result<(), Failure> {
    // Connect, and make sure that no one else works on this.
    let reads = Reads { from: settings.tuning.copy_reads, throttle: settings.steering.throttle() };
    let source = Cluster::connect(Side::Source, &settings.source_uri).await?.read_as(reads);
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    let destination = destination.held_by(settings.migration_id, settings.epoch.0);
    if let Some(failure) = crate::mongo::cluster::same_cluster(&source, &destination) {
        return Err(failure);
    }
    let store = Store::new(&destination, settings.migration_id, settings.epoch);
    let settings = &ownership::with_what_is_known(settings)?;
    ownership::allowed(settings, &destination)?;
    if let Some(from) = settings.reversal_from
        && store.load().await?.is_none()
    {
        reverse::prove(settings, &source, &destination, from).await?;
        reverse::let_writes_in(&destination).await;
    }
    let standing = Box::pin(claims::take(settings, &source, &destination, &store)).await?;
    if let Standing::Complete(claim) = standing {
        return ownership::complete_already(settings, &store, &claim, tracker).await;
    }
    claimed.store(true, Ordering::Relaxed);
    let checkpoint = match Box::pin(initial_copy::begin(settings, &source, &destination, &store)).await {
        Ok(checkpoint) => checkpoint,
        Err(failure) => {
            if matches!(standing, Standing::Begins) && !failure.code.is_operator_fixable() {
                claims::release(&store).await?;
            }
            return Err(failure);
        }
    };
    ownership::note(settings, &source, &destination, tracker)?;
    let seen = meter::same_history(&source, &checkpoint).await?;
    tracker.measure_again();
    let workers = WORKERS + Throttle::most_workers(settings.tuning.copy_workers) * IN_FLIGHT;
    let sessions = fences::take_over(&store, settings.agent_id, workers).await?;

    // Read the stream from T0, or from where it was left, whatever else continues.
    let dir = local_state::make(local_state::spool(settings))?;
    let (spool, position, token) = Spool::open(&dir, &checkpoint.position, &settings.tuning)?;
    let spool = Arc::new(spool);
    store.set_position(&position).await?;
    let trouble = Trouble::open(local_state::trouble(settings))?;
    let reader = Reader {
        source: source.clone(),
        spool: Arc::clone(&spool),
        tracker: tracker.clone(),
        patience: settings.tuning.patience,
        t0: checkpoint.t0,
        trouble: trouble.clone(),
    };
    let mut reading = ReaderTask(tokio::spawn(reader.read(token)));

    let ends = Ends::new(source.clone(), destination.clone());
    let notes = local_state::make(local_state::notes(settings))?;
    let (verifier, notes) = Verifier::open(ends, &notes, checkpoint.verifier.as_deref(), tracker, &settings.tuning)?;
    store.set_verifier(&notes).await?;

    let heard = orders.clone();
    let back = Back::default();
    // One go at everything that writes to the destination, from where the last one ended.
    let mut replicate = async || -> Result<(), Failure> {
        let checkpoint = initial_copy::load(&store).await?;
        let position = spool.applied_to();
        trouble.begin(&destination).await?;
        // Collections and ranges, the data, the indexes.
        let mut registry = Registry::load(&source, &destination, &store, &settings.filter).await?;
        if checkpoint.stage < Stage::Planned {
            initial_copy::plan(&source, &mut registry, &store).await?;
            failpoint::reach(failpoint::PLANNED, &store.id()).await;
            store.set_stage(Stage::Planned).await?;
        }
        let slots: Vec<Slot> = sessions.iter().skip(WORKERS).cloned().map(Slot).collect();
        initial_copy::copy(settings, &source, tracker, &spool, &checkpoint, &store, &slots).await?;
        if checkpoint.stage < Stage::Copied {
            failpoint::reach(failpoint::COPIED, &store.id()).await;
            store.set_stage(Stage::Copied).await?;
        }
        if checkpoint.stage < Stage::Indexed {
            initial_copy::build_indexes(&source, &registry, tracker, settings).await?;
            store.set_stage(Stage::Indexed).await?;
        }
        // Whatever the copy, or an earlier run past its checkpoint, may have seen of the future lies before this.
        let (now, _) = source.optimes().await?;
        if settings.reversal_from.is_some() {
            verifier.excuse(reverse::prepare(&destination, &mut registry).await?);
        }
        let writers = sessions.iter().take(WORKERS).map(|session| Writer {
            source: source.clone(),
            session: session.clone(),
            tracker: tracker.clone(),
            trouble: trouble.clone(),
            taken: Arc::default(),
        });
        let mut replicator = Replicator::new(ReplicatorConfig {
            registry,
            writers: writers.collect(),
            spool: Arc::clone(&spool),
            store: store.clone(),
            tracker: tracker.clone(),
            progress: StreamProgress::begin(position, now),
            intent: checkpoint.intent.clone(),
            verifier: verifier.clone(),
        });
        replicator.begin().await?;
        if checkpoint.cutover.is_some() {
            // The last run died in it; it begins again.
            Box::pin(follow::take_back(&source, &replicator, settings)).await?;
        }
        // Boxed, as the cutover is: what is below them is deep, and a thread's stack is small.
        Box::pin(follow::follow(&source, &mut replicator, orders, tracker, settings, &back)).await?;
        failpoint::reach(failpoint::CUT_OVER, &store.id()).await;
        ownership::complete(settings, &source, &store, tracker).await
    };
    // The reader continues meanwhile: the source's oplog doesn't wait.
    let replicate = async {
        while let Err(failure) = replicate().await {
            if failure.code == ErrorCode::LocalStorage {
                return Err(failure);
            }
            if back.is_new() {
                continue;
            }
            end_if_aborted(tracker, settings, *heard.borrow());
            retry::hold(Part::Applier, failure, tracker, settings.tuning.patience).await?;
        }
        Ok(())
    };
    let watching = oplog_window::watch(&source, &spool, tracker, settings.tuning.oplog_look_every);
    let meter = Meter {
        source: &source,
        destination: &destination,
        spool: &spool,
        store: &store,
        tracker,
        orders: heard.clone(),
        seen,
    };
    let silence = calls::tell_of_silence(source.calls(), destination.calls(), tracker);
    // Whatever reads the source goes slower while a cluster suffers: the copy, and the verifier after it.
    let throttle = settings.steering.throttle();
    let pressure = load_monitor::watch(source.clone(), destination.clone(), throttle, tracker.clone());
    tokio::select! {
        done = replicate => if let Err(failure) = done {
            return Err(match failure.code {
                ErrorCode::Fenced => claims::why_fenced(&store, failure).await,
                _ => failure,
            });
        },
        lost = claims::watch(&store) => return Err(lost),
        never = pressure => match never {},
        never = watching => match never {},
        never = silence => match never {},
        changed = meter.watch() => return Err(changed),
        broken = &mut reading.0 => {
            let broken = broken.unwrap_or_else(|e| Failure::new(ErrorCode::Internal, format!("the reader ended: {e}")));
            let seen = tracker.with_lag(|lag, _| lag.majority()).or(seen);
            return Err(meter::explained(&source, seen, broken).await);
        }
    }
    reading.end().await;
    drop((spool, verifier));
    local_state::forget(&settings.data_dir, settings.migration_id).await;
    tracker.enter(PhaseKind::Complete, None);
    Ok(())
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
