//! Reads documents from the source as they are now, where an event doesn't say exactly what became of them.

use crate::{
    destination::{
        coalesce::{DocumentWrite, Origin, WriteKind},
        collection_map::Target,
    },
    mongo::{
        catalog, error, find_by_id, raw_bson,
        raw_value::{self, Value},
    },
    replication::writer::{Writer, id_document},
    retry::Backoff,
};
use bson::{RawBsonRef, RawDocumentBuf, Timestamp, doc};
use limosa_model::{Failure, Namespace};
use mongodb::error::Error;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// `_id`s in one read of documents from the source; fewer than a look needs, since what is read is also written.
const IDS: usize = 500;

/// How long the server may work at one read.
const MOST_MILLIS: i64 = 60_000;

impl Writer {
    /// Writes the documents of `ops` as the source has them after `until`, and deletes those that are gone. Returns the
    /// time up to which the source may have been seen.
    pub(super) async fn refetch(&self, mut ops: Vec<DocumentWrite>, until: Timestamp) -> Result<Timestamp, Failure> {
        while !ops.is_empty() {
            let count = ops.len();
            let taken = self.refetch_once(ops, until).await?;
            if taken.len() == count {
                self.write_later(taken);
                break;
            }
            ops = taken;
        }
        self.source.optimes().await.map(|(_, majority)| majority.max(until))
    }

    /// The same for each once. Returns those whose unique value another document had.
    async fn refetch_once(&self, ops: Vec<DocumentWrite>, until: Timestamp) -> Result<Vec<DocumentWrite>, Failure> {
        let mut taken = Vec::new();
        let mut by_target: HashMap<Namespace, Vec<DocumentWrite>> = HashMap::new();
        for op in ops {
            by_target.entry(op.target.ns.clone()).or_default().push(op);
        }
        for ops in by_target.into_values() {
            let target = Arc::clone(&ops[0].target);
            for chunk in raw_bson::chunks_by_size(&ops, IDS, |op| op.id.as_bytes().len()) {
                self.refetch_some(&target, chunk, until, &mut taken).await?;
            }
        }
        Ok(taken)
    }

    /// A document whose `_id` is equal to the one asked for but isn't the same (another numeric type, another case
    /// under a collation) is another document's successor: it goes in after what is gone has been deleted.
    async fn refetch_some(
        &self,
        target: &Arc<Target>,
        ops: &[DocumentWrite],
        until: Timestamp,
        taken: &mut Vec<DocumentWrite>,
    ) -> Result<(), Failure> {
        let mut missing: HashMap<&[u8], &DocumentWrite> = ops.iter().map(|op| (op.id.as_bytes(), op)).collect();
        let mut found: Vec<(RawDocumentBuf, Vec<u8>)> = Vec::new();
        let ids: Vec<&RawDocumentBuf> = ops.iter().map(|op| &op.id).collect();
        let mut reading = self.reading(target, &ids, until);
        while let Some(documents) = reading.next(self).await? {
            let mut puts = Vec::with_capacity(documents.len());
            for document in documents {
                let Some(id) = id_document(&document) else { continue };
                let canonical = raw_value::id_of(&id).map(|v| raw_bson::canonical_id(v, target.folds));
                found.push((id.clone(), canonical.unwrap_or_default()));
                if missing.remove(id.as_bytes()).is_some() {
                    puts.push(put(target, id, document));
                }
            }
            self.write_refetched(puts, until, taken).await?;
        }
        if reading.gone {
            return Ok(());
        }
        let gone: HashSet<&[u8]> = missing.values().map(|op| op.canonical.as_slice()).collect();
        let deletes = missing.values().map(|op| DocumentWrite { change: WriteKind::Delete, ..(*op).clone() }).collect();
        self.write_refetched(deletes, until, taken).await?;
        let again: Vec<&RawDocumentBuf> =
            found.iter().filter(|(_, canonical)| gone.contains(canonical.as_slice())).map(|(id, _)| id).collect();
        if !again.is_empty() {
            let mut reading = self.reading(target, &again, until);
            while let Some(documents) = reading.next(self).await? {
                let puts = documents.into_iter().filter_map(|d| Some(put(target, id_document(&d)?, d)));
                self.write_refetched(puts.collect(), until, taken).await?;
            }
        }
        Ok(())
    }

    async fn write_refetched(
        &self,
        ops: Vec<DocumentWrite>,
        until: Timestamp,
        taken: &mut Vec<DocumentWrite>,
    ) -> Result<(), Failure> {
        self.tracker.update(|p| p.documents_refetched += ops.len() as u64);
        self.tracker.metrics.refetched(ops.len() as u64);
        self.write_all(ops.into_iter().map(|op| (0, op)).collect(), taken, until).await
    }

