//! Copies a collection again, in the middle of replication: where its documents aren't in the stream because it came
//! from outside of the migrated namespaces, where events name it ambiguously (before 6.0 they have no UUID), and where
//! a comparison before the cutover found that it can't be brought to the source's state otherwise.

use crate::{
    copy::{batch_writer::CopyBatchWriter, plan::CopyRange, worker::Copier},
    destination::{collection_map::CollectionMap, definition, indexes},
    mongo::{
        catalog::{self, BUCKETS, Entry, Kind},
        cluster::Cluster,
        index_spec::IndexPhase,
    },
    progress::ProgressTracker,
    tuning::ReadFrom,
};
use bson::{RawBsonRef, Timestamp, doc};
use limosa_model::{Failure, Namespace};
use std::{collections::HashMap, sync::Arc};
use xxhash_rust::xxh3::Xxh3;

/// The number of a range that is in no plan.
const UNPLANNED: i64 = -1;

/// Makes the destination's `name` a fresh copy of the source's `entry`. Returns the source's time up to which it may
/// be ahead.
pub(crate) async fn adopt(
    registry: &mut CollectionMap,
    slot: &CopyBatchWriter,
    tracker: &ProgressTracker,
    entry: &Entry,
    name: &Namespace,
) -> Result<Timestamp, Failure> {
    tracing::info!(source = %entry.ns, destination = %name, "copying a collection again");
    let destination = registry.destination().clone();
    // What is in its place, noted or not, and what was its image under another name.
    let former = entry.uuid.and_then(|uuid| registry.by_uuid(uuid)).into_iter().chain(registry.by_name(name));
    for target in former.collect::<Vec<_>>() {
        definition::drop_collection(&destination, &target.place()).await?;
        registry.remove(&target.ns);
    }
    definition::drop_collection(&destination, &name.into()).await?;
    // Until it is whole nobody may take it for that.
    registry.create_unsettled(entry, name).await?;
    let source = registry.source().clone();
    let (_, t0) = source.optimes().await?;
    let copier = Copier {
        source: source.clone(),
        store: registry.store().clone(),
        tracker: tracker.clone(),
        again: false,
        // Replication waits for it: no limit holds it back.
        throttle: Arc::default(),
        t0,
        workers: 1,
        reads: ReadFrom::Primary,
    };
    match copier.copy_whole(CopyRange::whole(entry, name, UNPLANNED), std::slice::from_ref(slot)).await? {
        Some(true) if entry.ns.coll.starts_with(BUCKETS) => {}
        Some(true) => {
            indexes::sync(&source, &entry.ns, &destination, name, IndexPhase::Deferred).await?;
        }
        Some(false) => return Box::pin(adopt(registry, slot, tracker, entry, name)).await,
        None => {
            if let Some(target) = registry.by_name(name) {
                definition::drop_collection(&destination, &target.place()).await?;
            }
            registry.remove(name);
        }
    }
    registry.settle(name).await?;
    source.optimes().await.map(|(newest, _)| newest)
}

/// What was copied again.
#[derive(Default)]
pub(crate) struct Renewed {
    pub collections: Vec<Entry>,
    /// The source's time up to which one of them may be ahead.
    pub ahead: Option<Timestamp>,
}

/// Before a cutover: copies what differs from the source and can't be changed in place. That is a collection with other
/// fixed options; a capped one whose documents or their order differ, since what was evicted during the copy may have
/// come again; before 6.0, whose streams don't show them, time-series collections; and from 6.0 on, where each is known
/// from its first event, one that isn't known.
pub(crate) async fn resync_mismatched(
    registry: &mut CollectionMap,
    slot: &CopyBatchWriter,
    tracker: &ProgressTracker,
) -> Result<Renewed, Failure> {
    let (source, destination, filter) =
        (registry.source().clone(), registry.destination().clone(), registry.filter().clone());
    let silent = !source.can().show_expanded_events();
    let have: HashMap<Namespace, Entry> =
        catalog::list(&destination, &filter).await?.into_iter().map(|e| (e.ns.clone(), e)).collect();
    let mut renewed = Renewed::default();
    for entry in catalog::list(&source, &filter).await? {
        let buckets = entry.ns.coll.starts_with(BUCKETS);
        if entry.kind != Kind::Collection {
            continue;
        }
        let known = silent || entry.uuid.is_some_and(|uuid| registry.by_uuid(uuid).is_some());
        let unequal = match have.get(&entry.ns) {
            None => true,
            Some(_) if !known => true,
            Some(_) if buckets && !silent => false,
            Some(own) if catalog::must_be_recreated(&entry, own) => true,
            Some(_) if entry.is_capped() => {
                let order = doc! {"$natural": 1};
                digest(&source, &entry.ns, &order).await? != digest(&destination, &entry.ns, &order).await?
            }
            Some(_) if buckets => {
                let order = doc! {"_id": 1};
                digest(&source, &entry.ns, &order).await? != digest(&destination, &entry.ns, &order).await?
            }
            Some(_) => false,
        };
        if unequal {
            let ahead = adopt(registry, slot, tracker, &entry, &entry.ns).await?;
            renewed.ahead = Some(renewed.ahead.map_or(ahead, |known: Timestamp| known.max(ahead)));
            renewed.collections.push(entry);
        }
    }
    Ok(renewed)
}

/// Of all documents of a collection, in this order.
async fn digest(cluster: &Cluster, ns: &Namespace, order: &bson::Document) -> Result<u64, Failure> {
    let read = async {
        let command = doc! {"find": &ns.coll, "sort": order, "readConcern": {"level": "majority"}};
        let mut cursor = cluster.db(&ns.db).run_cursor_command(command).batch().await?;
        let mut digest = Xxh3::new();
        while let Some(batch) = cursor.next().await {
            for document in batch?.doc_slices()?.into_iter().flatten().filter_map(RawBsonRef::as_document) {
                digest.update(document.as_bytes());
            }
        }
        Ok(digest.digest())
    };
    read.await.map_err(|e: mongodb::error::Error| cluster.failure(&e))
}
