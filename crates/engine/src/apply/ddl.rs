//! Carries changes of the catalog over. Each is applied with everything before it applied and nothing after it, and
//! exactly once: what it is about to act on is noted before, in the checkpoint, and the position after it right after.

use super::{adopt::adopt, registry::Registry};
use crate::{
    catalog::{self, Entry, Kind, Uuid},
    copy::slot::Slot,
    error, indexes,
    progress::Tracker,
    stream::event::Event,
};
use bson::{Document, Timestamp, doc};
use limosa_model::{Failure, Namespace};

/// What the destination had where the event acts, to tell after a crash whether the event was applied already.
pub(crate) async fn intent(event: &Event<'_>, registry: &Registry) -> Result<Document, Failure> {
    let uuid = |entry: Option<Entry>| entry.and_then(|e| e.uuid).map(hex).unwrap_or_default();
    let mut noted =
        doc! {"operation": event.operation, "at": uuid(catalog::find(registry.destination(), &event.ns()).await?)};
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

/// Applies a definition event. `noted` is the intent that a crashed run left for this very event. `exact`: everything on
/// the destination is of the event's time. Returns the source's time up to which a collection that was copied anew may
/// be ahead.
pub(crate) async fn apply(
    event: &Event<'_>,
    registry: &mut Registry,
    slot: &Slot,
    tracker: &Tracker,
    noted: Option<&Document>,
    exact: bool,
) -> Result<Option<Timestamp>, Failure> {
    let ns = event.ns();
    tracing::info!(operation = event.operation, %ns, "applying a definition");
    // Named events change the namespace's meaning; if it changed since the intent, this one did it.
    let done_before = match noted {
        Some(noted) => {
            let now = intent(event, registry).await?;
            matches!(event.operation, "drop" | "rename")
                && ["at", "to"].iter().any(|part| now.get(part) != noted.get(part))
        }
        None => false,
    };
    match event.operation {
        "rename" => {
            return rename(event, &ns, registry, slot, tracker, done_before, exact).await;
        }
        "create" => create(event, &ns, registry).await,
        "drop" if done_before => {
            if let Some(ns) = current(event, &ns, registry) {
                registry.remove(&ns);
            }
            Ok(())
        }
        "drop" => drop_collection(event, &ns, registry).await,
        "modify" => modify(event, &ns, registry).await,
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
        // What views do is brought over by comparing catalogs at the cutover.
        _ => Ok(()),
    }
    .map(|()| None)
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
    let Some(entry) = catalog::find_by_uuid(registry.source(), ns, uuid).await? else {
        registry.forget(uuid);
        return Ok(());
    };
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
    let command = doc! {"drop": name, "writeConcern": {"w": "majority"}};
    match registry.destination().db(&ns.db).run_command(command).await.and_then(error::confirmed) {
        Ok(_) => {}
        Err(e) if error::is_gone(&e) => {}
        Err(e) => return Err(registry.destination().failure(&e)),
    }
    registry.remove(ns);
    Ok(())
}

async fn rename(
    event: &Event<'_>,
    ns: &Namespace,
    registry: &mut Registry,
    slot: &Slot,
    tracker: &Tracker,
    done_before: bool,
    exact: bool,
) -> Result<Option<Timestamp>, Failure> {
    let Some(to) = rename_target(event) else { return Ok(None) };
    let Some(uuid) = event.uuid else {
        return rename_by_name(ns, &to, registry, slot, tracker, exact && !done_before).await;
    };
    let dropped = event.raw.get_document("operationDescription").ok().and_then(|d| d.get_binary("dropTarget").ok());
    let dropped: Option<Uuid> = dropped.and_then(|b| b.bytes.try_into().ok());
    let from = registry.by_uuid(uuid).map(|target| target.ns.clone());
    if let (Some(from), true) = (&from, done_before) {
        registry.rename(from, &to);
        return Ok(None);
    }
    if from.as_ref() == Some(&to) {
        return Ok(None);
    }
    if let Some(replaced) = dropped.and_then(|uuid| registry.by_uuid(uuid)) {
        drop_on_destination(&replaced.ns.clone(), registry).await?;
    }
    let stays = registry.filter().admits(&to.db, &to.coll);
    let name = if registry.by_name(&to).is_some() { parked(&to, uuid) } else { to.clone() };
    match from {
        // It has left the migrated namespaces.
        Some(from) if !stays => drop_on_destination(&from, registry).await.map(|()| None),
        Some(from) => rename_on_destination(&from, &name, registry).await.map(|()| None),
        // It has come into them, unless it is gone from the source since.
        None if stays => match catalog::find_by_uuid(registry.source(), &to, uuid).await? {
            Some(entry) => adopt(registry, slot, tracker, &entry, &name).await.map(Some),
            None => {
                registry.forget(uuid);
                Ok(None)
            }
        },
        None => Ok(None),
    }
}

/// Before 6.0 an event says only what a collection was called. What the destination has under a name may then be of
/// another time and so of another collection: unless everything is of the event's time, both names are copied anew as
/// they are on the source, and what follows in the stream is applied to that.
async fn rename_by_name(
    from: &Namespace,
    to: &Namespace,
    registry: &mut Registry,
    slot: &Slot,
    tracker: &Tracker,
    exact: bool,
) -> Result<Option<Timestamp>, Failure> {
    let admits = |ns: &Namespace| registry.filter().admits(&ns.db, &ns.coll);
    let (leaves, stays) = (admits(from), admits(to));
    if exact && stays && registry.by_name(from).is_some() {
        drop_on_destination(to, registry).await?;
        return rename_on_destination(from, to, registry).await.map(|()| None);
    }
    let mut until = None;
    for ns in [from, to].into_iter().zip([leaves, stays]).filter_map(|(ns, inside)| inside.then_some(ns)) {
        match catalog::find(registry.source(), ns).await?.filter(|entry| entry.kind == Kind::Collection) {
            Some(entry) => until = Some(adopt(registry, slot, tracker, &entry, ns).await?),
            None => drop_on_destination(ns, registry).await?,
        }
    }
    Ok(until)
}

async fn rename_on_destination(from: &Namespace, to: &Namespace, registry: &mut Registry) -> Result<(), Failure> {
    let command = doc! {"renameCollection": from.to_string(), "to": to.to_string(), "writeConcern": {"w": "majority"}};
    match registry.destination().db("admin").run_command(command).await.and_then(error::confirmed) {
        Ok(_) => {}
        Err(e) if error::is_gone(&e) => {}
        Err(e) => return Err(registry.destination().failure(&e)),
    }
    registry.rename(from, to);
    Ok(())
}

/// Brings the options of one collection to what the source has now; expiry waits for the cutover.
async fn modify(event: &Event<'_>, ns: &Namespace, registry: &Registry) -> Result<(), Failure> {
    let Some(target) = event.uuid.and_then(|uuid| registry.by_uuid(uuid)) else { return Ok(()) };
    let Some(want) = (match target.uuid {
        Some(uuid) => catalog::find_by_uuid(registry.source(), ns, uuid).await?,
        None => None,
    }) else {
        return Ok(());
    };
    let Some(have) = catalog::find(registry.destination(), &target.ns).await? else { return Ok(()) };
    let mut changes = catalog::option_changes(&want, &have);
    changes.remove("expireAfterSeconds");
    if changes.is_empty() {
        return Ok(());
    }
    let mut command = doc! {"collMod": &target.ns.coll};
    command.extend(changes);
    match registry.destination().db(&target.ns.db).run_command(command).await {
        Ok(_) => Ok(()),
        // The cutover compares all options and tells what can't be changed.
        Err(e) if error::code(&e).is_some() && !error::is_transient(&e) => {
            tracing::warn!(ns = %target.ns, code = error::code(&e), "options can't be changed before the cutover");
            Ok(())
        }
        Err(e) => Err(registry.destination().failure(&e)),
    }
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
        indexes::create(registry.destination(), &ns, vec![wanted], indexes::Properties::Deferred).await?;
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
