//! The whole life of one migration.

use crate::{
    EngineReport, Outcome, Settings,
    apply::{lanes::Lanes, registry::Registry, series, trouble::Trouble, window::WORKERS, writer::Writer},
    call, cancel,
    catalog::{self, Entry, Kind},
    checkpoint::{Checkpoint, Stage, Store},
    claims::{self, Standing},
    cluster::{Cluster, Side},
    copy::{
        plan::{self, CopyRange},
        recopy,
        slot::Slot,
        worker::{Copier, IN_FLIGHT},
    },
    cutover::{self, NotCutOver},
    expiry, failpoint,
    indexes::{self, Properties},
    kept,
    late_writes::{LateWrites, Recent},
    left_behind,
    meter::{self, Meter},
    oplog, ownership, preflight, pressure,
    progress::{Part, Tracker},
    record,
    rehearse::Stage as RehearsalStage,
    replicate::Replicator,
    retry, reversal,
    stream::{reader::Reader, spool::Spool},
    throttle::{Reads, Throttle},
    upkeep::Upkeep,
    verify::{beside::Verifier, metadata::SIDE_BY_SIDE, scan::Ends},
};
use bson::Timestamp;
use futures::{StreamExt, TryStreamExt};
use limosa_model::{ErrorCode, Failure, Namespace, NamespaceProgress, PhaseKind, protocol::Directive};
use mongodb::ClientSession;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, watch};

/// With this little lag a migration counts as synced.
const SYNCED_LAG_SECONDS: i64 = 2;

/// Whoever has to go through no more than this to build a collection's indexes is done in a moment.
const SMALL_BYTES: u64 = 1024 * 1024;

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
        && let Err(failure) = release_writes_after_the_end(&settings).await
    {
        tracing::error!(%failure, "whether the source's writes are still blocked is not known");
    }
    let outcome = match outcome {
        Outcome::Stopped => cancel::carry_out(&settings, &mut stop, &tracker).await,
        Outcome::Complete | Outcome::Cancelled | Outcome::Failed(_) => outcome,
    };
    ticking.abort();
    tracker.publish();
    tracker.metrics.forget();
    outcome
}

/// Begins anew from the checkpoint, as after a crash, when something failed that someone may mend. A migration that has
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
                if settings.epoch.0 > 1 || claimed.load(Ordering::Relaxed) || kept::spool(settings).exists() =>
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
        tracker.enter(PhaseKind::CatchingUp, Some(cutover::aborted()));
    } else if order != Directive::CutOver && tracker.has_refused() {
        tracker.forget_refusal();
    }
}

/// A cutover that was left in the middle of a step, and why; for the run that begins again from the checkpoint.
#[derive(Default)]
struct Back(std::sync::Mutex<Option<(Failure, bool)>>);

