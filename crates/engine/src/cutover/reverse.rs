//! The way back: the same engine with the roles exchanged. What was the destination is read from the moment at which the
//! cutover was complete, and what was the source is written; nothing is copied, since both were equal then.
//!
//! The former source keeps its unique indexes. Two documents that swap a unique value must not overtake each other
//! there, so changes of a collection that has such indexes are applied one after the other. Where a replay after a
//! crash meets a value that is taken for the moment, the verifier brings the document over once it is quiet. What the
//! former source expires by a TTL index isn't held against it.

use crate::{
    Settings,
    cutover::write_block,
    destination::{
        checkpoint::{CheckpointStore, DATABASE, Stage},
        claims,
        collection_map::CollectionMap,
    },
    local_state,
    mongo::{
        catalog::{self, Kind, Uuid},
        cluster::Cluster,
        error, index_spec, privileges,
    },
};
use bson::{Document, Timestamp, doc};
use limosa_model::{
    ErrorCode, Failure, Finding, Identities, Namespace, NamespaceFilter, cutover::CutoverTime, report::Record,
};
use std::collections::{HashMap, HashSet};

/// In [`DATABASE`] of a source: the migrations that may be led back to it.
const REVERSIBLE: &str = "reversible";

fn unproven(why: &str) -> Failure {
    Failure::new(ErrorCode::ReverseNotAllowed, format!("this reverse migration can't be proven: {why}"))
}

/// Notes on the source, before a reversible cutover begins, that the migration may be led back to it. Only who may write
/// there can make such a note.
pub(crate) async fn promise(source: &Cluster, destination: &Cluster, id: &str) -> Result<(), Failure> {
    let identities = bson::serialize_to_document(&claims::identities(source, destination)).unwrap_or_default();
    let update = doc! {"q": {"_id": id}, "u": {"$set": {"identities": identities}}, "upsert": true};
    write(source, update).await
}

/// Adds the turning point to that note, where the source takes writes.
pub(crate) async fn confirm(source: &Cluster, id: &str, record: &Record) {
    let Some(CutoverTime { time, increment }) = record.turning_point else { return };
    let set = doc! {"turningPoint": Timestamp { time, increment }};
    if let Err(failure) = write(source, doc! {"q": {"_id": id}, "u": {"$set": set}}).await {
        tracing::info!(%failure, "the source takes no writes: the turning point is noted on the destination only");
    }
}

async fn write(source: &Cluster, update: Document) -> Result<(), Failure> {
    let command = doc! {"update": REVERSIBLE, "updates": [update], "writeConcern": {"w": "majority"}};
    let reply = source.db(DATABASE).run_command(command).await.and_then(error::confirmed);
    let reply = reply.map_err(|e| source.failure(&e))?;
    let refused = reply.get_array("writeErrors").ok().and_then(|all| all.first()?.as_document());
    match refused {
        None => Ok(()),
        Some(e) => {
            let message = e.get_str("errmsg").unwrap_or("write refused");
            Err(Failure::new(ErrorCode::ServerError, format!("source: {message}")))
        }
    }
}

async fn find(cluster: &Cluster, collection: &str, filter: Document) -> Result<Vec<Document>, Failure> {
    let command = doc! {"find": collection, "filter": filter, "readConcern": {"level": "majority"}};
    let read = async { cluster.db(DATABASE).run_cursor_command(command).await?.try_collect().await };
    read.await.map_err(|e| cluster.failure(&e))
}

