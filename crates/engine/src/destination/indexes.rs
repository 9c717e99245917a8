//! Secondary indexes: brought on the destination to what the source has, either with the properties deferred that
//! would disturb replication, or as the source has them.
//!
//! Deferred are uniqueness (two documents that swap a unique value pass through different workers) and expiry (the
//! destination must not delete on its own). A destination before 6.0 can't turn an index unique in place: there a
//! unique index is built at the cutover.

use crate::{
    destination::{collection_map::CollectionMap, definition::Place},
    failpoint,
    missing_indexes::RefusedIndex,
    mongo::{
        catalog::{self, Entry, Kind, Uuid},
        cluster::Cluster,
        codes, error,
        index_spec::{IndexPhase, list, same, wanted},
        raw_bson::as_i64,
    },
    tuning::CATALOG_CONCURRENCY,
};
use bson::{Bson, Document, doc};
use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use limosa_model::{ErrorCode, Failure, Namespace, NamespaceFilter};
use std::collections::{BTreeSet, HashMap};

/// Brings the indexes of `destination_ns` to those of `source_ns`. Returns what the destination refused to build.
pub(crate) async fn sync(
    source: &Cluster,
    source_ns: &Namespace,
    destination: &Cluster,
    destination_ns: &Namespace,
    properties: IndexPhase,
) -> Result<Vec<RefusedIndex>, Failure> {
    bring(&list(source, source_ns).await?, destination, destination_ns, properties).await
}

/// The same with what is `listed` on the source.
pub(crate) async fn bring(
    listed: &[Document],
    destination: &Cluster,
    destination_ns: &Namespace,
    properties: IndexPhase,
) -> Result<Vec<RefusedIndex>, Failure> {
    bring_to(listed, destination, &Place::from(destination_ns), properties).await
}

async fn bring_to(
    listed: &[Document],
    destination: &Cluster,
    place: &Place,
    properties: IndexPhase,
) -> Result<Vec<RefusedIndex>, Failure> {
    let want: Vec<Document> = listed.iter().filter_map(|i| wanted(i, properties, destination.can())).collect();
    let have = list(destination, &place.ns).await?;
    let name = |d: &Document| d.get_str("name").unwrap_or_default().to_owned();
    for index in &have {
        if !want.iter().any(|w| name(w) == name(index)) {
            drop_index(destination, place, &name(index)).await?;
        }
    }
    let mut missing = Vec::new();
    for index in want {
        match have.iter().find(|h| name(h) == name(&index)) {
            None => missing.push(index),
            Some(existing) if same(&index, existing) => {}
            Some(existing) => {
                if !convert(destination, place, existing, &index).await? {
                    drop_index(destination, place, &name(&index)).await?;
                    missing.push(index);
                }
            }
        }
    }
    create(destination, place, missing, properties).await
}

/// A collection on both sides.
#[derive(Clone, Debug)]
pub(crate) struct Pairing {
    source: Namespace,
    /// With its UUID, so that nothing else of that name is touched or made.
    pub destination: Place,
}

impl Pairing {
    /// Brings the destination's indexes to the source's. A collection that is gone by now needs none.
    pub async fn bring(
        &self,
        source: &Cluster,
        destination: &Cluster,
        properties: IndexPhase,
    ) -> Result<Vec<RefusedIndex>, Failure> {
        let listed = list(source, &self.source).await?;
        match Box::pin(bring_to(&listed, destination, &self.destination, properties)).await {
            Err(failure) => {
                let now = catalog::find(destination, &self.destination.ns).await?;
                let gone = now.is_none_or(|now| now.uuid != self.destination.uuid);
                if gone { Ok(Vec::new()) } else { Err(failure) }
            }
            brought => brought,
        }
    }
}