impl Back {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<(Failure, bool)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, failure: &Failure) {
        *self.held() = Some((failure.clone(), true));
    }

    /// Whether it was set since this was asked last: then nothing has to be waited for.
    fn is_new(&self) -> bool {
        self.held().as_mut().is_some_and(|(_, new)| std::mem::take(new))
    }

    fn take(&self) -> Option<Failure> {
        self.held().take().map(|(failure, _)| failure)
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
    if let Some(failure) = preflight::same_cluster(&source, &destination) {
        return Err(failure);
    }
    let store = Store::new(&destination, settings.migration_id, settings.epoch);
    let settings = &ownership::with_what_is_known(settings)?;
    ownership::allowed(settings, &destination)?;
    if let Some(from) = settings.reversal_from
        && store.load().await?.is_none()
    {
        reversal::prove(settings, &source, &destination, from).await?;
        reversal::let_writes_in(&destination).await;
    }
    let standing = Box::pin(claims::take(settings, &source, &destination, &store)).await?;
    if let Standing::Complete(claim) = standing {
        return ownership::complete_already(settings, &store, &claim, tracker).await;
    }
    claimed.store(true, Ordering::Relaxed);
    let checkpoint = match Box::pin(begin(settings, &source, &destination, &store)).await {
        Ok(checkpoint) => checkpoint,
        Err(failure) => {
            if matches!(standing, Standing::Begins) && !retry::may_be_mended(failure.code) {
                claims::release(&store).await?;
            }
            return Err(failure);
        }
    };
    ownership::note(settings, &source, &destination, tracker)?;
    let seen = meter::same_history(&source, &checkpoint).await?;
    tracker.measure_again();
    let workers = WORKERS + Throttle::most_workers(settings.tuning.copy_workers) * IN_FLIGHT;
    let sessions: Vec<_> = store.take_over(settings.agent_id, workers).await?.into_iter().map(shared).collect();

    // Read the stream from T0, or from where it was left, whatever else goes on.
    let dir = kept::make(kept::spool(settings))?;
    let (spool, position, token) = Spool::open(&dir, &checkpoint.position, &settings.tuning)?;
    let spool = Arc::new(spool);
    store.set_position(&position).await?;
    let trouble = Trouble::open(kept::trouble(settings))?;
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
    let notes = kept::make(kept::notes(settings))?;
    let (verifier, notes) = Verifier::open(ends, &notes, checkpoint.verifier.as_deref(), tracker, &settings.tuning)?;
    store.set_verifier(&notes).await?;

    let heard = orders.clone();
    let back = Back::default();
    // One go at everything that writes to the destination, from where the last one ended.
    let mut replicate = async || -> Result<(), Failure> {
        let checkpoint = load(&store).await?;
        let position = spool.applied_to();
        trouble.begin(&destination).await?;
        // Collections and ranges, the data, the indexes.
        let mut registry = Registry::load(&source, &destination, &store, &settings.filter).await?;
        if checkpoint.stage < Stage::Planned {
            plan(&source, &mut registry, &store).await?;
            failpoint::reach(failpoint::PLANNED, &store.id()).await;
            store.set_stage(Stage::Planned).await?;
        }
        let slots = sessions.iter().enumerate().skip(WORKERS).map(|(worker, session)| Slot {
            destination: destination.clone(),
            store: store.clone(),
            worker,
            session: Arc::clone(session),
        });
        copy(settings, &source, tracker, &spool, &checkpoint, &store, &slots.collect::<Vec<_>>()).await?;
        if checkpoint.stage < Stage::Copied {
            failpoint::reach(failpoint::COPIED, &store.id()).await;
            store.set_stage(Stage::Copied).await?;
        }
        if checkpoint.stage < Stage::Indexed {
            build_indexes(&source, &registry, tracker, settings).await?;
            store.set_stage(Stage::Indexed).await?;
        }
        // Whatever the copy, or an earlier run past its checkpoint, may have seen of the future lies before this.
        let (convergence, _) = source.optimes().await?;
        if settings.reversal_from.is_some() {
            verifier.excuse(reversal::prepare(&destination, &mut registry).await?);
        }
        let writers = sessions.iter().enumerate().take(WORKERS).map(|(worker, session)| Writer {
            source: source.clone(),
            destination: destination.clone(),
            store: store.clone(),
            tracker: tracker.clone(),
            worker,
            session: Arc::clone(session),
            trouble: trouble.clone(),
            taken: Arc::default(),
        });
        let mut replicator = Replicator {
            registry,
            lanes: Lanes::new(writers.collect()),
            spool: Arc::clone(&spool),
            store: store.clone(),
            tracker: tracker.clone(),
            position,
            intent: checkpoint.intent.clone(),
            watermark: Timestamp { time: 0, increment: 0 },
            convergence,
            late: LateWrites::default(),
            recent: Recent::default(),
            checkpointed: Instant::now(),
            verifier: verifier.clone(),
            passed: Timestamp { time: 0, increment: 0 },
            in_flight: VecDeque::new(),
            rest: None,
        };
        replicator.restore_lost().await?;
        verifier.know(&mut replicator.registry)?;
        spool.set_live();
        if checkpoint.cutover.is_some() {
            // The last run died in it; it begins anew.
            Box::pin(take_back(&source, &replicator, settings)).await?;
        }
        // Boxed, as the cutover is: what is below them is deep, and a thread's stack is small.
        Box::pin(follow(&source, &mut replicator, orders, tracker, settings, &back)).await?;
        failpoint::reach(failpoint::CUT_OVER, &store.id()).await;
        ownership::complete(settings, &source, &store, tracker).await
    };
    // The reader goes on meanwhile: the source's oplog doesn't wait.
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
    let watching = oplog::watch(&source, &spool, tracker, settings.tuning.oplog_look_every);
    let meter = Meter {
        source: &source,
        destination: &destination,
        spool: &spool,
        store: &store,
        tracker,
        orders: heard.clone(),
        seen,
    };
    let silence = call::tell_of_silence(source.calls(), destination.calls(), tracker);
    // Whatever reads the source goes slower while a cluster suffers: the copy, and the verifier after it.
    let throttle = settings.steering.throttle();
    let pressure = pressure::watch(source.clone(), destination.clone(), throttle, tracker.clone());
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
        rewound = meter.watch() => return Err(rewound),
        broken = &mut reading.0 => {
            let broken = broken.unwrap_or_else(|e| Failure::new(ErrorCode::Internal, format!("the reader ended: {e}")));
            let seen = tracker.with_lag(|lag, _| lag.majority()).or(seen);
            return Err(meter::explained(&source, seen, broken).await);
        }
    }
    reading.end().await;
    drop((spool, verifier));
    kept::forget(&settings.data_dir, settings.migration_id).await;
    tracker.enter(PhaseKind::Complete, None);
    Ok(())
}

