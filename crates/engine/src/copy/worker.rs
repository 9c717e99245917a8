//! Copies ranges: the server's reply batches go as they are, undecoded, into `insert` commands.

use crate::{
    component::Component,
    copy::{
        batch_writer::{CopyBatchWriter, Written},
        in_place,
        plan::CopyRange,
    },
    destination::checkpoint::{CheckpointStore, ElectionId},
    failpoint,
    metrics::COPY,
    mongo::{catalog, cluster::Cluster, error, range_read},
    progress::ProgressTracker,
    retry::Backoff,
    throttle::Throttle,
    tuning::ReadFrom,
};
use bson::{Document, RawArrayBuf, Timestamp, doc};
use limosa_model::{ErrorCode, Failure, Namespace};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What a batch holds, by the source's estimate; the server ends a reply at 16 MB anyway. Larger transactions take
/// the destination longer for each document, smaller ones are most of all round trips.
const BATCH_BYTES: u64 = 1024 * 1024;

/// The same for a destination that is far away, where round trips count more.
const BATCH_BYTES_FAR: u64 = 4 * 1024 * 1024;

/// Documents a batch at most.
const MOST_DOCUMENTS: u64 = 10_000;

/// A document's length where the source estimates none.
const UNKNOWN_BYTES: u64 = 1024;

/// `insert`s under way for each worker: one being written while the next is on its way.
pub(crate) const IN_FLIGHT: usize = 2;

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Copier {
    pub source: Cluster,
    pub store: CheckpointStore,
    pub tracker: ProgressTracker,
    /// Over what an earlier copy left.
    pub again: bool,
    pub throttle: Arc<Throttle>,
    /// What is read holds everything up to here, whichever member is read.
    pub t0: Timestamp,
    /// How many work at the usual load level.
    pub workers: usize,
    pub reads: ReadFrom,
}

