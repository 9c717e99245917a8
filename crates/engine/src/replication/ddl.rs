//! Carries changes of the catalog over. Each is applied with everything before it applied and nothing after it, and
//! exactly once: what it is about to act on is noted before, in the checkpoint, and the position after it right after.

use crate::{
    copy::batch_writer::CopyBatchWriter,
    destination::{
        collection_map::{CollectionMap, Target},
        definition::{self, Place},
        indexes,
    },
    mongo::{
        catalog::{self, Entry, Kind, Uuid},
        error,
        index_spec::{self, IndexPhase},
    },
    progress::ProgressTracker,
    replication::resync::adopt,
    source::event::Event,
};
use bson::{Document, Timestamp, doc};
use limosa_model::{Failure, Namespace};
use std::sync::Arc;

/// What the destination had where the event acts, to tell after a crash whether the event was applied already.
pub(crate) async fn intent(event: &Event<'_>, registry: &CollectionMap) -> Result<Document, Failure> {
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
/// the destination is of the event's time. Returns the source's time up to which a collection that was copied again may
/// be ahead.
///
/// What an earlier try has done is seen from where the destination has the collection, by its UUID: the registry knows
/// that when it is loaded.
pub(crate) async fn apply(
    event: &Event<'_>,
    registry: &mut CollectionMap,
    slot: &CopyBatchWriter,
    tracker: &ProgressTracker,
    noted: Option<&Document>,
    exact: bool,
) -> Result<Option<Timestamp>, Failure> {
    let ns = event.ns();
    tracing::info!(operation = event.operation, %ns, "applying a definition");
    match event.operation {
        "rename" => return rename(event, &ns, registry, slot, tracker, noted, exact).await,
        "create" => create(event, &ns, registry, noted).await,
        "drop" => match current(event, &ns, registry) {
            Some(target) => drop_on_destination(&target, registry).await,
            None => Ok(()),
        },
        "modify" => modify(event, &ns, registry).await,
        "dropDatabase" => {
            for target in registry.of_database(event.db) {
                if target.uuid.is_none() || !registry.source().can().show_expanded_events() {
                    drop_on_destination(&target, registry).await?;
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

/// The event's collection on the destination.
fn current(event: &Event<'_>, ns: &Namespace, registry: &CollectionMap) -> Option<Arc<Target>> {
    match event.uuid {
        Some(uuid) => registry.by_uuid(uuid),
        None => registry.by_name(ns),
    }
}

async fn create(
    event: &Event<'_>,
    ns: &Namespace,
    registry: &mut CollectionMap,
    noted: Option<&Document>,
) -> Result<(), Failure> {
    let Some(uuid) = event.uuid else { return Ok(()) };
    if registry.by_uuid(uuid).is_some() || !registry.filter().admits(&ns.db, &ns.coll) {
        return Ok(());
    }
    // What has gone from the source meanwhile needs no place here: the end of it is in the stream too. Looking at the
    // source also tells the options of what is still there, under whatever name.
    let Some(entry) = catalog::find_by_uuid(registry.source(), ns, uuid).await? else {
        return drop_orphans(ns, uuid, noted.and_then(|noted| noted.get_str("at").ok()), registry).await;
    };
    let occupied = registry.by_name(ns).is_some();
    let name = if occupied { parked(ns, uuid) } else { ns.clone() };
    registry.create(&entry, &name).await
}

/// Drops what a run that died made for this event and didn't note: it is nobody's, and isn't what was there `before`.
async fn drop_orphans(
    ns: &Namespace,
    uuid: Uuid,
    before: Option<&str>,
    registry: &CollectionMap,
) -> Result<(), Failure> {
    let Some(before) = before else { return Ok(()) };
    let destination = registry.destination();
    for place in [ns.clone(), parked(ns, uuid)] {
        let Some(found) = catalog::find(destination, &place).await?.and_then(|entry| entry.uuid) else { continue };
        if registry.owner(found).is_none() && registry.by_name(&place).is_none() && hex(found) != before {
            tracing::info!(ns = %place, "dropping what was made for a collection that is gone");
            definition::drop_collection(destination, &Place { ns: place, uuid: Some(found) }).await?;
        }
    }
    Ok(())
}

/// A name for a collection whose own is taken by one that, on the source, gets it only later: renames that follow in
/// the stream bring both where they belong.
pub(crate) fn parked(ns: &Namespace, uuid: Uuid) -> Namespace {
    Namespace::new(&ns.db, format!("limosa.parked.{}", hex(uuid)))
}

async fn drop_on_destination(target: &Target, registry: &mut CollectionMap) -> Result<(), Failure> {
    definition::drop_collection(registry.destination(), &target.place()).await?;
    registry.remove(&target.ns);
    Ok(())
}

async fn rename(
    event: &Event<'_>,
    ns: &Namespace,
    registry: &mut CollectionMap,
    slot: &CopyBatchWriter,
    tracker: &ProgressTracker,
    noted: Option<&Document>,
    exact: bool,
) -> Result<Option<Timestamp>, Failure> {
    let Some(to) = rename_target(event) else { return Ok(None) };
    let Some(uuid) = event.uuid else {
        return rename_by_name(ns, &to, registry, slot, tracker, noted, exact).await;
    };
    let dropped = described(event).and_then(|d| d.get_binary("dropTarget").ok());
    let dropped: Option<Uuid> = dropped.and_then(|b| b.bytes.try_into().ok());
    // What it replaces may be elsewhere here; in its own place it goes with the rename.
    if let Some(replaced) = dropped.and_then(|uuid| registry.by_uuid(uuid)).filter(|replaced| replaced.ns != to) {
        drop_on_destination(&replaced, registry).await?;
    }
    let stays = registry.filter().admits(&to.db, &to.coll);
    let is_another = |occupant: &Arc<Target>| ![Some(uuid), dropped].contains(&occupant.uuid);
    let occupied = registry.by_name(&to).is_some_and(|occupant| is_another(&occupant));
    let name = if occupied { parked(&to, uuid) } else { to.clone() };
    match registry.by_uuid(uuid) {
        // It has left the migrated namespaces.
        Some(target) if !stays => drop_on_destination(&target, registry).await.map(|()| None),
        Some(target) => rename_on_destination(&target, &name, registry).await.map(|()| None),
        // It has come into them, unless it is gone from the source since: then what it replaced is all that goes.
        None if stays => match catalog::find_by_uuid(registry.source(), &to, uuid).await? {
            Some(entry) => adopt(registry, slot, tracker, &entry, &name).await.map(Some),
            None => {
                if let Some(replaced) = dropped.and_then(|uuid| registry.by_uuid(uuid)) {
                    drop_on_destination(&replaced, registry).await?;
                }
                let before = noted.and_then(|noted| noted.get_str("to").ok());
                drop_orphans(&to, uuid, before, registry).await.map(|()| None)
            }
        },
        None => Ok(None),
    }
}

/// Before 6.0 an event says only what a collection was called. What the destination has under a name may then be of
/// another time and so of another collection: unless everything is of the event's time, both names are copied again as
/// they are on the source, and what follows in the stream is applied to that.
async fn rename_by_name(
    from: &Namespace,
    to: &Namespace,
    registry: &mut CollectionMap,
    slot: &CopyBatchWriter,
    tracker: &ProgressTracker,
    noted: Option<&Document>,
    exact: bool,
) -> Result<Option<Timestamp>, Failure> {
    let admits = |ns: &Namespace| registry.filter().admits(&ns.db, &ns.coll);
    let (leaves, stays) = (admits(from), admits(to));
    if exact && stays {
        // What an earlier try meant to rename has that name already.
        let meant = noted.and_then(|noted| noted.get_str("at").ok()).filter(|meant| !meant.is_empty());
        let there = registry.by_name(to).and_then(|target| target.own).map(hex);
        if meant.is_some() && there.as_deref() == meant {
            return Ok(None);
        }
        if let Some(target) =
            registry.by_name(from).filter(|own| meant.is_none_or(|meant| own.own.map(hex).as_deref() == Some(meant)))
        {
            return rename_on_destination(&target, to, registry).await.map(|()| None);
        }
    }
    let mut until = None;
    for ns in [from, to].into_iter().zip([leaves, stays]).filter_map(|(ns, inside)| inside.then_some(ns)) {
        match catalog::find(registry.source(), ns).await?.filter(|entry| entry.kind == Kind::Collection) {
            Some(entry) => until = Some(adopt(registry, slot, tracker, &entry, ns).await?),
            None => match registry.by_name(ns) {
                Some(target) => drop_on_destination(&target, registry).await?,
                None => definition::drop_collection(registry.destination(), &ns.into()).await?,
            },
        }
    }
    Ok(until)
}

async fn rename_on_destination(target: &Target, to: &Namespace, registry: &mut CollectionMap) -> Result<(), Failure> {
    if target.ns == *to {
        return Ok(());
    }
    definition::rename_collection(registry.destination(), &target.place(), to).await?;
    registry.rename(&target.ns, to);
    Ok(())
}

/// Brings the options of one collection to what the source has now; expiry waits for the cutover.
async fn modify(event: &Event<'_>, ns: &Namespace, registry: &CollectionMap) -> Result<(), Failure> {
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
    target.place().hold(registry.destination(), &mut command);
    match registry.destination().define(&target.ns.db, command).await {
        Ok(_) => Ok(()),
        // The cutover compares all options and tells what can't be changed.
        Err(e) if error::code(&e).is_some() && !error::is_transient(&e) => {
            tracing::warn!(ns = %target.ns, code = error::code(&e), "options can't be changed before the cutover");
            Ok(())
        }
        Err(e) => Err(registry.destination().failure(&e)),
    }
}

async fn create_indexes(event: &Event<'_>, ns: &Namespace, registry: &CollectionMap) -> Result<(), Failure> {
    let Some(target) = current(event, ns, registry) else { return Ok(()) };
    let specs = described(event).and_then(|d| d.get_array("indexes").ok());
    let specs = specs.into_iter().flat_map(|all| all.into_iter().flatten()).filter_map(|spec| spec.as_document());
    for spec in specs {
        let (spec, to) = (crate::mongo::raw_bson::to_document(spec), registry.destination());
        let Some(wanted) = index_spec::wanted(&spec, IndexPhase::Deferred, to.can()) else {
            continue;
        };
        let place = target.place();
        indexes::create(registry.destination(), place, vec![wanted], IndexPhase::Deferred).await?;
    }
    Ok(())
}

async fn drop_indexes(event: &Event<'_>, ns: &Namespace, registry: &CollectionMap) -> Result<(), Failure> {
    let Some(target) = current(event, ns, registry) else { return Ok(()) };
    let specs = described(event).and_then(|d| d.get_array("indexes").ok());
    let specs = specs.into_iter().flat_map(|all| all.into_iter().flatten()).filter_map(|spec| spec.as_document());
    for name in specs.filter_map(|spec| spec.get_str("name").ok()) {
        indexes::drop_index(registry.destination(), target.place(), name).await?;
    }
    Ok(())
}