/// The collections of the source that the destination has, by the identity that replication knows them by: what is called
/// alike on both sides just now needn't be one.
pub(crate) async fn pairings(
    registry: &CollectionMap,
    only: Option<&BTreeSet<Namespace>>,
) -> Result<Vec<Pairing>, Failure> {
    let (source, destination) = (registry.source(), registry.destination());
    let entries = catalog::list(source, registry.filter()).await?;
    // Under whatever name, also outside of the filter.
    let have = catalog::list(destination, &NamespaceFilter::default()).await?;
    let have: HashMap<Namespace, Entry> = have.into_iter().map(|entry| (entry.ns.clone(), entry)).collect();
    let by_name = !source.can().show_expanded_events();
    let paired = entries.into_iter().filter(|e| e.kind != Kind::View && !e.ns.coll.starts_with(catalog::BUCKETS));
    let paired = paired.filter_map(|entry| {
        let target = match entry.kind {
            Kind::TimeSeries => {
                let buckets = Namespace::new(&entry.ns.db, format!("{}{}", catalog::BUCKETS, entry.ns.coll));
                registry.by_name(&buckets).map(|_| entry.ns.clone())
            }
            _ => {
                let known = entry.uuid.and_then(|uuid| registry.by_uuid(uuid));
                known.or_else(|| registry.by_name(&entry.ns).filter(|_| by_name)).map(|target| target.ns.clone())
            }
        };
        let target = target.filter(|ns| only.is_none_or(|only| only.contains(ns)))?;
        let own = have.get(&target).filter(|own| own.kind != Kind::View)?;
        Some(Pairing { source: entry.ns, destination: Place { ns: target, uuid: own.uuid } })
    });
    Ok(paired.collect())
}

/// Brings the indexes of all collections that replication knows to `properties`.
pub(crate) async fn sync_known(registry: &CollectionMap, properties: IndexPhase) -> Result<(), Failure> {
    let pairings = pairings(registry, None).await?;
    let all: Vec<_> = pairings
        .iter()
        .map(|pair| Box::pin(pair.bring(registry.source(), registry.destination(), properties)))
        .collect();
    let mut synced = futures::stream::iter(all).buffer_unordered(CATALOG_CONCURRENCY);
    while synced.try_next().await?.is_some() {}
    Ok(())
}

/// The same for all collections that `filter` admits and that both sides call alike, as they do at the end of a cutover.
/// Several at a time: most have nothing to do but to be asked.
pub(crate) async fn sync_all(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
    properties: IndexPhase,
) -> Result<(), Failure> {
    let entries = catalog::list(source, filter).await?;
    let have: HashMap<Namespace, Option<Uuid>> =
        catalog::list(destination, filter).await?.into_iter().map(|own| (own.ns, own.uuid)).collect();
    let indexed = entries.iter().filter(|e| e.kind != Kind::View && !e.ns.coll.starts_with(catalog::BUCKETS));
    let pairings: Vec<Pairing> = indexed
        .filter_map(|e| {
            let uuid = *have.get(&e.ns)?;
            Some(Pairing { source: e.ns.clone(), destination: Place { ns: e.ns.clone(), uuid } })
        })
        .collect();
    let all: Vec<_> = pairings.iter().map(|pair| Box::pin(pair.bring(source, destination, properties))).collect();
    let mut synced = futures::stream::iter(all).buffer_unordered(CATALOG_CONCURRENCY);
    while synced.try_next().await?.is_some() {}
    Ok(())
}

/// Builds `specs` in one pass over the collection; those that exist already are left. Returns what was refused, which is
/// an error once properties are final.
pub(crate) async fn create(
    destination: &Cluster,
    place: impl Into<Place>,
    specs: Vec<Document>,
    properties: IndexPhase,
) -> Result<Vec<RefusedIndex>, Failure> {
    build(destination, place.into(), specs, properties).await
}

fn build(
    destination: &Cluster,
    place: Place,
    specs: Vec<Document>,
    properties: IndexPhase,
) -> BoxFuture<'_, Result<Vec<RefusedIndex>, Failure>> {
    Box::pin(build_together(destination, place, specs, properties))
}