fn shared(session: ClientSession) -> Arc<Mutex<ClientSession>> {
    Arc::new(Mutex::new(session))
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
        if settings.recopies <= found.recopies {
            return Ok(found);
        }
        let (_, t0) = source.optimes().await?;
        recopy::prepare(source, destination, store, &settings.filter).await?;
        failpoint::reach(failpoint::RECOPY_PREPARED, &store.id()).await;
        store.begin_again(t0, settings.recopies).await?;
        return load(store).await;
    }
    if let Some(from) = settings.reversal_from {
        reversal::begin(source, destination, store, &settings.filter, from, filter).await?;
        let begun = store.load().await?;
        return begun
            .ok_or_else(|| Failure::new(ErrorCode::Internal, "the checkpoint was not kept by the destination"));
    }
    for finding in left_behind::findings(source, &settings.filter).await? {
        tracing::warn!(%finding, "not carried over");
    }
    claims::evict(store).await?;
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
    load(store).await
}

async fn load(store: &Store) -> Result<Checkpoint, Failure> {
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
    let (from, to) = (source.version, registry.destination().version);
    if let Some(refusal) = entries.iter().find_map(|entry| series::refusal(entry, from, to)) {
        return Err(refusal.failure());
    }
    for series in entries.iter().filter(|e| e.kind == Kind::TimeSeries) {
        catalog::create(registry.destination(), &series.ns, &series.options).await?;
    }
    let holding: Vec<Entry> = entries.into_iter().filter(Entry::has_documents).collect();
    registry.keep_only(&holding).await?;
    registry.create_all(&holding).await?;
    failpoint::reach(failpoint::COLLECTION_CREATED, &store.id()).await;
    let planned: Vec<_> = holding.iter().map(|entry| plan::ranges(source, entry)).collect();
    let planned: Vec<Vec<CopyRange>> = futures::stream::iter(planned).buffered(SIDE_BY_SIDE).try_collect().await?;
    let mut ranges: Vec<CopyRange> = planned.into_iter().flatten().collect();
    ranges.iter_mut().zip(0..).for_each(|(range, n)| range.n = n);
    let documents = ranges.iter().map(|range| {
        let mut document = range.to_document();
        document.insert("documents", range.documents as i64);
        document.insert("bytes", range.bytes as i64);
        document
    });
    store.plan(documents.collect()).await
}

