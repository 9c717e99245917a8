//! The beginning of a run: both clusters are connected to, the destination is claimed, and its checkpoint is read or made.

use crate::{
    Settings,
    copy::in_place,
    cutover::reverse,
    destination::{
        checkpoint::{Checkpoint, CheckpointStore, Stage},
        claims::{self, Standing},
        definition,
    },
    failpoint,
    mongo::{
        catalog,
        cluster::{self, Cluster},
        side::Side,
    },
    preflight::ownership,
    progress::ProgressTracker,
    source::left_behind,
    throttle::Reads,
};
use limosa_model::{ErrorCode, Failure};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run has once the destination is its own.
pub(crate) struct Bootstrap {
    /// With what this host knows of the migration.
    pub settings: Settings,
    pub source: Cluster,
    pub destination: Cluster,
    pub store: CheckpointStore,
    pub checkpoint: Checkpoint,
}

/// Connects, makes sure that no one else works on this, and loads or makes the checkpoint. `None`: the migration is complete
/// already, and that is reported. `claimed` is set once the destination is this migration's.
pub(crate) async fn bootstrap(
    settings: &Settings,
    tracker: &ProgressTracker,
    claimed: &AtomicBool,
) -> Result<Option<Bootstrap>, Failure> {
    let (source, destination) = connect(settings).await?;
    let store = CheckpointStore::new(&destination, settings.migration_id, settings.epoch);
    let settings = ownership::with_what_is_known(settings)?;
    ownership::allowed(&settings, &destination)?;
    if let Some(from) = settings.reversal_from
        && store.load().await?.is_none()
    {
        reverse::prove(&settings, &source, &destination, from).await?;
        reverse::let_writes_in(&destination).await;
    }
    let standing = Box::pin(claims::take(&settings, &source, &destination, &store)).await?;
    if let Standing::Complete(claim) = standing {
        ownership::complete_already(&settings, &store, &claim, tracker).await?;
        return Ok(None);
    }
    claimed.store(true, Ordering::Relaxed);
    let checkpoint = match Box::pin(first_checkpoint(&settings, &source, &destination, &store)).await {
        Ok(checkpoint) => checkpoint,
        Err(failure) => {
            if matches!(standing, Standing::Begins) && !failure.code.is_operator_fixable() {
                claims::release(&store).await?;
            }
            return Err(failure);
        }
    };
    ownership::note(&settings, &source, &destination, tracker)?;
    Ok(Some(Bootstrap { settings, source, destination, store, checkpoint }))
}

async fn connect(settings: &Settings) -> Result<(Cluster, Cluster), Failure> {
    let reads = Reads { from: settings.tuning.copy_reads, throttle: settings.steering.throttle() };
    let source = Cluster::connect(Side::Source, &settings.source_uri).await?.read_as(reads);
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    let destination = destination.held_by(settings.migration_id, settings.epoch.0);
    match cluster::same_cluster(&source, &destination) {
        Some(failure) => Err(failure),
        None => Ok((source, destination)),
    }
}

/// The stored checkpoint, or the first one: T0 is noted before anything is copied.
async fn first_checkpoint(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
    store: &CheckpointStore,
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
        in_place::prepare(source, destination, store, &settings.filter).await?;
        failpoint::reach(failpoint::RECOPY_PREPARED, &store.id()).await;
        store.restart_copy(t0, settings.recopies).await?;
        return load(store).await;
    }
    if let Some(from) = settings.reversal_from {
        reverse::begin(source, destination, store, &settings.filter, from, filter).await?;
        return load(store).await;
    }
    clear_destination(settings, source, destination, store).await?;
    let (_, t0) = source.optimes().await?;
    store.begin(Stage::Begun, t0, filter).await?;
    load(store).await
}

/// Makes room for the copy: what is on the destination is dropped, where that is asked for, or refused.
async fn clear_destination(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
    store: &CheckpointStore,
) -> Result<(), Failure> {
    for finding in left_behind::findings(source, &settings.filter).await? {
        tracing::warn!(%finding, "not carried over");
    }
    claims::evict(store).await?;
    if settings.drop_destination_data {
        for entry in catalog::list(destination, &settings.filter).await? {
            if !entry.ns.coll.starts_with(catalog::BUCKETS) {
                definition::drop_namespace(destination, &entry.ns).await?;
            }
        }
    } else if let Some(present) = catalog::list(destination, &settings.filter).await?.first() {
        return Err(Failure::new(
            ErrorCode::DestinationNotEmpty,
            format!("the destination already has {}", present.ns),
        ));
    }
    Ok(())
}

/// The checkpoint that the destination has.
pub(crate) async fn load(store: &CheckpointStore) -> Result<Checkpoint, Failure> {
    store
        .load()
        .await?
        .ok_or_else(|| Failure::new(ErrorCode::Internal, "the checkpoint was not kept by the destination"))
}
