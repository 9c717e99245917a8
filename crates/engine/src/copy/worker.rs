//! Copies ranges: the server's reply batches go as they are, undecoded, into `insert` commands.

use super::plan::CopyRange;
use crate::{
    catalog,
    checkpoint::Store,
    cluster::Cluster,
    error,
    progress::Tracker,
    raw::{RawArrayBuilder, RawDocBuilder},
    retry::Backoff,
};
use bson::{Bson, Document, RawArrayBuf, RawBsonRef, doc};
use futures::StreamExt;
use limosa_model::{ErrorCode, Failure, Namespace};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// Documents a batch; the server ends a reply at 16 MB by itself.
const BATCH_DOCUMENTS: i32 = 1000;

/// `insert`s under way for each worker: one being written while the next is on its way.
const IN_FLIGHT: usize = 2;

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Copier {
    pub source: Cluster,
    pub destination: Cluster,
    pub store: Store,
    pub tracker: Tracker,
}

/// Why a range's reading ended early.
enum Interrupted {
    /// The collection has no longer the name it was read under.
    Moved,
    Failed(Failure),
}

impl From<Failure> for Interrupted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Copier {
    /// Copies all of `ranges` that aren't done with `workers` workers.
    pub async fn run(&self, ranges: Vec<CopyRange>, workers: usize) -> Result<(), Failure> {
        let queue: Vec<CopyRange> = ranges.into_iter().filter(|range| !range.done).rev().collect();
        let queue = Arc::new(Mutex::new(queue));
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (copier, queue) = (self.clone(), Arc::clone(&queue));
            tasks.spawn(async move {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(range) = next else { return Ok(()) };
                    copier.copy(range).await?;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Failure::new(ErrorCode::Internal, format!("a copy worker ended: {e}")))??;
        }
        Ok(())
    }

    async fn copy(&self, mut range: CopyRange) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        loop {
            let (mut documents, mut bytes) = (0, 0);
            match self.read_and_write(&range, &mut documents, &mut bytes).await {
                Ok(()) => return self.store.range_done(range.n, documents, bytes).await,
                Err(ended) => {
                    self.tracker.count(|p| {
                        p.documents_copied -= documents;
                        p.bytes_copied -= bytes;
                    });
                    match ended {
                        Interrupted::Moved => match self.current_name(&range).await? {
                            Some(ns) => range.source_ns = ns,
                            None => return self.store.range_done(range.n, 0, 0).await,
                        },
                        Interrupted::Failed(failure) if failure.code.is_transient() && backoff.wait().await => {
                            tracing::warn!(ns = %range.ns, %failure, "copying a range again");
                        }
                        Interrupted::Failed(failure) => return Err(failure),
                    }
                }
            }
        }
    }

    /// Where the range's collection is now; `None` when it is gone.
    async fn current_name(&self, range: &CopyRange) -> Result<Option<Namespace>, Failure> {
        let Some(uuid) = range.uuid else { return Ok(None) };
        Ok(catalog::find_by_uuid(&self.source, &range.source_ns.db, uuid).await?.map(|entry| entry.ns))
    }

    async fn read_and_write(&self, range: &CopyRange, documents: &mut u64, bytes: &mut u64) -> Result<(), Interrupted> {
        self.pump(range, find(range, self.source.version), documents, bytes).await?;
        if range.min.is_some() && range.max.is_none() {
            // `min` without `max` leaves out the one document whose `_id` is MaxKey.
            let mut equality = find(range, self.source.version);
            for bound in ["min", "max", "hint"] {
                equality.remove(bound);
            }
            equality.insert("filter", doc! {"_id": Bson::MaxKey});
            self.pump(range, equality, documents, bytes).await?;
        }
        if self.source.version < (6, 0, 0) {
            // Without `collectionUUID` a read of a renamed or dropped collection just finds nothing.
            let now = catalog::find(&self.source, &range.source_ns).await?;
            if now.and_then(|entry| entry.uuid) != range.uuid {
                return Err(Interrupted::Moved);
            }
        }
        Ok(())
    }

    async fn pump(
        &self,
        range: &CopyRange,
        command: Document,
        documents: &mut u64,
        bytes: &mut u64,
    ) -> Result<(), Interrupted> {
        let read_error = |e: mongodb::error::Error| {
            if error::is_gone(&e) { Interrupted::Moved } else { Interrupted::Failed(self.source.failure(&e)) }
        };
        let db = self.source.db(&range.source_ns.db);
        let mut cursor =
            db.run_cursor_command(command).batch_size(BATCH_DOCUMENTS as u32).batch().await.map_err(read_error)?;
        let mut writes: JoinSet<Result<(u64, u64), Failure>> = JoinSet::new();
        let mut written =
            |done: Result<Result<(u64, u64), Failure>, tokio::task::JoinError>| -> Result<(), Interrupted> {
                let (count, size) =
                    done.map_err(|e| Failure::new(ErrorCode::Internal, format!("a copy write ended: {e}")))??;
                *documents += count;
                *bytes += size;
                self.tracker.count(|p| {
                    p.documents_copied += count;
                    p.bytes_copied += size;
                });
                Ok(())
            };
        while let Some(batch) = cursor.next().await {
            let batch = batch.map_err(read_error)?;
            let array = batch.doc_slices().map_err(read_error)?;
            if array.is_empty() {
                continue;
            }
            if writes.len() >= IN_FLIGHT
                && let Some(done) = writes.join_next().await
            {
                written(done)?;
            }
            let (destination, ns, array) = (self.destination.clone(), range.ns.clone(), array.to_owned());
            writes.spawn(async move { insert(&destination, &ns, array).await });
        }
        while let Some(done) = writes.join_next().await {
            written(done)?;
        }
        Ok(())
    }
}

