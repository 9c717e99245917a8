//! Writes the copy's batches, each in a transaction that also touches the slot's fence. Where a transaction can't write (capped
//! collections), the fence is looked at right before, which leaves a moment.
//!
//! A document whose `_id` is there already is left as it is: it was copied before.

use crate::{
    destination::{
        checkpoint::ElectionId,
        fenced_session::{FencedSession, WriteError},
        time_series,
        write_commands::{inserts, needs_exact_insert, restores},
    },
    mongo::{
        cluster::Cluster,
        codes, error, find_by_id, raw_bson,
        raw_builder::{RawArrayBuilder, RawDocBuilder},
        raw_value::id_of,
        refused_writes::refused_writes,
    },
    retry::Backoff,
};
use bson::{Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};
use limosa_model::{Failure, Namespace};
use mongodb::{error::Error, options::WriteConcern};
use std::collections::HashSet;

/// How long the server may work at a batch outside of a transaction.
const MOST_MILLIS: i64 = 30_000;

/// One `insert` under way at a time.
#[derive(Clone)]
pub(crate) struct CopyBatchWriter(pub FencedSession);

/// What a batch came to.
#[derive(Debug)]
pub(crate) struct Written {
    pub documents: u64,
    pub bytes: u64,
    /// The terms in which it was acknowledged.
    pub terms: HashSet<ElectionId>,
    /// Whether a transaction can write to the collection.
    pub in_transaction: bool,
}

enum CopyError {
    /// Try again.
    Transient(Error),
    /// One of the documents is there. What was before it may have been written, in this term.
    Duplicate(Option<ElectionId>),
    /// What was refused is quoted in a reply that can't be read: there is text in it that isn't UTF-8.
    Unreadable(Error),
    /// The reply, or the batch, would be too large.
    TooLarge(Error),
    /// Not in a transaction.
    NoTransaction,
    Failed(Failure),
}

/// Parts of one `insert` that are still to be sent, the next one last, and what came of the others.
struct Pending<'a> {
    batches: Vec<Vec<&'a RawDocument>>,
    written: Written,
    backoff: Backoff,
    /// The collection is marked as one whose buckets have mixed schemas.
    mixed_allowed: bool,
}

impl<'a> Pending<'a> {
    /// Each document of `batch` on its own.
    fn push_singly(&mut self, batch: Vec<&'a RawDocument>) {
        self.batches.extend(batch.into_iter().map(|one| vec![one]));
    }
}

impl CopyBatchWriter {
    /// The cluster that it writes to.
    pub fn destination(&self) -> &Cluster {
        self.0.destination()
    }

    /// Inserts `documents`.
    pub async fn insert(
        &self,
        ns: &Namespace,
        documents: &RawArrayBuf,
        in_transaction: bool,
    ) -> Result<Written, Failure> {
        let all: Vec<&RawDocument> = documents.into_iter().flatten().filter_map(|v| v.as_document()).collect();
        let (count, bytes) = (all.len() as u64, all.iter().map(|d| d.as_bytes().len() as u64).sum());
        let written = Written { documents: count, bytes, terms: HashSet::new(), in_transaction };
        let backoff = Backoff::default();
        let mut pending = Pending { batches: vec![all.clone()], written, backoff, mixed_allowed: false };
        while let Some(batch) = pending.batches.pop() {
            let done = match pending.written.in_transaction {
                true => self.insert_fenced(ns, &batch).await,
                false => self.insert_plainly(ns, &batch).await,
            };
            match done {
                Ok(term) => pending.written.terms.extend(term),
                Err(refused) => self.answer_refusal(ns, batch, refused, &mut pending).await?,
            }
        }
        let mut written = pending.written;
        self.restore_timestamps(ns, &all, &mut written).await?;
        Ok(written)
    }