async fn build_together(
    destination: &Cluster,
    place: Place,
    specs: Vec<Document>,
    properties: IndexPhase,
) -> Result<Vec<RefusedIndex>, Failure> {
    if specs.is_empty() {
        return Ok(Vec::new());
    }
    let ns = &place.ns;
    let names: Vec<String> = specs.iter().map(|s| s.get_str("name").unwrap_or_default().to_owned()).collect();
    let command = creation(destination, &place, &specs);
    match destination.db(&ns.db).run_command(command).await.and_then(error::confirmed) {
        Ok(_) => Ok(Vec::new()),
        // The release has the parameter, and its feature compatibility version doesn't allow it.
        Err(e)
            if place.uuid.is_some()
                && error::code(&e) == Some(codes::INVALID_OPTIONS)
                && e.to_string().contains("collectionUUID") =>
        {
            build(destination, Place { uuid: None, ..place }, specs, properties).await
        }
        Err(e) if error::is_gone(&e) || error::is_transient(&e) => Err(destination.failure(&e)),
        Err(e) if error::code(&e) == Some(codes::INDEX_ALREADY_EXISTS) => Ok(Vec::new()),
        // One that can't be built keeps none of the others back.
        Err(_) if specs.len() > 1 => {
            let mut refused = Vec::new();
            for spec in specs {
                refused.extend(build(destination, place.clone(), vec![spec], properties).await?);
            }
            Ok(refused)
        }
        // It fits at the cutover: until then another index of a later or earlier time is in its way, or documents of
        // another time are.
        Err(error) if properties == IndexPhase::Deferred => {
            tracing::warn!(%ns, ?names, code = error::code(&error), "an index can't be built yet: {}", error::words(&error));
            let is_lasting = error::code(&error).is_some_and(|code| !codes::is_another_index(code));
            let refused = |name| RefusedIndex { name, is_lasting, why: error::words(&error) };
            Ok(names.into_iter().map(refused).collect())
        }
        Err(e) => {
            let code = match error::code(&e) {
                Some(codes::DUPLICATE_KEY) => ErrorCode::UniqueConversionFailed,
                _ => ErrorCode::IndexBuildFailed,
            };
            Err(Failure::new(code, format!("index {} of {ns}: {}", names.join(", "), error::words(&e))))
        }
    }
}

fn creation(destination: &Cluster, place: &Place, specs: &[Document]) -> Document {
    // Without it an index would take the collection's collation over. Those of the first version know none.
    let explicit = specs.iter().cloned().map(|mut spec| {
        if !spec.contains_key("collation") && as_i64(spec.get("v")) != Some(1) {
            spec.insert("collation", doc! {"locale": "simple"});
        }
        spec
    });
    let indexes: Vec<Document> = explicit.collect();
    // By default every voting member has to build it before it counts as built: one that is down would stop it all.
    let mut command = doc! {
        "createIndexes": &place.ns.coll, "indexes": indexes, "commitQuorum": "majority",
        "writeConcern": {"w": "majority"},
    };
    place.hold(destination, &mut command);
    command
}

/// Drops indexes of the destination's `ns` that may refuse documents which the source accepted: at the first try those
/// that the source's collection doesn't have now, then those of the kinds that refuse documents at all. Returns the names
/// of what was dropped.
pub(crate) async fn drop_conflicting(
    source: &Cluster,
    source_ns: Option<&Namespace>,
    destination: &Cluster,
    ns: &Namespace,
    tries: u32,
) -> Result<Vec<String>, Failure> {
    let current = match source_ns {
        Some(source_ns) => list(source, source_ns).await?,
        None => Vec::new(),
    };
    let may_reject_documents = |index: &Document| {
        index.get_document("key").is_ok_and(|key| key.len() > 1 || key.values().any(|v| v.as_str().is_some()))
    };
    let mut dropped = Vec::new();
    for index in list(destination, ns).await? {
        let name = index.get_str("name").unwrap_or_default();
        let stale = !current
            .iter()
            .any(|own| own.get_str("name").is_ok_and(|n| n == name) && own.get("key") == index.get("key"));
        if stale || (tries > 0 && may_reject_documents(&index)) {
            tracing::warn!(%ns, name, "an index refuses a document of the source; it is dropped, and built again soon");
            drop_index(destination, ns, name).await?;
            dropped.push(name.to_owned());
        }
    }
    if dropped.is_empty() && tries == 0 {
        return Box::pin(drop_conflicting(source, source_ns, destination, ns, 1)).await;
    }
    Ok(dropped)
}

