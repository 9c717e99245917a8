//! The whole life of one migration.

use crate::{
    EngineReport, Outcome, Settings,
    apply::{registry::Registry, writer::Writer},
    catalog::{self, Kind},
    checkpoint::{Checkpoint, Stage, Store},
    cluster::{Cluster, Side},
    copy::{
        plan::{self, CopyRange},
        worker::Copier,
    },
    cutover::{self, NotCutOver},
    indexes::{self, Properties},
    preflight,
    progress::Tracker,
    replicate::{Replicator, WORKERS},
    stream::{reader, spool::Spool},
};
use bson::Timestamp;
use limosa_model::{ErrorCode, Failure, PhaseKind, protocol::Directive};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Collections copied side by side; more than the destination's cores gains nothing (measured).
const COPY_WORKERS: usize = 2;

/// With this little lag a migration counts as synced.
const SYNCED_LAG_SECONDS: i64 = 2;

/// See [`crate::run`].
pub(crate) async fn run(
    settings: Settings,
    mut orders: watch::Receiver<Directive>,
    reports: watch::Sender<EngineReport>,
) -> Outcome {
    let tracker = Tracker::new(reports);
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
    let outcome = tokio::select! {
        ended = migrate(&settings, &mut orders, &tracker) => match ended {
            Ok(()) => Outcome::Complete,
            Err(failure) if failure.code == ErrorCode::Fenced => Outcome::Stopped,
            Err(failure) => Outcome::Failed(failure),
        },
        _ = stop.wait_for(|order| matches!(order, Directive::Pause | Directive::Stop | Directive::Cancel { .. })) => Outcome::Stopped,
    };
    ticking.abort();
    let cancelled = matches!(*stop.borrow(), Directive::Cancel { drop_copied: true });
    if cancelled
        && outcome == Outcome::Stopped
        && let Err(failure) = remove_copied(&settings).await
    {
        return Outcome::Failed(failure);
    }
    tracker.publish();
    outcome
}