async fn copy(
    settings: &Settings,
    source: &Cluster,
    tracker: &Tracker,
    spool: &Spool,
    checkpoint: &Checkpoint,
    store: &Store,
    slots: &[Slot],
) -> Result<(), Failure> {
    let ranges = store.ranges().await?.iter().map(CopyRange::from_document).collect::<Result<Vec<_>, _>>()?;
    let collections = |only_done: bool| {
        let mut names: Vec<_> = ranges.iter().filter(|r| !only_done || r.done).map(|r| &r.ns).collect();
        names.dedup();
        names.len() as u64
    };
    let namespaces = by_namespace(&ranges);
    tracker.count(|p| {
        p.set_namespaces(namespaces);
        p.collections_total = collections(false);
        p.documents_total = ranges.iter().map(|r| r.documents).sum();
        p.bytes_total = ranges.iter().map(|r| r.bytes).sum();
        p.documents_copied = ranges.iter().filter(|r| r.done).map(|r| r.documents).sum();
        p.bytes_copied = ranges.iter().filter(|r| r.done).map(|r| r.bytes).sum();
        p.spool_bytes = spool.bytes();
    });
    if checkpoint.stage < Stage::Copied {
        tracker.enter(PhaseKind::Copying, None);
        let copier = Copier {
            source: source.clone(),
            store: store.clone(),
            tracker: tracker.clone(),
            again: checkpoint.recopies > 0,
            throttle: settings.steering.throttle(),
            t0: checkpoint.t0,
            workers: settings.tuning.copy_workers,
            reads: settings.tuning.copy_reads,
        };
        copier.run(ranges.clone(), slots).await?;
    }
    tracker.count(|p| p.collections_copied = p.collections_total);
    spool.sync()
}

/// How far each namespace's copy is, by its ranges.
fn by_namespace(ranges: &[CopyRange]) -> Vec<NamespaceProgress> {
    let mut all: BTreeMap<String, NamespaceProgress> = BTreeMap::new();
    for range in ranges {
        let own = all.entry(range.ns.to_string()).or_default();
        let done = u64::from(range.done);
        own.documents_total += range.documents;
        own.bytes_total += range.bytes;
        own.documents_copied += done * range.documents;
        own.bytes_copied += done * range.bytes;
    }
    all.into_iter().map(|(namespace, own)| NamespaceProgress { namespace, ..own }).collect()
}

/// Builds all indexes: of small collections several at a time, since there may be thousands; of the others one after the
/// other, so that the destination does no more than one large build.
async fn build_indexes(
    source: &Cluster,
    registry: &Registry,
    tracker: &Tracker,
    settings: &Settings,
) -> Result<(), Failure> {
    tracker.enter(PhaseKind::BuildingIndexes, None);
    tracker.count(|p| (p.indexes_total, p.indexes_built) = (0, 0));
    let mut bytes: HashMap<Namespace, u64> = HashMap::new();
    for range in registry.store().ranges().await?.iter().map(CopyRange::from_document) {
        let range = range?;
        let name = range.ns.coll.strip_prefix(catalog::BUCKETS).unwrap_or(&range.ns.coll);
        *bytes.entry(Namespace::new(&range.ns.db, name)).or_default() += range.bytes;
    }
    let entries = catalog::list(source, &settings.filter).await?.into_iter().filter(|entry| {
        let present = entry.kind == Kind::TimeSeries || registry.by_name(&entry.ns).is_some();
        entry.kind != Kind::View && !entry.ns.coll.starts_with(catalog::BUCKETS) && present
    });
    let (small, large): (Vec<Entry>, Vec<Entry>) =
        entries.partition(|entry| bytes.get(&entry.ns).is_some_and(|bytes| *bytes <= SMALL_BYTES));
    for (group, at_once) in [(small, SIDE_BY_SIDE), (large, 1)] {
        let all: Vec<_> = group.iter().map(|entry| build_indexes_of(entry, source, registry, tracker)).collect();
        let mut built = futures::stream::iter(all).buffer_unordered(at_once);
        while built.try_next().await?.is_some() {}
    }
    Ok(())
}

async fn build_indexes_of(
    entry: &Entry,
    source: &Cluster,
    registry: &Registry,
    tracker: &Tracker,
) -> Result<(), Failure> {
    let listed = indexes::list(source, &entry.ns).await?;
    let total = listed.len() as u64;
    tracker.count(|p| p.indexes_total += total);
    // What is refused is tried again, and then reported, once the destination is an image of the source.
    indexes::bring(&listed, registry.destination(), &entry.ns, Properties::Deferred).await?;
    failpoint::reach(failpoint::INDEXES_BUILT, &entry.ns).await;
    tracker.works(Part::Applier);
    tracker.count(|p| p.indexes_built += total);
    Ok(())
}

