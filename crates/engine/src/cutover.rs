//! The last steps, each safe to repeat. Outcomes: complete; or back to `Synced` with the reason, the source being what
//! it was.

use crate::{
    catalog::{self, Entry, Kind},
    cluster::Cluster,
    indexes::{self, Properties},
    progress::Tracker,
    replicate::Replicator,
};
use bson::{Timestamp, doc};
use limosa_model::{ErrorCode, Failure, Namespace, NamespaceFilter, PhaseKind};
use std::{collections::HashMap, time::Instant};

/// Why a cutover didn't complete.
pub(crate) enum NotCutOver {
    /// It can be asked for again.
    BackToSynced(Failure),
    Failed(Failure),
}

impl From<Failure> for NotCutOver {
    fn from(failure: Failure) -> Self {
        match failure.code {
            ErrorCode::UniqueConversionFailed | ErrorCode::SourceWrittenDuringCutover | ErrorCode::IndexBuildFailed => {
                Self::BackToSynced(failure)
            }
            _ => Self::Failed(failure),
        }
    }
}

/// Carries the cutover out.
pub(crate) async fn cut_over(
    replicator: &mut Replicator,
    tracker: &Tracker,
    filter: &NamespaceFilter,
) -> Result<(), NotCutOver> {
    let began = Instant::now();
    tracker.enter(PhaseKind::CuttingOver, None);
    let source = replicator.registry.source().clone();
    let destination = replicator.registry.destination().clone();
    // 1. Everything that the source acknowledged before the cutover was asked for.
    let (tc, _) = source.optimes().await?;
    drain(replicator, tc).await?;
    // 2. The catalogs, where the stream doesn't tell all.
    reconcile(&source, &destination, filter).await?;
    refuse_later_writes(replicator, &source, tc).await?;
    // 3. What was put off.
    tracker.enter(PhaseKind::Finalizing, None);
    for entry in catalog::list(&source, filter).await? {
        if entry.kind != Kind::View && !entry.ns.coll.starts_with(catalog::BUCKETS) {
            indexes::sync(&source, &entry.ns, &destination, &entry.ns, Properties::Final).await?;
        }
    }
    refuse_later_writes(replicator, &source, tc).await?;
    replicator.checkpoint().await?;
    tracker.count(|p| p.write_pause_millis = Some(began.elapsed().as_millis() as i64));
    Ok(())
}

/// Applies everything up to `until`.
async fn drain(replicator: &mut Replicator, until: Timestamp) -> Result<(), Failure> {
    while replicator.watermark < until.max(replicator.convergence) {
        replicator.step().await?;
    }
    Ok(())
}

/// A change after `tc` means that an application still writes to the source.
async fn refuse_later_writes(replicator: &mut Replicator, source: &Cluster, tc: Timestamp) -> Result<(), Failure> {
    let (now, _) = source.optimes().await?;
    drain(replicator, now).await?;
    match &replicator.last_change {
        Some((time, ns)) if *time > tc => Err(Failure::new(
            ErrorCode::SourceWrittenDuringCutover,
            format!("the source was written to after the cutover began: {ns}"),
        )),
        _ => Ok(()),
    }
}

/// Makes the destination's collections, views and options those of the source.
pub(crate) async fn reconcile(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<(), Failure> {
    let want = catalog::list(source, filter).await?;
    let mut have: HashMap<Namespace, Entry> =
        catalog::list(destination, filter).await?.into_iter().map(|e| (e.ns.clone(), e)).collect();
    let mut missing_views = Vec::new();
    for entry in want {
        match have.remove(&entry.ns) {
            None if entry.kind == Kind::View => missing_views.push(entry),
            None => catalog::create(destination, &entry.ns, &entry.options).await?,
            Some(own) if entry.kind == Kind::View && own.kind == Kind::View && own.options != entry.options => {
                drop_namespace(destination, &own.ns).await?;
                missing_views.push(entry);
            }
            Some(own) if catalog::must_be_recreated(&entry, &own) => {
                return Err(Failure::new(
                    ErrorCode::VerificationFailed,
                    format!(
                        "{} has other options on the destination than on the source, and they can't be changed",
                        entry.ns
                    ),
                ));
            }
            Some(own) => {
                let changes = catalog::option_changes(&entry, &own);
                if !changes.is_empty() {
                    let mut command = doc! {"collMod": &entry.ns.coll};
                    command.extend(changes);
                    destination.db(&entry.ns.db).run_command(command).await.map_err(|e| destination.failure(&e))?;
                }
            }
        }
    }
    create_views(destination, missing_views).await?;
    for extra in have.into_values() {
        remove_extra(destination, &extra).await?;
    }
    Ok(())
}

/// Views may stand on views; what can't be created yet waits for the others.
async fn create_views(destination: &Cluster, mut views: Vec<Entry>) -> Result<(), Failure> {
    while !views.is_empty() {
        let before = views.len();
        let (mut left, mut last) = (Vec::new(), None);
        for view in views {
            if let Err(failure) = catalog::create(destination, &view.ns, &view.options).await {
                last = Some(failure);
                left.push(view);
            }
        }
        if let (true, Some(failure)) = (left.len() == before, last) {
            return Err(failure);
        }
        views = left;
    }
    Ok(())
}

/// What the source doesn't have: a view or an empty collection is a leftover of the stream; one with documents is
/// somebody's, and not ours to remove.
async fn remove_extra(destination: &Cluster, extra: &Entry) -> Result<(), Failure> {
    if extra.kind == Kind::Collection {
        let size = crate::copy::plan::size(destination, &extra.ns).await?;
        if size.documents > 0 {
            let message = format!("{} is on the destination and not on the source", extra.ns);
            return Err(Failure::new(ErrorCode::VerificationFailed, message));
        }
    }
    drop_namespace(destination, &extra.ns).await
}

/// Drops a collection or a view; gone already is success.
pub(crate) async fn drop_namespace(cluster: &Cluster, ns: &Namespace) -> Result<(), Failure> {
    match cluster.db(&ns.db).run_command(doc! {"drop": &ns.coll, "writeConcern": {"w": "majority"}}).await {
        Ok(_) => Ok(()),
        Err(e) if crate::error::is_gone(&e) => Ok(()),
        Err(e) => Err(cluster.failure(&e)),
    }
}
