//! The copy made again over what an earlier one left, after the source's history was lost. Nothing tells what changed in
//! between, so each range is compared: equal documents stay, others are replaced, and what the source no longer has is
//! removed. No change of the stream is applied meanwhile, so that nothing on the destination is ahead of the source.
//!
//! Capped, clustered and time-series collections can't be brought up to date in place; they are dropped before and copied whole.

use crate::{
    copy::{
        batch_writer::{CopyBatchWriter, Written},
        plan::CopyRange,
    },
    destination::{
        checkpoint::{CheckpointStore, ElectionId},
        definition,
        write_commands::puts,
    },
    mongo::{
        catalog::{self, Entry},
        cluster::Cluster,
        error,
        find_by_id::{self, IDS},
        range_read, raw_bson,
        raw_builder::{RawArrayBuilder, RawDocBuilder},
        raw_value::{Value, id_of},
    },
    retry::Backoff,
    throttle::Reads,
};
use bson::{Binary, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, spec::BinarySubtype};
use limosa_model::{Failure, Namespace, NamespaceFilter};
use std::collections::{HashMap, HashSet};

/// Whether a collection of the destination can be brought up to date document by document.
pub(super) fn in_place(own: Option<&Entry>) -> bool {
    own.is_some_and(|own| {
        !own.is_capped() && !own.ns.coll.starts_with(catalog::BUCKETS) && !own.options.contains_key("clusteredIndex")
    })
}

/// Drops what this migration made on the destination and what is no longer, or is called otherwise, on the source.
pub(crate) async fn prepare(
    source: &Cluster,
    destination: &Cluster,
    store: &CheckpointStore,
    filter: &NamespaceFilter,
) -> Result<(), Failure> {
    let now: HashMap<_, _> =
        catalog::list(source, filter).await?.into_iter().filter_map(|e| Some((e.uuid?, e.ns))).collect();
    let made: HashMap<_, _> = store.mapped().await?.into_iter().map(|(source, own)| (own, source)).collect();
    for entry in catalog::list(destination, filter).await? {
        let Some(origin) = entry.uuid.and_then(|uuid| made.get(&uuid)) else { continue };
        if !in_place(Some(&entry)) || now.get(origin) != Some(&entry.ns) {
            let name = entry.ns.coll.strip_prefix(catalog::BUCKETS).unwrap_or(&entry.ns.coll);
            tracing::info!(ns = %entry.ns, "dropped, to be copied whole");
            definition::drop_namespace(destination, &Namespace::new(&entry.ns.db, name)).await?;
        }
    }
    Ok(())
}

impl CopyBatchWriter {
    /// Makes the destination's documents those of `documents`, writing only what differs.
    pub(super) async fn refresh(&self, ns: &Namespace, documents: &RawArrayBuf) -> Result<Written, Failure> {
        let all: Vec<&RawDocument> = documents.into_iter().flatten().filter_map(|v| v.as_document()).collect();
        let bytes = all.iter().map(|d| d.as_bytes().len() as u64).sum();
        let own =
            find_by_id::found(self.destination(), ns, all.iter().filter_map(|d| id_of(d)), Document::new()).await?;
        let differs = |document: &RawDocument| {
            let own = id_of(document).and_then(|id| own.get(&raw_bson::canonical_id(id, false)));
            own.is_none_or(|own| own.as_bytes() != document.as_bytes())
        };
        let differing: Vec<&RawDocument> = all.iter().copied().filter(|document| differs(document)).collect();
        let mut terms = HashSet::new();
        for (_, command) in puts(ns, &differing).map_err(|e| self.destination().failure(&e))? {
            terms.extend(self.write(ns, command).await?);
        }
        Ok(Written { documents: all.len() as u64, bytes, terms, in_transaction: true })
    }

    /// Removes what the destination has within `range` and the source has not; `None` if the source's collection has no
    /// longer the name that it is read under.
    pub(super) async fn remove_extra(
        &self,
        source: &Cluster,
        range: &CopyRange,
    ) -> Result<Option<HashSet<ElectionId>>, Failure> {
        let mut command = doc! {"find": &range.ns.coll, "projection": {"_id": 1}, "batchSize": IDS as i32};
        command.extend(range_read::bounded(Some(doc! {"_id": 1}), range.min.as_ref(), range.max.as_ref()));
        let failed = |e: mongodb::error::Error| self.destination().failure(&e);
        let db = self.destination().db(&range.ns.db);
        let mut cursor = db.run_cursor_command(command).batch_size(IDS as u32).batch().await.map_err(failed)?;
        let mut terms = HashSet::new();
        while let Some(batch) = cursor.next().await {
            let batch = batch.map_err(failed)?;
            let own: Vec<_> =
                batch.doc_slices().map_err(failed)?.into_iter().flatten().filter_map(|v| v.as_document()).collect();
            if own.is_empty() {
                continue;
            }
            let ids: Vec<Value<'_>> = own.iter().filter_map(|d| id_of(d)).collect();
            let Some(there) = still_there(source, range, &ids).await? else { return Ok(None) };
            let mut deletes = RawArrayBuilder::with_capacity(1024);
            let mut any = false;
            for id in own
                .iter()
                .filter_map(|d| id_of(d))
                .filter(|id| !there.contains_key(&raw_bson::canonical_id(*id, false)))
            {
                let query = RawDocBuilder::new().value("_id", id).into_bytes();
                let statement = RawDocBuilder::new().document("q", &query).value("limit", RawBsonRef::Int32(1));
                deletes.push_document(&statement.into_bytes());
                any = true;
            }
            if any {
                let head = doc! {"delete": &range.ns.coll, "ordered": true};
                let command = RawDocBuilder::new().extend(&head).and_then(|c| c.array("deletes", deletes).build());
                terms.extend(self.write(&range.ns, command.map_err(failed)?).await?);
            }
        }
        Ok(Some(terms))
    }
}

/// Which of `ids` the range's own collection has, whatever has its name by now; `None` if it is called otherwise.
async fn still_there(
    source: &Cluster,
    range: &CopyRange,
    ids: &[Value<'_>],
) -> Result<Option<HashMap<Vec<u8>, RawDocumentBuf>>, Failure> {
    let mut options = doc! {"projection": {"_id": 1}, "readConcern": {"level": "majority"}};
    let by_uuid = range.uuid.filter(|_| source.can().check_uuid());
    if let Some(uuid) = by_uuid {
        let bytes = uuid.to_vec();
        options.insert("collectionUUID", Binary { subtype: BinarySubtype::Uuid, bytes });
    }
    // What a secondary has may be older than what was copied.
    let primary = source.clone().read_as(Reads { throttle: source.reads.throttle.clone(), ..Reads::default() });
    let mut backoff = Backoff::default();
    let found = loop {
        match find_by_id::try_found(&primary, &range.source_ns, ids, &options).await {
            Ok(found) => break found,
            Err(e) if error::is_gone(&e) => return Ok(None),
            Err(e) if error::is_transient(&e) && backoff.wait().await => {}
            Err(e) => return Err(source.failure(&e)),
        }
    };
    if by_uuid.is_none() {
        // Without `collectionUUID` a read of a renamed or dropped collection just finds nothing.
        let now = catalog::find(source, &range.source_ns).await?;
        if now.and_then(|entry| entry.uuid) != range.uuid {
            return Ok(None);
        }
    }
    Ok(Some(found))
}