fn find(range: &CopyRange, version: (u32, u32, u32)) -> Document {
    let mut command =
        doc! {"find": &range.source_ns.coll, "batchSize": BATCH_DOCUMENTS, "readConcern": {"level": "majority"}};
    if let (Some(uuid), true) = (range.uuid, version >= (6, 0, 0)) {
        command
            .insert("collectionUUID", bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.to_vec() });
    }
    if range.min.is_some() || range.max.is_some() {
        command.insert("hint", doc! {"_id": 1});
    }
    command.extend(range.min.clone().map(|id| ("min".to_owned(), Bson::Document(doc! {"_id": id}))));
    command.extend(range.max.clone().map(|id| ("max".to_owned(), Bson::Document(doc! {"_id": id}))));
    command
}

/// Inserts `documents`. A document whose `_id` is there already is left as it is: it was copied before, or a change
/// that came later was applied to it. Returns how many there were and their bytes.
async fn insert(destination: &Cluster, ns: &Namespace, documents: RawArrayBuf) -> Result<(u64, u64), Failure> {
    let all: Vec<&[u8]> = documents.into_iter().flatten().filter_map(bytes_of).collect();
    let counted = (all.len() as u64, all.iter().map(|d| d.len() as u64).sum());
    let mut pending = vec![all];
    let mut backoff = Backoff::default();
    while let Some(batch) = pending.pop() {
        match insert_once(destination, ns, &batch).await {
            Ok(()) => {}
            // The reply would exceed what one may hold: every document is a duplicate with a large `_id`.
            Err(e) if error::code(&e) == Some(10334) && batch.len() > 1 => {
                let (left, right) = batch.split_at(batch.len() / 2);
                pending.extend([right.to_vec(), left.to_vec()]);
            }
            Err(e) if error::is_transient(&e) && backoff.wait().await => pending.push(batch),
            Err(e) => return Err(destination.failure(&e)),
        }
    }
    Ok(counted)
}

fn bytes_of(value: RawBsonRef<'_>) -> Option<&[u8]> {
    value.as_document().map(bson::RawDocument::as_bytes)
}

async fn insert_once(destination: &Cluster, ns: &Namespace, batch: &[&[u8]]) -> Result<(), mongodb::error::Error> {
    let mut array = RawArrayBuilder::with_capacity(batch.iter().map(|d| d.len() + 8).sum());
    batch.iter().for_each(|document| array.push_document(document));
    let head = doc! {"insert": &ns.coll, "ordered": false, "bypassDocumentValidation": true, "writeConcern": {"w": 1}};
    let command = RawDocBuilder::new().extend(&head)?.array("documents", array).build()?;
    let reply = destination.db(&ns.db).run_raw_command(command).await?;
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    match errors.iter().filter_map(Bson::as_document).find(|e| !e.get_i32("code").is_ok_and(|c| c == 11000)) {
        None => Ok(()),
        Some(refused) => Err(mongodb::error::Error::custom(format!(
            "{ns} refused a document: {}",
            refused.get_str("errmsg").unwrap_or("no reason given")
        ))),
    }
}
