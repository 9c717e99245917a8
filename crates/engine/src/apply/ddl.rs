//! Carries changes of the catalog over. Each is applied with everything before it applied and nothing after it, and
//! exactly once: what it is about to act on is noted before, in the checkpoint, and the position after it right after.

use super::registry::Registry;
use crate::{
    catalog::{self, Entry, Kind, Uuid},
    error, indexes,
    stream::event::Event,
};
use bson::{Document, doc};
use limosa_model::{Failure, Namespace};

/// What the destination had where the event acts, to tell after a crash whether the event was applied already.
pub(crate) async fn intent(event: &Event<'_>, registry: &Registry) -> Result<Document, Failure> {
    let uuid = |entry: Option<Entry>| entry.and_then(|e| e.uuid).map(hex).unwrap_or_default();
    let mut noted =
        doc! {"operation": event.operation(), "at": uuid(catalog::find(registry.destination(), &event.ns()).await?)};
    if let Some(to) = rename_target(event) {
        noted.insert("to", uuid(catalog::find(registry.destination(), &to).await?));
    }
    Ok(noted)
}

fn hex(uuid: Uuid) -> String {
    uuid.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rename_target(event: &Event<'_>) -> Option<Namespace> {
    let to = event.raw.get_document("to").ok()?;
    Some(Namespace::new(to.get_str("db").ok()?, to.get_str("coll").ok()?))
}

/// Applies a definition event. `noted` is the intent that a crashed run left for this very event.
pub(crate) async fn apply(event: &Event<'_>, registry: &mut Registry, noted: Option<&Document>) -> Result<(), Failure> {
    let ns = event.ns();
    tracing::info!(operation = event.operation(), %ns, "applying a definition");
    // Named events change the namespace's meaning; if it changed since the intent, this one did it.
    let done_before = match noted {
        Some(noted) => {
            let now = intent(event, registry).await?;
            matches!(event.operation(), "drop" | "rename")
                && ["at", "to"].iter().any(|part| now.get(part) != noted.get(part))
        }
        None => false,
    };
    match event.operation() {
        "create" => create(event, &ns, registry).await,
        "drop" if done_before => {
            registry.remove(&ns);
            Ok(())
        }
        "drop" => drop_collection(event, &ns, registry).await,
        "rename" => rename(event, &ns, registry, done_before).await,
        "dropDatabase" => {
            for ns in registry.of_database(event.db) {
                if registry.by_name(&ns).is_some_and(|t| t.uuid.is_none()) || registry.source().version < (6, 0, 0) {
                    drop_on_destination(&ns, registry).await?;
                }
            }
            Ok(())
        }
        "createIndexes" => create_indexes(event, &ns, registry).await,
        "dropIndexes" => drop_indexes(event, &ns, registry).await,
        // `modify` and what views do is brought over by comparing catalogs, before the cutover and at it.
        _ => Ok(()),
    }
}

fn described<'a>(event: &Event<'a>) -> Option<&'a bson::RawDocument> {
    event.raw.get_document("operationDescription").ok()
}

/// Where the event's collection is on the destination.
fn current(event: &Event<'_>, ns: &Namespace, registry: &Registry) -> Option<Namespace> {
    match event.uuid {
        Some(uuid) => registry.by_uuid(uuid).map(|target| target.ns.clone()),
        None => registry.by_name(ns).map(|target| target.ns.clone()),
    }
}

async fn create(event: &Event<'_>, ns: &Namespace, registry: &mut Registry) -> Result<(), Failure> {
    let Some(uuid) = event.uuid else { return Ok(()) };
    if registry.by_uuid(uuid).is_some() || registry.is_gone(uuid) || !registry.filter().admits(&ns.db, &ns.coll) {
        return Ok(());
    }
    // What has gone from the source meanwhile needs no place here: the end of it is in the stream too. Looking at the
    // source also tells the options of what is still there, under whatever name.
    let Some(entry) = catalog::find_by_uuid(registry.source(), &ns.db, uuid).await? else {
        registry.forget(uuid);
        return Ok(());
    };
    if let Some(plain) = ns.coll.strip_prefix(catalog::BUCKETS) {
        // Its time-series collection is what can be created.
        let series = Namespace::new(&ns.db, plain);
        if let Some(series) = catalog::find(registry.source(), &series).await?.filter(|e| e.kind == Kind::TimeSeries) {
            catalog::create(registry.destination(), &series.ns, &series.options).await?;
        }
        return registry.create(&entry, ns).await;
    }
    let occupied = registry.by_name(ns).is_some();
    let name = if occupied { parked(ns, uuid) } else { ns.clone() };
    registry.create(&entry, &name).await
}

/// A name for a collection whose own is taken by one that, on the source, gets it only later: renames that follow in
/// the stream bring both where they belong.
fn parked(ns: &Namespace, uuid: Uuid) -> Namespace {
    Namespace::new(&ns.db, format!("limosa.parked.{}", hex(uuid)))
}