/// Refuses a reverse migration, unless the migration before it is known to be complete, with this turning point and between
/// these two clusters, to this host, to the cluster that it wrote and to the cluster that it read. A control plane alone can
/// make nobody write to a source. `source` is what that migration wrote, `destination` what it read.
pub(crate) async fn prove(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
    from: CutoverTime,
) -> Result<(), Failure> {
    let point = Timestamp { time: from.time, increment: from.increment };
    let now = claims::identities(source, destination).reversed();
    let complete = find(source, claims::CLAIMS, doc! {"state": "complete", "turningPoint": point}).await?;
    let named = settings.claim.reversal_of.map(|id| id.to_string());
    let claim = complete.iter().find(|claim| {
        let id = claim.get_str("_id").ok();
        id.is_some() && named.as_deref().is_none_or(|named| id == Some(named))
    });
    let id = claim.and_then(|claim| claim.get_str("_id").ok());
    let id =
        id.ok_or_else(|| unproven("the cluster that it reads has no record of a migration that was completed then"))?;
    let identities = |document: &Document| -> Option<Identities> {
        bson::deserialize_from_document(document.get_document("identities").ok()?.clone()).ok()
    };
    if claim.and_then(identities).as_ref() != Some(&now) {
        return Err(unproven("the migration before it was between other clusters, as the cluster says that it wrote"));
    }
    let own = local_state::known(&settings.data_dir, id)?.filter(|known| known.complete);
    let own = own.ok_or_else(|| {
        let dir = settings.data_dir.display();
        unproven(&format!("this host has no record in {dir} that it completed migration {id}"))
    })?;
    if own.identities != now || own.turning_point != Some(from) {
        return Err(unproven(&format!("this host completed migration {id} at another time or between other clusters")));
    }
    let noted = find(destination, REVERSIBLE, doc! {"_id": id}).await?.pop();
    let noted = noted.ok_or_else(|| unproven("the cluster that it would write has no record of that migration"))?;
    let agrees = noted.get_timestamp("turningPoint").map_or(true, |noted| noted == point);
    if identities(&noted).as_ref() != Some(&now) || !agrees {
        return Err(unproven("the cluster that it would write has another record of that migration"));
    }
    Ok(())
}

/// Lets the former source take writes again, if the cutover blocked them.
pub(crate) async fn let_writes_in(destination: &Cluster) {
    if destination.can().block_user_writes()
        && let Err(failure) = write_block::unblock_writes(destination).await
    {
        // Without the privilege it can't have been blocked by this user either.
        tracing::warn!(%failure, "whether the former source takes writes is not known");
    }
}

/// Notes that both sides hold the same at `from`, so that only what came later is applied.
pub(crate) async fn begin(
    source: &Cluster,
    destination: &Cluster,
    store: &CheckpointStore,
    filter: &NamespaceFilter,
    from: CutoverTime,
    filter_document: Document,
) -> Result<(), Failure> {
    if let Some(finding) = refusal(destination).await? {
        return Err(finding.failure());
    }
    let have: HashMap<Namespace, Option<Uuid>> =
        catalog::list(destination, filter).await?.into_iter().map(|own| (own.ns, own.uuid)).collect();
    let pairs = catalog::list(source, filter).await?.into_iter();
    let pairs: Vec<_> = pairs.filter_map(|entry| entry.uuid.zip(have.get(&entry.ns).copied().flatten())).collect();
    store.record_first_mapping(&pairs).await?;
    // At once: a run that finds an earlier stage copies.
    store.begin(Stage::Indexed, Timestamp { time: from.time, increment: from.increment }, filter_document).await
}

/// Why nothing could be carried back to `cluster`, if so.
pub(crate) async fn refusal(cluster: &Cluster) -> Result<Option<Finding>, Failure> {
    let lacking = cluster.privileges().await?.and_then(|all| all.lacking(privileges::TO_WRITE));
    Ok(lacking.map(|lacking| {
        let evidence = format!("the user of the source can't write all that the reverse migration needs: {lacking}");
        Finding::error(ErrorCode::InsufficientPrivileges, "source", evidence)
    }))
}

/// Makes changes of collections with unique indexes go one after the other. Returns the collections that expire by
/// themselves.
pub(crate) async fn prepare(
    destination: &Cluster,
    registry: &mut CollectionMap,
) -> Result<HashSet<Namespace>, Failure> {
    let (mut ordered, mut expiring) = (Vec::new(), HashSet::new());
    for entry in catalog::list(destination, registry.filter()).await?.iter().filter(|e| e.kind == Kind::Collection) {
        let listed = match index_spec::list(destination, &entry.ns).await {
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
pub(crate) async fn turning_point(destination: &Cluster) -> Result<CutoverTime, Failure> {
    let (Timestamp { time, increment }, _) = destination.optimes().await?;
    Ok(CutoverTime { time, increment })
}