async fn migrate(
    settings: &Settings,
    orders: &mut watch::Receiver<Directive>,
    tracker: &Tracker,
) -> Result<(), Failure> {
    // Connect, and make sure that no one else works on this.
    let source = Cluster::connect(Side::Source, &settings.source_uri).await?;
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    if let Some(failure) = preflight::same_cluster(&source, &destination) {
        return Err(failure);
    }
    let store = Store::new(&destination, settings.migration_id, settings.epoch);
    let checkpoint = begin(settings, &source, &destination, &store).await?;
    let sessions = store.take_over(settings.agent_id, WORKERS).await?;

    // Read the stream from T0, or from where it was left, whatever else goes on.
    let dir = settings.data_dir.join("spool").join(settings.migration_id.to_string());
    std::fs::create_dir_all(&dir)
        .map_err(|e| Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", dir.display())))?;
    let (spool, position, token) = Spool::open(&dir, &checkpoint.position)?;
    let spool = Arc::new(spool);
    store.set_position(&position).await?;
    let mut reading = ReaderTask(tokio::spawn(reader::read(source.clone(), Arc::clone(&spool), checkpoint.t0, token)));

    let replicate = async {
        // Collections and ranges, the data, the indexes.
        let mut registry = Registry::load(&source, &destination, &store, &settings.filter).await?;
        if checkpoint.stage < Stage::Planned {
            plan(&source, &mut registry, &store).await?;
            store.set_stage(Stage::Planned).await?;
        }
        copy(&source, &destination, &store, tracker, &spool, checkpoint.stage).await?;
        if checkpoint.stage < Stage::Copied {
            store.set_stage(Stage::Copied).await?;
        }
        if checkpoint.stage < Stage::Indexed {
            build_indexes(&source, &registry, tracker, settings).await?;
            store.set_stage(Stage::Indexed).await?;
        }
        // Whatever the copy, or an earlier run past its checkpoint, may have seen of the future lies before this.
        let (convergence, _) = source.optimes().await?;
        let writers = sessions.into_iter().enumerate().map(|(worker, session)| Writer {
            source: source.clone(),
            destination: destination.clone(),
            store: store.clone(),
            tracker: tracker.clone(),
            worker,
            session: Arc::new(tokio::sync::Mutex::new(session)),
        });
        let mut replicator = Replicator {
            registry,
            writers: writers.collect(),
            spool: Arc::clone(&spool),
            store: store.clone(),
            tracker: tracker.clone(),
            position,
            intent: checkpoint.intent.clone(),
            watermark: Timestamp { time: 0, increment: 0 },
            convergence,
            last_change: None,
            checkpointed: Instant::now(),
        };
        spool.set_live();
        follow(&source, &mut replicator, orders, tracker, settings).await?;
        store.set_stage(Stage::Complete).await
    };
    tokio::select! {
        done = replicate => done?,
        broken = &mut reading.0 => {
            return Err(broken.unwrap_or_else(|e| Failure::new(ErrorCode::Internal, format!("the reader ended: {e}"))));
        }
    }
    drop(reading);
    // Nothing reads it any more, and a leftover costs only disk.
    let _ = std::fs::remove_dir_all(&dir);
    tracker.enter(PhaseKind::Complete, None);
    Ok(())
}

/// The reader ends with the migration, however that ends.
struct ReaderTask(tokio::task::JoinHandle<Failure>);

impl Drop for ReaderTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stored checkpoint, or the first one: T0 is noted before anything is copied.
async fn begin(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
    store: &Store,
) -> Result<Checkpoint, Failure> {
    let filter = bson::serialize_to_document(&settings.filter).unwrap_or_default();
    if let Some(found) = store.load().await? {
        if found.filter != filter {
            return Err(Failure::new(
                ErrorCode::ConfigurationChanged,
                "the namespaces to migrate are not those it began with",
            ));
        }
        return Ok(found);
    }
    if settings.drop_destination_data {
        for entry in catalog::list(destination, &settings.filter).await? {
            if !entry.ns.coll.starts_with(catalog::BUCKETS) {
                cutover::drop_namespace(destination, &entry.ns).await?;
            }
        }
    } else if let Some(present) = catalog::list(destination, &settings.filter).await?.first() {
        return Err(Failure::new(
            ErrorCode::DestinationNotEmpty,
            format!("the destination already has {}", present.ns),
        ));
    }
    let (_, t0) = source.optimes().await?;
    store.begin(t0, filter).await?;
    store
        .load()
        .await?
        .ok_or_else(|| Failure::new(ErrorCode::Internal, "the checkpoint was not kept by the destination"))
}

/// Creates all collections and writes the copy's ranges down.
async fn plan(source: &Cluster, registry: &mut Registry, store: &Store) -> Result<(), Failure> {
    store.clear_plan().await?;
    let filter = registry.filter().clone();
    let entries = catalog::list(source, &filter).await?;
    for series in entries.iter().filter(|e| e.kind == Kind::TimeSeries) {
        catalog::create(registry.destination(), &series.ns, &series.options).await?;
    }
    let mut ranges: Vec<CopyRange> = Vec::new();
    for entry in entries.iter().filter(|e| e.has_documents()) {
        registry.create(entry, &entry.ns).await?;
        let size = plan::size(source, &entry.ns).await?;
        let mut own = plan::ranges(source, entry, size, ranges.len() as i64).await?;
        let share = own.len() as i64;
        for range in &mut own {
            (range.documents, range.bytes) = ((size.documents / share) as u64, (size.bytes / share) as u64);
        }
        ranges.extend(own);
    }
    let documents = ranges.iter().map(|range| {
        let mut document = range.to_document();
        document.insert("documents", range.documents as i64);
        document.insert("bytes", range.bytes as i64);
        document
    });
    store.plan(documents.collect()).await
}

async fn copy(
    source: &Cluster,
    destination: &Cluster,
    store: &Store,
    tracker: &Tracker,
    spool: &Spool,
    stage: Stage,
) -> Result<(), Failure> {
    let ranges = store.ranges().await?.iter().map(CopyRange::from_document).collect::<Result<Vec<_>, _>>()?;
    let collections = |only_done: bool| {
        let mut names: Vec<_> = ranges.iter().filter(|r| !only_done || r.done).map(|r| &r.ns).collect();
        names.dedup();
        names.len() as u64
    };
    tracker.count(|p| {
        p.collections_total = collections(false);
        p.documents_total = ranges.iter().map(|r| r.documents).sum();
        p.bytes_total = ranges.iter().map(|r| r.bytes).sum();
        p.documents_copied = ranges.iter().filter(|r| r.done).map(|r| r.documents).sum();
        p.bytes_copied = ranges.iter().filter(|r| r.done).map(|r| r.bytes).sum();
        p.spool_bytes = spool.bytes();
    });
    if stage < Stage::Copied {
        tracker.enter(PhaseKind::Copying, None);
        let copier = Copier {
            source: source.clone(),
            destination: destination.clone(),
            store: store.clone(),
            tracker: tracker.clone(),
        };
        copier.run(ranges.clone(), COPY_WORKERS).await?;
    }
    tracker.count(|p| p.collections_copied = p.collections_total);
    spool.sync()
}

async fn build_indexes(
    source: &Cluster,
    registry: &Registry,
    tracker: &Tracker,
    settings: &Settings,
) -> Result<(), Failure> {
    tracker.enter(PhaseKind::BuildingIndexes, None);
    for entry in catalog::list(source, &settings.filter).await? {
        let present = entry.kind == Kind::TimeSeries || registry.by_name(&entry.ns).is_some();
        if entry.kind == Kind::View || entry.ns.coll.starts_with(catalog::BUCKETS) || !present {
            continue;
        }
        let total = indexes::list(source, &entry.ns).await?.len() as u64;
        tracker.count(|p| p.indexes_total += total);
        indexes::sync(source, &entry.ns, registry.destination(), &entry.ns, Properties::Deferred).await?;
        tracker.count(|p| p.indexes_built += total);
    }
    Ok(())
}

/// Applies changes until a cutover succeeds.
async fn follow(
    source: &Cluster,
    replicator: &mut Replicator,
    orders: &mut watch::Receiver<Directive>,
    tracker: &Tracker,
    settings: &Settings,
) -> Result<(), Failure> {
    tracker.enter(PhaseKind::CatchingUp, None);
    let mut measured = Instant::now();
    // A refused cutover isn't tried again until the order has been taken back once.
    let mut refused = false;
    let copied = replicator.convergence;
    loop {
        replicator.step().await?;
        if measured.elapsed() >= Duration::from_millis(500) {
            measured = Instant::now();
            let (_, majority) = source.optimes().await?;
            let lag = i64::from(majority.time.saturating_sub(replicator.watermark.time));
            let spooled = replicator.spool.bytes();
            tracker.count(|p| {
                p.lag_seconds = Some(lag);
                p.spool_bytes = spooled;
            });
            if tracker.phase() == PhaseKind::CatchingUp
                && replicator.watermark >= copied
                && behind(replicator) <= SYNCED_LAG_SECONDS
                && lag <= SYNCED_LAG_SECONDS
            {
                replicator.checkpoint().await?;
                tracker.enter(PhaseKind::Synced, None);
            }
        }
        let order = *orders.borrow();
        if refused && order != Directive::CutOver {
            refused = false;
            tracker.enter(PhaseKind::Synced, None);
        }
        if order == Directive::CutOver && !refused && tracker.phase() == PhaseKind::Synced {
            match cutover::cut_over(replicator, tracker, &settings.filter).await {
                Ok(()) => return Ok(()),
                Err(NotCutOver::Failed(failure)) => return Err(failure),
                Err(NotCutOver::BackToSynced(failure)) => {
                    refused = true;
                    restore_deferred(source, replicator, settings).await?;
                    tracker.enter(PhaseKind::Synced, Some(failure));
                }
            }
        }
    }
}

/// Seconds until the destination is an exact image. Re-fetches under load keep moving that point, so `Synced` asks only
/// that it is near; the cutover waits until it is reached.
fn behind(replicator: &Replicator) -> i64 {
    i64::from(replicator.convergence.time.saturating_sub(replicator.watermark.time))
}

/// After a cutover that failed, what it made final is put off again, where it was made final.
async fn restore_deferred(source: &Cluster, replicator: &Replicator, settings: &Settings) -> Result<(), Failure> {
    let destination = replicator.registry.destination();
    for entry in catalog::list(source, &settings.filter).await? {
        if entry.kind != Kind::View && !entry.ns.coll.starts_with(catalog::BUCKETS) {
            indexes::sync(source, &entry.ns, destination, &entry.ns, Properties::Deferred).await?;
        }
    }
    Ok(())
}

/// Drops what this migration created on the destination.
async fn remove_copied(settings: &Settings) -> Result<(), Failure> {
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    let store = Store::new(&destination, settings.migration_id, settings.epoch);
    let mapped: Vec<_> = store.mapped().await?.into_values().collect();
    for entry in catalog::list(&destination, &settings.filter).await? {
        if entry.uuid.is_some_and(|uuid| mapped.contains(&uuid)) {
            let name = entry.ns.coll.strip_prefix(catalog::BUCKETS).unwrap_or(&entry.ns.coll).to_owned();
            cutover::drop_namespace(&destination, &limosa_model::Namespace::new(&entry.ns.db, name)).await?;
        }
    }
    Ok(())
}