/// Drops an index; that it is gone already is success.
pub(crate) async fn drop_index(destination: &Cluster, place: impl Into<Place>, name: &str) -> Result<(), Failure> {
    let place = place.into();
    let mut command = doc! {"dropIndexes": &place.ns.coll, "index": name};
    place.hold(destination, &mut command);
    match destination.define(&place.ns.db, command).await {
        Ok(_) => Ok(()),
        Err(e) if error::is_gone(&e) => Ok(()),
        Err(e) => Err(destination.failure(&e)),
    }
}

/// Changes `have` into `want` by `collMod` if it can; `false`: it must be built again.
async fn convert(destination: &Cluster, place: &Place, have: &Document, want: &Document) -> Result<bool, Failure> {
    let ns = &place.ns;
    let mut rest_of_have = have.clone();
    let mut rest_of_want = want.clone();
    for changeable in ["unique", "prepareUnique", "expireAfterSeconds", "hidden"] {
        rest_of_have.remove(changeable);
        rest_of_want.remove(changeable);
    }
    if !same(&rest_of_have, &rest_of_want) {
        return Ok(false);
    }
    let flag = |d: &Document, k: &str| d.get_bool(k).unwrap_or(false);
    let name = want.get_str("name").unwrap_or_default();
    let mut steps = Vec::new();
    if flag(want, "hidden") != flag(have, "hidden") {
        steps.push(doc! {"hidden": flag(want, "hidden")});
    }
    if let Some(seconds) = want.get("expireAfterSeconds") {
        if !destination.can().give_an_index_an_expiry() && !have.contains_key("expireAfterSeconds") {
            return Ok(false); // they change an expiry, and don't give one
        }
        if as_i64(Some(seconds)) != as_i64(have.get("expireAfterSeconds")) {
            steps.push(doc! {"expireAfterSeconds": seconds.clone()});
        }
    } else if have.contains_key("expireAfterSeconds") {
        return Ok(false);
    }
    match (flag(have, "unique"), flag(want, "unique")) {
        (true, false) => return Ok(false),
        (false, true) if !destination.can().make_an_index_unique() => return Ok(false),
        (false, true) => steps.extend([doc! {"prepareUnique": true}, doc! {"unique": true}]),
        _ if flag(want, "prepareUnique") != flag(have, "prepareUnique") => {
            steps.push(doc! {"prepareUnique": flag(want, "prepareUnique")});
        }
        _ => {}
    }
    for mut change in steps {
        let unique = change.contains_key("unique");
        if unique {
            failpoint::reach(failpoint::UNIQUE_PREPARED, ns).await;
        }
        change.insert("name", name);
        let mut command = doc! {"collMod": &ns.coll, "index": change};
        place.hold(destination, &mut command);
        match destination.define(&ns.db, command).await {
            Ok(_) if unique => failpoint::reach(failpoint::UNIQUE_MADE, ns).await,
            Ok(_) => {}
            Err(e) if unique && error::code(&e).is_some_and(codes::is_not_unique) => {
                let mut undo = doc! {"collMod": &ns.coll, "index": {"name": name, "prepareUnique": false}};
                place.hold(destination, &mut undo);
                // The index stays as it was for the time until the next try; a failure here changes nothing of that.
                let _ = destination.define(&ns.db, undo).await;
                let told = violations(destination, ns, want, &e).await;
                return Err(Failure::new(ErrorCode::UniqueConversionFailed, told));
            }
            Err(e) => return Err(destination.failure(&e)),
        }
    }
    Ok(true)
}

