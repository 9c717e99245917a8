//! From the first checkpoint to a whole copy: the collections are made, the documents are copied range by range, the indexes
//! are built. Each part begins where an earlier run left it.

use crate::{
    Settings,
    component::Component,
    copy::{
        batch_writer::CopyBatchWriter,
        plan::{self, CopyRange},
        worker::Copier,
    },
    destination::{
        checkpoint::{Checkpoint, CheckpointStore, Stage},
        collection_map::CollectionMap,
        indexes, time_series,
    },
    failpoint,
    mongo::{
        catalog::{self, Entry, Kind},
        cluster::Cluster,
        index_spec::{self, IndexPhase},
    },
    progress::ProgressTracker,
    source::spool::Spool,
    tuning::CATALOG_CONCURRENCY,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{Failure, Namespace, NamespaceProgress, PhaseKind};
use std::collections::{BTreeMap, HashMap};

/// The indexes of a collection that has no more than this are built in a moment.
const SMALL_BYTES: u64 = 1024 * 1024;

/// Creates all collections and writes the copy's ranges down.
pub(crate) async fn plan(
    source: &Cluster,
    registry: &mut CollectionMap,
    store: &CheckpointStore,
) -> Result<(), Failure> {
    store.clear_plan().await?;
    let filter = registry.filter().clone();
    let entries = catalog::list(source, &filter).await?;
    let (from, to) = (source.can(), registry.destination().can());
    if let Some(refusal) = entries.iter().find_map(|entry| time_series::refusal(entry, from, to)) {
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
    let planned: Vec<Vec<CopyRange>> =
        futures::stream::iter(planned).buffered(CATALOG_CONCURRENCY).try_collect().await?;
    let mut ranges: Vec<CopyRange> = planned.into_iter().flatten().collect();
    ranges.iter_mut().zip(0..).for_each(|(range, n)| range.n = n);
    let documents = ranges.iter().map(|range| {
        let mut document = range.to_document();
        document.insert("documents", range.documents as i64);
        document.insert("bytes", range.bytes as i64);
        document
    });
    store.plan(&documents.collect::<Vec<_>>()).await
}

pub(crate) async fn copy(
    settings: &Settings,
    source: &Cluster,
    tracker: &ProgressTracker,
    spool: &Spool,
    checkpoint: &Checkpoint,
    store: &CheckpointStore,
    slots: &[CopyBatchWriter],
) -> Result<(), Failure> {
    let ranges = store.ranges().await?.iter().map(CopyRange::from_document).collect::<Result<Vec<_>, _>>()?;
    let collections = |only_done: bool| {
        let mut names: Vec<_> = ranges.iter().filter(|r| !only_done || r.done).map(|r| &r.ns).collect();
        names.dedup();
        names.len() as u64
    };
    let namespaces = by_namespace(&ranges);
    tracker.update(|p| {
        p.set_namespaces(namespaces);
        p.collections_total = collections(false);
        p.documents_total = ranges.iter().map(|r| r.documents).sum();
        p.bytes_total = ranges.iter().map(|r| r.bytes).sum();
        p.documents_copied = ranges.iter().filter(|r| r.done).map(|r| r.documents).sum();
        p.bytes_copied = ranges.iter().filter(|r| r.done).map(|r| r.bytes).sum();
        p.spool_bytes = spool.bytes();
    });
    if checkpoint.stage < Stage::Copied {
        tracker.enter_phase(PhaseKind::Copying, None);
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
    tracker.update(|p| p.collections_copied = p.collections_total);
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
pub(crate) async fn build_indexes(
    source: &Cluster,
    registry: &CollectionMap,
    tracker: &ProgressTracker,
    settings: &Settings,
) -> Result<(), Failure> {
    tracker.enter_phase(PhaseKind::BuildingIndexes, None);
    tracker.update(|p| (p.indexes_total, p.indexes_built) = (0, 0));
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
    for (group, at_once) in [(small, CATALOG_CONCURRENCY), (large, 1)] {
        let all: Vec<_> = group.iter().map(|entry| build_indexes_of(entry, source, registry, tracker)).collect();
        let mut built = futures::stream::iter(all).buffer_unordered(at_once);
        while built.try_next().await?.is_some() {}
    }
    Ok(())
}

async fn build_indexes_of(
    entry: &Entry,
    source: &Cluster,
    registry: &CollectionMap,
    tracker: &ProgressTracker,
) -> Result<(), Failure> {
    let listed = index_spec::list(source, &entry.ns).await?;
    let total = listed.len() as u64;
    tracker.update(|p| p.indexes_total += total);
    // What is refused is tried again, and then reported, once the destination is an image of the source.
    indexes::bring(&listed, registry.destination(), &entry.ns, IndexPhase::Deferred).await?;
    failpoint::reach(failpoint::INDEXES_BUILT, &entry.ns).await;
    tracker.clear_failure(Component::Applier);
    tracker.update(|p| p.indexes_built += total);
    Ok(())
}