/// Applies changes until a cutover succeeds.
async fn follow(
    source: &Cluster,
    replicator: &mut Replicator,
    orders: &mut watch::Receiver<Directive>,
    tracker: &Tracker,
    settings: &Settings,
    back: &Back,
) -> Result<(), Failure> {
    let mut asked = Asked::default();
    match back.take() {
        // A cutover left replication in the middle of something; it is as it was before.
        Some(failure) => asked.refuse(tracker, failure),
        // What was worth the name before a hiccup still is, unless what is measured says otherwise; a cutover begins anew.
        None if tracker.phase() != PhaseKind::Synced => tracker.enter(PhaseKind::CatchingUp, None),
        None => {}
    }
    let mut measured = Instant::now();
    let copied = replicator.convergence;
    let verifier = replicator.verifier.clone();
    let verifying = verifier.start();
    let mut upkeep = Upkeep::new(tracker, properties(settings));
    loop {
        replicator.step().await?;
        let repairs = verifier.take_repairs()?;
        if !repairs.is_empty() {
            replicator.repair(repairs).await?;
        }
        if measured.elapsed() >= Duration::from_millis(500) {
            measured = Instant::now();
            // Measured beside this loop, which may stand still; see `meter`.
            let lag = tracker.lag();
            let spooled = replicator.spool.bytes();
            replicator.spool.shares_with(verifier.disk_bytes()?);
            tracker.count(|p| p.spool_bytes = spooled);
            verifier.pace(lag.map_or(i64::MAX, |lag| lag.max(behind(replicator))));
            if replicator.watermark >= copied && behind(replicator) <= SYNCED_LAG_SECONDS {
                Box::pin(upkeep.go_on(&replicator.registry)).await;
            }
            if tracker.phase() == PhaseKind::CatchingUp
                && replicator.watermark >= copied
                && behind(replicator) <= SYNCED_LAG_SECONDS
                && lag.is_some_and(|lag| lag <= SYNCED_LAG_SECONDS)
                && tracker.is_well()
                && verifier.is_ready()?
            {
                replicator.checkpoint().await?;
                tracker.is_ready();
            }
            if tracker.phase() == PhaseKind::Synced && verifier.owes_a_pass()? {
                tracker.enter(PhaseKind::CatchingUp, None);
            }
        }
        let order = *orders.borrow();
        let choices = choices(settings);
        asked.rehearsal(replicator, tracker, settings, order);
        if asked.cutover(tracker, settings, order, &mut upkeep, &verifier)? {
            asked.end_rehearsal();
            let ended = tokio::select! {
                biased;
                ended = Box::pin(cutover::cut_over(replicator, tracker, &settings.filter, choices)) => ended,
                () = settings.steering.cutover_aborted() => Err(NotCutOver::BackFromCheckpoint(cutover::aborted())),
            };
            match ended {
                Ok(done) => {
                    tracker.record(record::of(settings, replicator, done, choices.reversible).await?);
                    verifying.end().await;
                    return Ok(());
                }
                Err(NotCutOver::Failed(failure)) => {
                    // However long its cause lasts, the application isn't kept waiting for it.
                    let_writes_in(source, &replicator.store).await;
                    return Err(failure);
                }
                Err(NotCutOver::BackFromCheckpoint(failure)) => {
                    let_writes_in(source, &replicator.store).await;
                    back.set(&failure);
                    return Err(failure);
                }
                Err(NotCutOver::BackToSynced(failure)) => {
                    Box::pin(take_back(source, replicator, settings)).await?;
                    replicator.late = LateWrites::default();
                    asked.refuse(tracker, failure);
                }
            }
        }
    }
}

/// How the next cutover is to be.
fn choices(settings: &Settings) -> cutover::Choices {
    let wishes = settings.steering.now();
    cutover::Choices {
        block_source_writes: wishes.cutover.block_source_writes,
        reversible: wishes.cutover.reversible && settings.reversal_from.is_none(),
        properties: properties(settings),
    }
}

/// What was asked of a run besides following the source, and how far that is.
#[derive(Default)]
struct Asked {
    /// Since when a cutover is ordered; what it would have to wait for is done first.
    awaited: Option<Instant>,
    /// The number of the last rehearsal, and the one under way.
    rehearsed: u32,
    rehearsing: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.end_rehearsal();
    }
}