    fn reading(&self, target: &Target, ids: &[&RawDocumentBuf], until: Timestamp) -> Reading {
        // The server refuses to look for what a collated collection can't have.
        let possible = |id: &Value<'_>| !(target.folds && id.has_symbol());
        Reading {
            ns: target.ns.clone(),
            uuid: target.uuid,
            filter: find_by_id::filter(ids.iter().filter_map(|id| raw_value::id_of(id)).filter(possible)),
            until,
            cursor: None,
            backoff: Backoff::default(),
            proven: false,
            gone: false,
        }
    }
}

fn put(target: &Arc<Target>, id: RawDocumentBuf, document: RawDocumentBuf) -> DocumentWrite {
    // In case that it has to be read once more.
    let canonical = raw_value::id_of(&id).map(|id| raw_bson::canonical_id(id, target.folds)).unwrap_or_default();
    DocumentWrite {
        target: Arc::clone(target),
        id,
        canonical,
        change: WriteKind::Put { document, origin: Origin::Reread },
    }
}

/// A read that continues under a collection's new name, and begins again after an error that passes.
struct Reading {
    ns: Namespace,
    uuid: Option<catalog::Uuid>,
    filter: Vec<u8>,
    until: Timestamp,
    cursor: Option<crate::mongo::calls::Batches>,
    backoff: Backoff,
    /// Whether what the open cursor reads is known to be this collection.
    proven: bool,
    /// The collection is no longer on the source.
    gone: bool,
}

impl Reading {
    async fn next(&mut self, writer: &Writer) -> Result<Option<Vec<RawDocumentBuf>>, Failure> {
        loop {
            match self.try_next(writer).await {
                Ok(batch) if self.is_own(writer).await? => return Ok(batch),
                Err(e) if !error::is_gone(&e) => {
                    self.cursor = None;
                    if !error::is_transient(&e) || !self.backoff.wait().await {
                        return Err(writer.source.failure(&e));
                    }
                }
                Ok(_) | Err(_) => {
                    self.cursor = None;
                    if !self.follow(writer).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether the open cursor reads this collection. Before 6.0 a read can't hold to a UUID: under the name there may be
    /// another collection by now, or none. A cursor stays with what it found when it was opened.
    async fn is_own(&mut self, writer: &Writer) -> Result<bool, Failure> {
        if !self.proven {
            let now = match self.uuid {
                Some(_) if !writer.source.can().check_uuid() => {
                    catalog::find(&writer.source, &self.ns).await?.and_then(|entry| entry.uuid)
                }
                own => own,
            };
            self.proven = now == self.uuid;
        }
        Ok(self.proven)
    }

    /// Continues under the collection's name of now; `false` if it is gone.
    async fn follow(&mut self, writer: &Writer) -> Result<bool, Failure> {
        let found = match self.uuid {
            Some(uuid) => catalog::find_by_uuid(&writer.source, &self.ns, uuid).await?,
            None => None,
        };
        match found {
            Some(entry) if entry.ns != self.ns || self.backoff.wait().await => self.ns = entry.ns,
            _ => self.gone = true,
        }
        Ok(!self.gone)
    }

    async fn try_next(&mut self, writer: &Writer) -> Result<Option<Vec<RawDocumentBuf>>, Error> {
        if self.cursor.is_none() {
            let mut head =
                doc! {"find": &self.ns.coll, "readConcern": {"level": "majority", "afterClusterTime": self.until}};
            // Or a default of the server, which may be shorter than the wait for that time, would end each try.
            head.insert("maxTimeMS", MOST_MILLIS);
            if let (Some(uuid), true) = (self.uuid, writer.source.can().check_uuid()) {
                let bytes = uuid.to_vec();
                head.insert("collectionUUID", bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes });
            }
            self.cursor = Some(find_by_id::open(&writer.source, &self.ns.db, &head, &self.filter).await?);
            self.proven = false;
        }
        let Some(cursor) = self.cursor.as_mut() else { return Ok(None) };
        let Some(batch) = cursor.next().await else { return Ok(None) };
        let batch = batch?;
        let documents = batch.doc_slices()?;
        // It takes from what the copy and the verifier may read, and waits for neither: changes are followed at once.
        writer.source.reads.throttle.note_read(documents.as_bytes().len());
        let documents = documents.into_iter().flatten().filter_map(RawBsonRef::as_document);
        Ok(Some(documents.map(ToOwned::to_owned).collect()))
    }
}