/// Duplicate keys that are named.
const NAMED: usize = 3;

/// Which documents keep `index` from being unique, and with which keys: the server's refusal lists their `_id`s.
pub(crate) async fn violations(
    destination: &Cluster,
    ns: &Namespace,
    index: &Document,
    refusal: &mongodb::error::Error,
) -> String {
    let name = index.get_str("name").unwrap_or_default();
    let reply = refusal.server_response().map(|reply| crate::mongo::raw_bson::to_document(reply)).unwrap_or_default();
    let listed: Vec<Vec<Bson>> = reply
        .get_array("violations")
        .into_iter()
        .flatten()
        .filter_map(|one| Some(one.as_document()?.get_array("ids").ok()?.clone()))
        .collect();
    if listed.is_empty() {
        return format!("index {name} of {ns} has duplicate keys: {}", error::words(refusal));
    }
    let fields: Document =
        index.get_document("key").into_iter().flatten().map(|(field, _)| (field.clone(), Bson::Int32(1))).collect();
    let mut told = Vec::new();
    for ids in listed.iter().take(NAMED) {
        let shown: Vec<String> =
            ids.iter().take(NAMED).map(|id| id.clone().into_relaxed_extjson().to_string()).collect();
        let key = match key_of(destination, ns, ids.first(), &fields).await {
            Some(key) => Bson::Document(key).into_relaxed_extjson().to_string(),
            None => "a key".to_owned(),
        };
        told.push(format!("{key} in the documents with _id {}", shown.join(", ")));
    }
    let more = if listed.len() > NAMED { format!(" and {} more keys", listed.len() - NAMED) } else { String::new() };
    format!("index {name} of {ns} has duplicate keys: {}{more}", told.join("; "))
}

/// The values of `fields` in the document with this `_id`.
async fn key_of(destination: &Cluster, ns: &Namespace, id: Option<&Bson>, fields: &Document) -> Option<Document> {
    let mut projection = fields.clone();
    projection.entry("_id".to_owned()).or_insert(Bson::Int32(0));
    let filter = doc! {"_id": id.cloned()};
    let command = doc! {"find": &ns.coll, "filter": filter, "projection": projection, "limit": 1, "singleBatch": true};
    let found = destination.db(&ns.db).run_cursor_command(command).await.ok()?;
    found.try_collect::<Vec<Document>>().await.ok()?.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn duplicate_keys_are_named_and_the_index_stays_as_it_was() {
        let set = limosa_testkit::ReplicaSet::start().await.expect("starts");
        let uri = limosa_model::Secret::new(set.uri());
        let cluster = Cluster::connect(crate::mongo::side::Side::Destination, &uri).await.expect("connects");
        let ns = Namespace::new("app", "c");
        let documents = vec![doc! {"_id": 1, "mail": "x"}, doc! {"_id": 2, "mail": "x"}, doc! {"_id": 3, "mail": "y"}];
        cluster.db("app").run_command(doc! {"insert": "c", "documents": documents}).await.expect("inserts");
        let plain = doc! {"v": 2, "key": {"mail": 1}, "name": "mail"};
        create(&cluster, &ns, vec![plain.clone()], IndexPhase::Deferred).await.expect("builds");
        let mut unique = plain.clone();
        unique.insert("unique", true);
        let failure = convert(&cluster, &Place::from(&ns), &plain, &unique).await.expect_err("is refused");
        assert_eq!(failure.code, ErrorCode::UniqueConversionFailed);
        let told = r#"index mail of app.c has duplicate keys: {"mail":"x"} in the documents with _id 1, 2"#;
        assert_eq!(failure.message, told);
        assert!(same(&list(&cluster, &ns).await.expect("lists")[0], &plain));
    }
}