impl Asked {
    /// Says that a cutover went back, and why.
    fn refuse(&mut self, tracker: &Tracker, failure: Failure) {
        self.awaited = None;
        tracker.refuse_cutover();
        let behind = tracker.phase() == PhaseKind::CatchingUp;
        tracker.enter(if behind { PhaseKind::CatchingUp } else { PhaseKind::Synced }, Some(failure));
    }

    /// Begins a rehearsal if one is wanted. It goes on beside everything else.
    fn rehearsal(&mut self, replicator: &Replicator, tracker: &Tracker, settings: &Settings, order: Directive) {
        let wanted = settings.steering.now().rehearsal;
        if wanted <= self.rehearsed || tracker.phase() != PhaseKind::Synced || order != Directive::Run {
            return;
        }
        self.end_rehearsal();
        self.rehearsed = wanted;
        let stage = RehearsalStage::of(replicator, &settings.filter, choices(settings));
        let tracker = tracker.clone();
        self.rehearsing =
            Some(tokio::spawn(Box::pin(async move { tracker.rehearsed(Box::pin(stage.rehearse(wanted)).await) })));
    }

    /// One that is cut short is begun again later.
    fn end_rehearsal(&mut self) {
        if let Some(task) = self.rehearsing.take().filter(|task| !task.is_finished()) {
            task.abort();
            self.rehearsed = self.rehearsed.saturating_sub(1);
        }
    }

    /// Whether a cutover begins now. Indexes that are being built are waited for, since they would be in its pause.
    fn cutover(
        &mut self,
        tracker: &Tracker,
        settings: &Settings,
        order: Directive,
        upkeep: &mut Upkeep,
        verifier: &Verifier,
    ) -> Result<bool, Failure> {
        if tracker.has_refused() && order != Directive::CutOver {
            tracker.forget_refusal();
        }
        if order != Directive::CutOver || tracker.has_refused() {
            self.awaited = None;
            return Ok(false);
        }
        if settings.steering.now().abort_cutover {
            self.refuse(tracker, cutover::aborted());
            return Ok(false);
        }
        if tracker.phase() != PhaseKind::Synced {
            return Ok(false);
        }
        if self.awaited.is_none() {
            upkeep.try_again();
        }
        let since = *self.awaited.get_or_insert_with(Instant::now);
        let begins = upkeep.is_done() && !verifier.rest_is_awaited(since)?;
        if begins {
            self.awaited = None;
        }
        Ok(begins)
    }
}

/// Lets the source's users write again after a cutover that failed.
async fn let_writes_in(source: &Cluster, store: &Store) {
    if let Err(error) = release_writes(source, store).await {
        tracing::error!(%error, "the source's writes are still blocked");
    }
}

/// Seconds until the destination is an exact image. Re-fetches under load keep moving that point, so `Synced` asks only
/// that it is near; the cutover waits until it is reached.
fn behind(replicator: &Replicator) -> i64 {
    i64::from(replicator.convergence.time.saturating_sub(replicator.watermark.time))
}

/// After a cutover that failed the source's users may write again, and what was made final is put off again.
async fn take_back(source: &Cluster, replicator: &Replicator, settings: &Settings) -> Result<(), Failure> {
    let destination = replicator.registry.destination();
    release_writes(source, &replicator.store).await?;
    if properties(settings) == Properties::Deferred {
        expiry::switch_off(destination, &settings.filter).await?;
    }
    indexes::sync_known(&replicator.registry, properties(settings)).await?;
    replicator.store.clear_cutover().await
}

/// How far the destination's indexes go while changes are replicated: a way back leaves the former source's as they are.
fn properties(settings: &Settings) -> Properties {
    if settings.reversal_from.is_some() { Properties::Final } else { Properties::Deferred }
}

/// Lets the source's users write again, if a cutover kept them from it.
async fn release_writes(source: &Cluster, store: &Store) -> Result<(), Failure> {
    if store.load().await?.is_some_and(|checkpoint| checkpoint.writes_blocked) {
        cutover::unblock_writes(source).await?;
        store.set_writes_blocked(false).await?;
    }
    Ok(())
}

/// The same for a run that ended otherwise than by a complete cutover.
async fn release_writes_after_the_end(settings: &Settings) -> Result<(), Failure> {
    let source = Cluster::connect(Side::Source, &settings.source_uri).await?;
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    release_writes(&source, &Store::new(&destination, settings.migration_id, settings.epoch)).await
}
