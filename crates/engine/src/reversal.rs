//! The way back: the same engine with the roles exchanged. What was the destination is read from the moment at which the
//! cutover was complete, and what was the source is written; nothing is copied, since both were equal then.
//!
//! The former source keeps its unique indexes. Two documents that swap a unique value must not overtake each other
//! there, so changes of a collection that has such indexes are applied one after the other. Where a replay after a
//! crash meets a value that is taken for the moment, the verifier brings the document over once it is quiet. What the
//! former source expires by itself, by a TTL index, isn't held against it.

use crate::{
    apply::registry::Registry,
    catalog::{self, Kind, Uuid},
    checkpoint::{Stage, Store},
    cluster::Cluster,
    cutover, indexes, privileges,
};
use bson::{Document, Timestamp};
use limosa_model::{ErrorCode, Failure, Finding, Namespace, NamespaceFilter, cutover::TurningPoint};
use std::collections::{HashMap, HashSet};

/// Notes that both sides hold the same at `from`, so that only what came later is applied.
pub(crate) async fn begin(
    source: &Cluster,
    destination: &Cluster,
    store: &Store,
    filter: &NamespaceFilter,
    from: TurningPoint,
    filter_document: Document,
) -> Result<(), Failure> {
    if let Some(finding) = refusal(destination).await? {
        return Err(finding.failure());
    }
    if destination.level >= (6, 0)
        && let Err(failure) = cutover::unblock_writes(destination).await
    {
        // Without the privilege it can't have been blocked by this user either.
        tracing::warn!(%failure, "whether the former source takes writes is not known");
    }
    let have: HashMap<Namespace, Option<Uuid>> =
        catalog::list(destination, filter).await?.into_iter().map(|own| (own.ns, own.uuid)).collect();
    let pairs = catalog::list(source, filter).await?.into_iter();
    let pairs: Vec<_> = pairs.filter_map(|entry| entry.uuid.zip(have.get(&entry.ns).copied().flatten())).collect();
    store.map(&pairs).await?;
    store.begin(Timestamp { time: from.time, increment: from.increment }, filter_document).await?;
    store.set_stage(Stage::Indexed).await
}

/// Why nothing could be carried back to `cluster`, if so.
pub(crate) async fn refusal(cluster: &Cluster) -> Result<Option<Finding>, Failure> {
    let lacking = cluster.privileges().await?.and_then(|all| all.lacking(privileges::TO_WRITE));
    Ok(lacking.map(|lacking| {
        let evidence = format!("the user of the source can't write all that the way back needs: {lacking}");
        Finding::error(ErrorCode::InsufficientPrivileges, "source", evidence)
    }))
}

/// Makes changes of collections with unique indexes go one after the other. Returns the collections that expire by
/// themselves.
pub(crate) async fn prepare(destination: &Cluster, registry: &mut Registry) -> Result<HashSet<Namespace>, Failure> {
    let (mut ordered, mut expiring) = (Vec::new(), HashSet::new());
    for entry in catalog::list(destination, registry.filter()).await?.iter().filter(|e| e.kind == Kind::Collection) {
        let listed = match indexes::list(destination, &entry.ns).await {
            Ok(listed) => listed,
            // Buckets of a time-series collection have none that could be listed.
            Err(failure) if failure.code == ErrorCode::ServerError && entry.ns.coll.starts_with(catalog::BUCKETS) => {
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if listed.iter().any(|index| index.get_bool("unique").unwrap_or(false)) {
            ordered.push(entry.ns.clone());
        }
        if listed.iter().any(|index| index.contains_key("expireAfterSeconds"))
            || entry.options.contains_key("expireAfterSeconds")
        {
            expiring.insert(entry.ns.clone());
        }
    }
    ordered.iter().for_each(|ns| registry.keep_order(ns));
    Ok(expiring)
}

/// The time on the destination at which a cutover is complete.
pub(crate) async fn turning_point(destination: &Cluster) -> Result<TurningPoint, Failure> {
    let (Timestamp { time, increment }, _) = destination.optimes().await?;
    Ok(TurningPoint { time, increment })
}
