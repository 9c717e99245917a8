//! What an order to cancel asks for: what was copied goes from the destination, and then what the run kept on this disk.
//! It can be interrupted anywhere and begun again.

use crate::{
    Outcome, Settings,
    component::Component,
    copy::plan,
    destination::{
        checkpoint::{CheckpointStore, Stage},
        claims, definition,
    },
    local_state,
    mongo::{catalog, cluster::Cluster, side::Side},
    progress::ProgressTracker,
    retry,
};
use limosa_model::{ErrorCode, Failure, protocol::Directive};
use std::collections::HashSet;
use tokio::sync::watch;

/// What a stopped run has left to do, if it was stopped by an order to cancel: what was copied is removed, where that is
/// asked for, and then what is kept on this disk. The order may be changed meanwhile.
pub(crate) async fn clean_up(
    settings: &Settings,
    orders: &mut watch::Receiver<Directive>,
    tracker: &ProgressTracker,
) -> Outcome {
    loop {
        let order = *orders.borrow_and_update();
        match order {
            // A way back copied nothing: all that is there is the former source's own.
            Directive::Cancel { drop_copied: true } if settings.reversal_from.is_none() => {
                tokio::select! {
                    removed = remove_copied_at_last(settings, tracker) => match removed {
                        Ok(()) => break,
                        Err(_) => return Outcome::Stopped,
                    },
                    changed = orders.wait_for(|now| *now != order) => if changed.is_err() {
                        return Outcome::Stopped;
                    },
                }
            }
            Directive::Cancel { .. } => {
                claims::end_soon(settings).await;
                break;
            }
            Directive::Run | Directive::CutOver | Directive::Pause | Directive::Stop => return Outcome::Stopped,
        }
    }
    local_state::remove(&settings.data_dir, settings.migration_id).await;
    Outcome::Cancelled
}

/// Nobody resumes a cancelled migration: whatever keeps it from removing what it copied is waited out, for as long as
/// that takes. `Err` when another has it.
async fn remove_copied_at_last(settings: &Settings, tracker: &ProgressTracker) -> Result<(), Failure> {
    while let Err(failure) = remove_copied(settings).await {
        if failure.code == ErrorCode::Fenced {
            return Err(failure);
        }
        tracing::warn!(%failure, "what was copied can't be removed yet");
        tracker.record_failure(Component::Applier, &failure);
        tokio::time::sleep(retry::LONGEST_PAUSE).await;
    }
    tracker.clear_failure(Component::Applier);
    Ok(())
}

/// Drops what this migration created on the destination.
async fn remove_copied(settings: &Settings) -> Result<(), Failure> {
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    let destination = destination.held_by(settings.migration_id, settings.epoch.0);
    let store = CheckpointStore::new(&destination, settings.migration_id, settings.epoch);
    // What another took the place of is the other's now.
    if claims::own(&store).await?.is_some_and(|claim| claim.state != claims::State::Live) {
        return Ok(());
    }
    // The former agent may not be dead.
    crate::destination::fences::take_over(&store, settings.agent_id, 1).await?;
    let mapped: HashSet<_> = store.mapped().await?.into_values().collect();
    let unfinished = store.load().await?.is_some_and(|checkpoint| checkpoint.stage < Stage::Planned);
    // Only then is the source needed, which may be gone by now.
    let own: HashSet<_> = match unfinished {
        true => {
            let source = Cluster::connect(Side::Source, &settings.source_uri).await?;
            catalog::list(&source, &settings.filter).await?.into_iter().map(|entry| entry.ns).collect()
        }
        false => HashSet::new(),
    };
    for entry in catalog::list(&destination, &settings.filter).await? {
        // It may be made and not written down yet.
        let unnoted = own.contains(&entry.ns) && plan::size(&destination, &entry.ns).await?.documents == 0;
        if unnoted || entry.uuid.is_some_and(|uuid| mapped.contains(&uuid)) {
            let name = entry.ns.coll.strip_prefix(catalog::BUCKETS).unwrap_or(&entry.ns.coll).to_owned();
            definition::drop_namespace(&destination, &limosa_model::Namespace::new(&entry.ns.db, name)).await?;
        }
    }
    claims::end(&store).await.map(drop)
}