async fn drop_collection(event: &Event<'_>, ns: &Namespace, registry: &mut Registry) -> Result<(), Failure> {
    match current(event, ns, registry) {
        Some(ns) => drop_on_destination(&ns, registry).await,
        None => {
            event.uuid.into_iter().for_each(|uuid| registry.forget(uuid));
            Ok(())
        }
    }
}

async fn drop_on_destination(ns: &Namespace, registry: &mut Registry) -> Result<(), Failure> {
    let name = ns.coll.strip_prefix(catalog::BUCKETS).unwrap_or(&ns.coll);
    match registry.destination().db(&ns.db).run_command(doc! {"drop": name, "writeConcern": {"w": "majority"}}).await {
        Ok(_) => {}
        Err(e) if error::is_gone(&e) => {}
        Err(e) => return Err(registry.destination().failure(&e)),
    }
    registry.remove(ns);
    Ok(())
}

async fn rename(event: &Event<'_>, ns: &Namespace, registry: &mut Registry, done_before: bool) -> Result<(), Failure> {
    let Some(to) = rename_target(event) else { return Ok(()) };
    let dropped = event.raw.get_document("operationDescription").ok().and_then(|d| d.get_binary("dropTarget").ok());
    let dropped: Option<Uuid> = dropped.and_then(|b| b.bytes.try_into().ok());
    let Some(from) = current(event, ns, registry) else {
        // Unknown here: outside the filter, or gone from the source since. What it replaced is gone all the same.
        if let Some(replaced) = dropped.and_then(|uuid| registry.by_uuid(uuid)) {
            drop_on_destination(&replaced.ns.clone(), registry).await?;
        }
        return match event.uuid {
            Some(uuid) if registry.filter().admits(&to.db, &to.coll) => adopt(uuid, &to, registry).await,
            _ => Ok(()),
        };
    };
    if from == to {
        return Ok(());
    }
    if done_before {
        registry.rename(&from, &to);
        return Ok(());
    }
    if let Some(replaced) = dropped.and_then(|uuid| registry.by_uuid(uuid)) {
        drop_on_destination(&replaced.ns.clone(), registry).await?;
    } else if event.uuid.is_none() && registry.by_name(&to).is_some() {
        drop_on_destination(&to, registry).await?;
    }
    let to = match (registry.by_name(&to), event.uuid) {
        (Some(_), Some(uuid)) => parked(&to, uuid),
        _ => to,
    };
    let command = doc! {"renameCollection": from.to_string(), "to": to.to_string(), "writeConcern": {"w": "majority"}};
    match registry.destination().db("admin").run_command(command).await {
        Ok(_) => {}
        Err(e) if error::is_gone(&e) => {}
        Err(e) => return Err(registry.destination().failure(&e)),
    }
    registry.rename(&from, &to);
    Ok(())
}

/// A collection came into the filter by its new name: its documents aren't in the stream.
async fn adopt(uuid: Uuid, to: &Namespace, registry: &mut Registry) -> Result<(), Failure> {
    if registry.is_gone(uuid) || catalog::find_by_uuid(registry.source(), &to.db, uuid).await?.is_none() {
        registry.forget(uuid);
        return Ok(());
    }
    Err(Failure::new(
        limosa_model::ErrorCode::UnsupportedCollection,
        format!("a collection outside of the migrated namespaces was renamed to {to}, which is inside"),
    ))
}

async fn create_indexes(event: &Event<'_>, ns: &Namespace, registry: &Registry) -> Result<(), Failure> {
    let Some(ns) = current(event, ns, registry) else { return Ok(()) };
    let specs = described(event).and_then(|d| d.get_array("indexes").ok());
    let specs = specs.into_iter().flat_map(|all| all.into_iter().flatten()).filter_map(|spec| spec.as_document());
    for spec in specs {
        let version = registry.destination().version;
        let Some(wanted) = indexes::wanted(&crate::raw::to_document(spec), indexes::Properties::Deferred, version)
        else {
            continue;
        };
        indexes::create(registry.destination(), &ns, vec![wanted]).await?;
    }
    Ok(())
}

async fn drop_indexes(event: &Event<'_>, ns: &Namespace, registry: &Registry) -> Result<(), Failure> {
    let Some(ns) = current(event, ns, registry) else { return Ok(()) };
    let specs = described(event).and_then(|d| d.get_array("indexes").ok());
    let specs = specs.into_iter().flat_map(|all| all.into_iter().flatten()).filter_map(|spec| spec.as_document());
    for name in specs.filter_map(|spec| spec.get_str("name").ok()) {
        indexes::drop_index(registry.destination(), &ns, name).await?;
    }
    Ok(())
}
