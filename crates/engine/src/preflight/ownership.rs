//! What this host and the destination know of a migration: between which clusters it was begun, whether it may be carried
//! out here, and that it is complete.

use crate::{
    Settings,
    cutover::reverse,
    destination::{
        checkpoint::CheckpointStore,
        claims::{self, Claim, State},
    },
    local_state::{self, Known},
    mongo::{catalog, cluster::Cluster, side::Side},
    progress::ProgressTracker,
    source::oplog_window,
};
use limosa_model::{ErrorCode, Failure, PhaseKind};

/// `settings` with what this host noted at the first claim; the control plane must not say otherwise.
pub(crate) fn with_what_is_known(settings: &Settings) -> Result<Settings, Failure> {
    let known = local_state::known(&settings.data_dir, &settings.migration_id.to_string())?;
    let mut settings = settings.clone();
    if let Some(known) = known {
        if let Some(departure) = settings.claim.pinned.as_ref().and_then(|told| known.identities.departure(told)) {
            return Err(Failure::new(ErrorCode::ConfigurationChanged, departure));
        }
        settings.claim.pinned = Some(known.identities);
    }
    Ok(settings)
}

/// Whether this host writes to `destination` at all.
pub(crate) fn allowed(settings: &Settings, destination: &Cluster) -> Result<(), Failure> {
    match settings.reversal_from {
        Some(_) if settings.recopies > 0 => {
            let message = "a reverse migration copies nothing, so its copy can't be made again";
            Err(Failure::new(ErrorCode::ReverseNotAllowed, message))
        }
        Some(_) if !settings.claim.allow_reverse => {
            let message = "this agent was not started with --allow-reverse, so it carries no reverse migration out";
            Err(Failure::new(ErrorCode::ReverseNotAllowed, message))
        }
        None if settings.claim.read_only.contains(&destination.set_id) => {
            let message = format!(
                "the destination, {}, is a cluster that this agent reads as a source; it doesn't write there because a \
                 control plane says so",
                destination.identity()
            );
            Err(Failure::new(ErrorCode::DestinationNotAllowed, message))
        }
        _ => Ok(()),
    }
}

/// Notes on this host between which clusters the migration goes, and tells it.
pub(crate) fn note(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
    tracker: &ProgressTracker,
) -> Result<(), Failure> {
    let identities = claims::identities(source, destination);
    let id = settings.migration_id.to_string();
    if local_state::known(&settings.data_dir, &id)?.is_none() {
        let known = Known { identities: identities.clone(), ..Known::default() };
        local_state::know(&settings.data_dir, &id, &known)?;
    }
    tracker.identify(identities);
    Ok(())
}

/// Writes the end down: on this host first, since without that no reverse migration begins here, then on the destination.
pub(crate) async fn complete(
    settings: &Settings,
    source: &Cluster,
    store: &CheckpointStore,
    tracker: &ProgressTracker,
) -> Result<(), Failure> {
    let record = tracker.recorded().unwrap_or_default();
    let known = Known {
        identities: claims::identities(source, store.destination()),
        turning_point: record.turning_point,
        complete: true,
    };
    local_state::know(&settings.data_dir, store.id(), &known)?;
    let (_, source_time) = source.optimes().await?;
    claims::complete(store, &record, source_time).await?;
    if record.turning_point.is_some() {
        reverse::confirm(source, store.id(), &record).await;
    }
    Ok(())
}

/// See [`crate::completed`].
pub(crate) async fn completed(settings: &Settings) -> Result<String, Failure> {
    let source = Cluster::connect(Side::Source, &settings.source_uri).await?;
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    let settings = with_what_is_known(settings)?;
    let changed = |text: String| Failure::new(ErrorCode::ConfigurationChanged, text);
    let now = claims::identities(&source, &destination);
    if let Some(departure) = settings.claim.pinned.as_ref().and_then(|pinned| pinned.departure(&now)) {
        return Err(changed(departure));
    }
    let store = CheckpointStore::new(&destination, settings.migration_id, settings.epoch);
    let claim = claims::own(&store).await?.filter(|claim| claim.state == State::Complete);
    let claim = claim.ok_or_else(claims::checkpoint_lost)?;
    if let Some(departure) = claim.identities.departure(&now) {
        return Err(changed(departure));
    }
    let at = claim.state_since();
    let differs = match () {
        () if claim.filter != settings.filter => Some("other namespaces"),
        () if claim.drops && !settings.drop_destination_data => Some("--drop-destination-data"),
        () if !claim.drops && settings.drop_destination_data => Some("without --drop-destination-data"),
        () => None,
    };
    if let Some(differs) = differs {
        return Err(changed(format!("this state directory's migration was completed on {at}, with {differs}")));
    }
    if let Some(seen) = claim.source_time
        && oplog_window::still_has(&source, seen).await? == Some(false)
    {
        let (newest, _) = source.optimes().await?;
        return Err(oplog_window::rewound(seen, newest));
    }
    still_there(&destination, &claim, &settings).await?;
    Ok(at)
}

/// Refuses where nothing is left of what the migration brought over.
async fn still_there(destination: &Cluster, claim: &Claim, settings: &Settings) -> Result<(), Failure> {
    let brought = claim.record().map_or(0, |record| record.namespaces.len());
    if brought == 0 || !catalog::list(destination, &settings.filter).await?.is_empty() {
        return Ok(());
    }
    let at = claim.state_since();
    let message = format!(
        "the destination has none of the {brought} collections any more that this migration, completed on {at}, brought there"
    );
    Err(Failure::new(ErrorCode::CheckpointLost, message))
}

/// The end of a migration that the destination says is complete: nothing is written but what keeps it so.
pub(crate) async fn complete_already(
    settings: &Settings,
    store: &CheckpointStore,
    claim: &Claim,
    tracker: &ProgressTracker,
) -> Result<(), Failure> {
    claims::finish(store).await?;
    let record = claim.record().unwrap_or_default();
    let known = Known { identities: claim.identities.clone(), turning_point: record.turning_point, complete: true };
    local_state::know(&settings.data_dir, store.id(), &known)?;
    tracker.record(record);
    tracker.identify(claim.identities.clone());
    local_state::remove(&settings.data_dir, settings.migration_id).await;
    tracker.enter_phase(PhaseKind::Complete, None);
    Ok(())
}