    /// Puts what of `batch` is still to be inserted back into `pending`, in the form that its refusal asks for.
    async fn answer_refusal<'a>(
        &self,
        ns: &Namespace,
        batch: Vec<&'a RawDocument>,
        refused: CopyError,
        pending: &mut Pending<'a>,
    ) -> Result<(), Failure> {
        match refused {
            CopyError::NoTransaction => {
                pending.written.in_transaction = false;
                pending.batches.push(batch);
            }
            CopyError::Duplicate(term) if batch.len() > 1 => {
                pending.written.terms.extend(term);
                let missing = self.missing(ns, &batch).await?;
                if missing.len() < batch.len() {
                    pending.batches.extend((!missing.is_empty()).then_some(missing));
                } else {
                    // Equal only by the collection's collation: each on its own.
                    pending.push_singly(batch);
                }
            }
            // Found out by looking, since the reply can't tell.
            CopyError::Unreadable(error) => {
                let missing = self.missing(ns, &batch).await?;
                match (missing.len() < batch.len(), batch.len() > 1) {
                    (true, _) => pending.batches.extend((!missing.is_empty()).then_some(missing)),
                    (false, true) => pending.push_singly(batch),
                    (false, false) => return Err(self.destination().failure(&error)),
                }
            }
            CopyError::Duplicate(_) => {}
            CopyError::TooLarge(_) if batch.len() > 1 => {
                let (left, right) = batch.split_at(batch.len() / 2);
                pending.batches.extend([right.to_vec(), left.to_vec()]);
            }
            CopyError::Transient(error) if pending.backoff.wait().await => {
                tracing::debug!(%error, %ns, "a batch is sent again");
                // Nothing conflicts with a copy but the size of it: a cache may be too full for so many keys at once.
                let is_conflict = error::code(&error) == Some(codes::WRITE_CONFLICT);
                let most = if is_conflict { batch.len().div_ceil(2) } else { batch.len() };
                pending.batches.extend(batch.chunks(most).rev().map(<[_]>::to_vec));
            }
            CopyError::Transient(error) | CopyError::TooLarge(error) => return Err(self.destination().failure(&error)),
            CopyError::Failed(failure)
                if !pending.mixed_allowed
                    && time_series::allow_mixed_schema(self.destination(), ns, &failure.message).await? =>
            {
                pending.mixed_allowed = true;
                pending.batches.push(batch);
            }
            CopyError::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    /// An insert has put the current time where a document had a timestamp of zeros.
    async fn restore_timestamps(
        &self,
        ns: &Namespace,
        all: &[&RawDocument],
        written: &mut Written,
    ) -> Result<(), Failure> {
        for (_, command) in restores(ns, all, !written.in_transaction).map_err(|e| self.destination().failure(&e))? {
            if written.in_transaction {
                written.terms.extend(self.write(ns, command).await?);
            } else {
                let reply = self.destination().db(&ns.db).run_raw_command(command).await;
                let reply = reply.map_err(|e| self.destination().failure(&e))?;
                if let Some(refused) = refused_writes(&reply).next() {
                    let message = format!("{ns} refused an update: {}", refused.message);
                    return Err(error::refused(refused.code, message));
                }
                written.terms.extend(ElectionId::of(&reply));
            }
        }
        Ok(())
    }

    /// What became of a command outside of a transaction that failed as a whole.
    fn sort(&self, error: Error) -> CopyError {
        match error::code(&error) {
            _ if error::is_transient(&error) => CopyError::Transient(error),
            None if error::is_unreadable(&error) => CopyError::Unreadable(error),
            Some(code) => self.sort_command(code, error),
            None => CopyError::Failed(self.destination().failure(&error)),
        }
    }

    fn sort_command(&self, code: i32, error: Error) -> CopyError {
        match code {
            codes::BSON_OBJECT_TOO_LARGE | codes::TRANSACTION_TOO_LARGE_FOR_CACHE => CopyError::TooLarge(error),
            codes::OPERATION_NOT_SUPPORTED_IN_TRANSACTION => CopyError::NoTransaction,
            _ => CopyError::Failed(self.destination().failure(&error)),
        }
    }

    async fn insert_fenced(&self, ns: &Namespace, batch: &[&RawDocument]) -> Result<Option<ElectionId>, CopyError> {
        let command = command(ns, batch, doc! {"ordered": true}).map_err(|e| self.sort(e))?;
        self.fenced(ns, command).await
    }

    /// Runs one write in a transaction with the fence.
    async fn fenced(&self, ns: &Namespace, command: RawDocumentBuf) -> Result<Option<ElectionId>, CopyError> {
        // What was acknowledged may be rolled back; the range knows by its term.
        let done = self.0.transact(vec![(ns.clone(), command)], WriteConcern::nodes(1)).await;
        done.map(|replies| replies.last().and_then(ElectionId::of)).map_err(|refused| match refused {
            WriteError::Transient(error) => CopyError::Transient(error),
            WriteError::Command(code, error) => self.sort_command(code, error),
            WriteError::Writes(reply) => refusal(ns, &reply),
            WriteError::Unreadable(error) => CopyError::Unreadable(error),
            WriteError::Failed(failure) => CopyError::Failed(failure),
        })
    }

    async fn insert_plainly(&self, ns: &Namespace, batch: &[&RawDocument]) -> Result<Option<ElectionId>, CopyError> {
        self.0.check().await.map_err(CopyError::Failed)?;
        // Ordered: a reply that told of every document that is there, with its `_id`, could be larger than the server can
        // send, and it would close the connection instead.
        let options = doc! {"ordered": true, "writeConcern": {"w": 1}, "maxTimeMS": MOST_MILLIS};
        if batch.iter().any(|document| needs_exact_insert(document)) {
            return self.insert_exactly(ns, batch).await;
        }
        let command = command(ns, batch, options).map_err(|e| self.sort(e))?;
        let reply = self.destination().db(&ns.db).run_raw_command(command).await.map_err(|e| self.sort(e))?;
        judged(ns, &reply)
    }

    /// The same where one of the documents can't be inserted plainly.
    async fn insert_exactly(&self, ns: &Namespace, batch: &[&RawDocument]) -> Result<Option<ElectionId>, CopyError> {
        let mut term = None;
        for (_, mut command) in inserts(ns, batch).map_err(|e| self.sort(e))? {
            command.append(cstr!("writeConcern"), rawdoc! {"w": 1});
            command.append(cstr!("maxTimeMS"), MOST_MILLIS);
            let reply = self.destination().db(&ns.db).run_raw_command(command).await.map_err(|e| self.sort(e))?;
            match judged(ns, &reply) {
                // Those that aren't there were inserted: nothing of this is ordered.
                Ok(told) | Err(CopyError::Duplicate(told)) => term = told,
                Err(refused) => return Err(refused),
            }
        }
        Ok(term)
    }

    /// Runs one write in a transaction with the fence, again after a transient error.
    pub(super) async fn write(&self, ns: &Namespace, command: RawDocumentBuf) -> Result<Option<ElectionId>, Failure> {
        let mut backoff = Backoff::default();
        loop {
            match self.fenced(ns, command.clone()).await {
                Ok(term) => return Ok(term),
                Err(CopyError::Transient(error)) if backoff.wait().await => tracing::debug!(%error, %ns, "sent again"),
                Err(CopyError::Transient(error) | CopyError::TooLarge(error) | CopyError::Unreadable(error)) => {
                    return Err(self.destination().failure(&error));
                }
                Err(CopyError::Duplicate(_) | CopyError::NoTransaction) => {
                    let message = format!("{ns} refused a document while the copy was made again");
                    return Err(Failure::new(limosa_model::ErrorCode::ServerError, message));
                }
                Err(CopyError::Failed(failure)) => return Err(failure),
            }
        }
    }

    /// Those of `batch` whose `_id` isn't on the destination.
    async fn missing<'a>(&self, ns: &Namespace, batch: &[&'a RawDocument]) -> Result<Vec<&'a RawDocument>, Failure> {
        let ids = batch.iter().filter_map(|d| id_of(d));
        let present = find_by_id::found(self.destination(), ns, ids, doc! {"projection": {"_id": 1}}).await?;
        let is_absent = |document: &RawDocument| {
            id_of(document).is_none_or(|id| !present.contains_key(&raw_bson::canonical_id(id, false)))
        };
        Ok(batch.iter().copied().filter(|document| is_absent(document)).collect())
    }
}