/// What of a range is written.
#[derive(Debug, Default)]
struct Sum {
    documents: u64,
    bytes: u64,
    /// The destination's terms in which it was acknowledged.
    terms: HashSet<ElectionId>,
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
    /// Copies all of `ranges` that aren't done, with a worker for every [`IN_FLIGHT`] of `slots`.
    pub async fn run(&self, ranges: Vec<CopyRange>, slots: &[CopyBatchWriter]) -> Result<(), Failure> {
        let queue: Vec<CopyRange> = ranges.into_iter().filter(|range| !range.done).rev().collect();
        let queue = Arc::new(Mutex::new(queue));
        // Lets those go that the load level leaves idle.
        let drained = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (worker, own) in slots.chunks(IN_FLIGHT).enumerate() {
            let (copier, queue, drained, own) = (self.clone(), Arc::clone(&queue), drained.clone(), own.to_vec());
            tasks.spawn(
                async move {
                    loop {
                        tokio::select! {
                            () = copier.throttle.wait_until_enabled(worker, copier.workers) => {}
                            () = drained.cancelled() => return Ok(()),
                        }
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                        let Some(range) = next else {
                            drained.cancel();
                            return Ok(());
                        };
                        copier.copy(range, &own).await?;
                    }
                }
                .in_current_span(),
            );
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Failure::new(ErrorCode::Internal, format!("a copy worker ended: {e}")))??;
        }
        Ok(())
    }

    async fn copy(&self, mut range: CopyRange, slots: &[CopyBatchWriter]) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        loop {
            let mut sum = Sum::default();
            let ended = self.read_and_write(&range, slots, &mut sum).await;
            let ended = match ended {
                Ok(()) if self.outlives_a_failover(&range, &sum).await? => {
                    failpoint::reach(failpoint::RANGE_WRITTEN, &self.store.id()).await;
                    self.tracker.metrics.range_copied();
                    return self.store.range_done(range.n, sum.documents, sum.bytes).await;
                }
                Ok(()) => None,
                Err(ended) => Some(ended),
            };
            self.tracker.metrics.retried(COPY);
            let ns = range.ns.to_string();
            self.tracker.update(|p| p.take_copied(&ns, sum.documents, sum.bytes));
            match ended {
                None => {
                    tracing::warn!(ns = %range.ns, "the destination's primary changed; copying a range again");
                }
                Some(ended) => match ended {
                    Interrupted::Moved => match self.current_name(&range).await? {
                        Some(ns) => range.source_ns = ns,
                        None => return self.store.range_done(range.n, 0, 0).await,
                    },
                    Interrupted::Failed(failure) if failure.code.is_transient() && backoff.wait().await => {
                        tracing::warn!(ns = %range.ns, %failure, "copying a range again");
                    }
                    Interrupted::Failed(failure) => return Err(failure),
                },
            }
        }
    }

    /// Copies a whole collection that is in no plan. `None`: it is gone; `false`: a failover of the destination may have
    /// rolled some of it back.
    pub async fn copy_whole(&self, mut range: CopyRange, slots: &[CopyBatchWriter]) -> Result<Option<bool>, Failure> {
        let mut backoff = Backoff::default();
        loop {
            let mut sum = Sum::default();
            match self.read_and_write(&range, slots, &mut sum).await {
                Ok(()) => return self.outlives_a_failover(&range, &sum).await.map(Some),
                Err(Interrupted::Moved) => match self.current_name(&range).await? {
                    Some(ns) => range.source_ns = ns,
                    None => return Ok(None),
                },
                Err(Interrupted::Failed(failure)) if failure.code.is_transient() && backoff.wait().await => {
                    tracing::warn!(ns = %range.ns, %failure, "copying a collection again");
                }
                Err(Interrupted::Failed(failure)) => return Err(failure),
            }
        }
    }

    /// Whether all that was acknowledged was acknowledged in one term, in which the majority has it now. What an earlier
    /// term acknowledged may have been rolled back.
    async fn outlives_a_failover(&self, range: &CopyRange, sum: &Sum) -> Result<bool, Failure> {
        if sum.terms.is_empty() {
            return Ok(true); // nothing was written
        }
        let confirmed = self.store.confirm_range(range.n).await?;
        Ok(sum.terms.iter().all(|term| Some(*term) == confirmed))
    }

    /// Where the range's collection is now; `None` when it is gone.
    async fn current_name(&self, range: &CopyRange) -> Result<Option<Namespace>, Failure> {
        let Some(uuid) = range.uuid else { return Ok(None) };
        Ok(catalog::find_by_uuid(&self.source, &range.source_ns, uuid).await?.map(|entry| entry.ns))
    }

    async fn read_and_write(
        &self,
        range: &CopyRange,
        slots: &[CopyBatchWriter],
        sum: &mut Sum,
    ) -> Result<(), Interrupted> {
        let again = match slots.first() {
            Some(slot) if self.again => {
                in_place::in_place(catalog::find(slot.destination(), &range.ns).await?.as_ref())
            }
            _ => false,
        };
        let (min, max) = (range.min.as_ref(), range.max.as_ref());
        let hint = min.or(max).map(|_| doc! {"_id": 1});
        for query in range_read::queries(hint, min, max) {
            let mut command = self.find(range);
            command.extend(query);
            self.pump(range, command, slots, again, sum).await?;
        }
        if let (true, Some(slot)) = (again, slots.first()) {
            let removed = slot.remove_extra(&self.source, range).await?;
            sum.terms.extend(removed.ok_or(Interrupted::Moved)?);
        }
        // A renamed or dropped collection just has nothing.
        self.check_uuid(range).await
    }

    /// Before 6.0 a read can't hold to a UUID: under the range's name there may be another collection by now, or none.
    async fn check_uuid(&self, range: &CopyRange) -> Result<(), Interrupted> {
        if !self.source.can().check_uuid() {
            let now = catalog::find(&self.source, &range.source_ns).await?;
            if now.and_then(|entry| entry.uuid) != range.uuid {
                return Err(Interrupted::Moved);
            }
        }
        Ok(())
    }

    /// Documents a batch.
    fn batch(&self, range: &CopyRange) -> u32 {
        documents_in(if self.store.destination().is_far { BATCH_BYTES_FAR } else { BATCH_BYTES }, range)
    }

    /// A `find` of the range's whole collection.
    fn find(&self, range: &CopyRange) -> Document {
        let mut command = doc! {"find": &range.source_ns.coll, "batchSize": self.batch(range), "readConcern": {"level": "majority", "afterClusterTime": self.t0}};
        if let (Some(uuid), true) = (range.uuid, self.source.can().check_uuid()) {
            command.insert(
                "collectionUUID",
                bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.to_vec() },
            );
        }
        command
    }

    async fn pump(
        &self,
        range: &CopyRange,
        command: Document,
        slots: &[CopyBatchWriter],
        again: bool,
        sum: &mut Sum,
    ) -> Result<(), Interrupted> {
        let read_error = |e: mongodb::error::Error| {
            if error::is_gone(&e) { Interrupted::Moved } else { Interrupted::Failed(self.source.failure(&e)) }
        };
        let db = self.source.db(&range.source_ns.db);
        let opened =
            db.run_cursor_command(command).batch_size(self.batch(range)).selection_criteria(self.reads.criteria());
        let mut cursor = opened.batch().await.map_err(read_error)?;
        // Before anything of it is written; the cursor stays with what it found.
        self.check_uuid(range).await?;
        let mut began = Instant::now();
        let mut writes: JoinSet<(CopyBatchWriter, Result<Written, Failure>)> = JoinSet::new();
        let mut free = slots.to_vec();
        // The first batch goes alone and tells whether a transaction can write here; if not, one follows the other, so
        // that a capped collection keeps its order.
        let (mut in_transaction, mut most) = (!range.ordered, 1);
        while let Some(batch) = cursor.next().await {
            let batch = batch.map_err(read_error)?;
            let array = batch.doc_slices().map_err(read_error)?;
            if array.is_empty() {
                continue;
            }
            let size = array.as_bytes().len();
            self.throttle.charge_read(size).await;
            while writes.len() >= most.min(self.throttle.in_flight())
                && let Some(done) = writes.join_next().await
            {
                in_transaction = self.written(done, &range.ns, &mut free, sum).await?;
                most = if in_transaction { slots.len() } else { 1 };
            }
            self.throttle.charge_write(size).await;
            let Some(slot) = free.pop() else {
                return Err(Failure::new(ErrorCode::Internal, "more batches under way than slots").into());
            };
            let (copier, ns, array) = (self.clone(), range.ns.clone(), array.to_owned());
            let write = async move { copier.write(slot, &ns, &array, again, in_transaction).await };
            writes.spawn(write.in_current_span());
            self.throttle.rest(began.elapsed()).await;
            began = Instant::now();
        }
        while let Some(done) = writes.join_next().await {
            self.written(done, &range.ns, &mut free, sum).await?;
        }
        Ok(())
    }

    /// Writes one batch, and gives the slot back.
    async fn write(
        &self,
        slot: CopyBatchWriter,
        ns: &Namespace,
        array: &RawArrayBuf,
        again: bool,
        in_transaction: bool,
    ) -> (CopyBatchWriter, Result<Written, Failure>) {
        let began = Instant::now();
        let written = match again {
            true => slot.refresh(ns, array).await,
            false => slot.insert(ns, array, in_transaction).await,
        };
        self.tracker.metrics.written(COPY, began.elapsed());
        (slot, written)
    }

    /// Takes an ended write in; returns whether it could be a transaction.
    async fn written(
        &self,
        done: Result<(CopyBatchWriter, Result<Written, Failure>), tokio::task::JoinError>,
        ns: &Namespace,
        free: &mut Vec<CopyBatchWriter>,
        sum: &mut Sum,
    ) -> Result<bool, Interrupted> {
        let (slot, written) =
            done.map_err(|e| Failure::new(ErrorCode::Internal, format!("a copy write ended: {e}")))?;
        free.push(slot);
        let written = written?;
        failpoint::reach(failpoint::COPY_BATCH_ACKNOWLEDGED, &self.store.id()).await;
        self.tracker.metrics.copied(written.documents, written.bytes);
        sum.documents += written.documents;
        sum.bytes += written.bytes;
        sum.terms.extend(written.terms);
        self.tracker.clear_failure(Component::Applier);
        let ns = ns.to_string();
        self.tracker.update(|p| p.add_copied(&ns, written.documents, written.bytes));
        Ok(written.in_transaction)
    }
}

/// How many documents a batch of `bytes` takes of a range.
fn documents_in(bytes: u64, range: &CopyRange) -> u32 {
    let average = range.bytes.checked_div(range.documents).filter(|average| *average > 0);
    (bytes / average.unwrap_or(UNKNOWN_BYTES)).clamp(1, MOST_DOCUMENTS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_a_megabyte_of_documents_of_any_size() {
        let of = |documents, bytes| {
            let whole = CopyRange::from_document(&doc! {"n": 1_i64, "source": "a.b", "ns": "a.b"}).expect("a range");
            documents_in(BATCH_BYTES, &CopyRange { documents, bytes, ..whole })
        };
        assert_eq!(of(1_000_000, 200_000_000), 5242);
        assert_eq!(of(1_000, 100_000_000), 10);
        assert_eq!(of(10, 160_000_000), 1);
        assert_eq!(of(1_000_000, 1_000_000), MOST_DOCUMENTS as u32);
        assert_eq!((of(0, 0), of(5, 0)), (1024, 1024));
    }
}