fn command(ns: &Namespace, batch: &[&RawDocument], options: Document) -> Result<RawDocumentBuf, Error> {
    let mut array = RawArrayBuilder::with_capacity(batch.iter().map(|d| d.as_bytes().len() + 8).sum());
    batch.iter().for_each(|document| array.push_document(document.as_bytes()));
    let mut head = doc! {"insert": &ns.coll, "bypassDocumentValidation": true};
    head.extend(options);
    RawDocBuilder::new().extend(&head)?.array("documents", array).build()
}

/// The term in which all of a command's writes were acknowledged.
fn judged(ns: &Namespace, reply: &Document) -> Result<Option<ElectionId>, CopyError> {
    if refused_writes(reply).next().is_some() { Err(refusal(ns, reply)) } else { Ok(ElectionId::of(reply)) }
}

/// Why some of a command's writes were refused.
fn refusal(ns: &Namespace, reply: &Document) -> CopyError {
    match refused_writes(reply).find(|refused| refused.code != codes::DUPLICATE_KEY) {
        None => CopyError::Duplicate(ElectionId::of(reply)),
        Some(refused) if refused.code == codes::OPERATION_NOT_SUPPORTED_IN_TRANSACTION => CopyError::NoTransaction,
        Some(refused) => {
            let message = format!("{ns} refused a document: {}", refused.message);
            CopyError::Failed(error::refused(refused.code, message))
        }
    }
}
