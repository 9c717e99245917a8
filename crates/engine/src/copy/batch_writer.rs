//! Writes the copy's batches. Each goes in a transaction that also touches the slot's fence, so that an agent that was
//! replaced, and wakes up with a batch in its hands, inserts nothing any more. Where a transaction can't write (capped
//! collections), the fence is looked at right before, which leaves a moment.
//!
//! A document whose `_id` is there already is left as it is: it was copied before.

use crate::{
    destination::{
        checkpoint::{DATABASE, Store, Term},
        time_series,
        write_commands::{inserts, needs_exact_insert, restores},
    },
    mongo::{
        cluster::Cluster,
        codes, error, find_by_id, raw_bson,
        raw_builder::{RawArrayBuilder, RawDocBuilder},
        raw_value::id_of,
    },
    retry::Backoff,
};
use bson::{Bson, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};
use limosa_model::{Failure, Namespace};
use mongodb::{ClientSession, error::Error, options::WriteConcern};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::Mutex;

/// How long the server may work at a batch outside of a transaction.
const MOST_MILLIS: i64 = 30_000;

/// One `insert` under way at a time.
#[derive(Clone)]
pub(crate) struct Slot {
    pub destination: Cluster,
    pub store: Store,
    /// Which fence is its own.
    pub worker: usize,
    /// Noted at the fence, so that a successor can end what this one left open.
    pub session: Arc<Mutex<ClientSession>>,
}

/// What a batch came to.
#[derive(Debug)]
pub(crate) struct Written {
    pub documents: u64,
    pub bytes: u64,
    /// The terms in which it was acknowledged.
    pub terms: HashSet<Term>,
    /// Whether a transaction can write to the collection.
    pub in_transaction: bool,
}

enum Refused {
    /// Try again.
    Transient(Error),
    /// One of the documents is there. What was before it may have been written, in this term.
    Duplicate(Option<Term>),
    /// What was refused is quoted in a reply that can't be read: there is text in it that isn't UTF-8.
    Unreadable(Error),
    /// The reply, or the batch, would be too large.
    TooLarge(Error),
    /// Not in a transaction.
    NoTransaction,
    Failed(Failure),
}

impl Slot {
    /// Inserts `documents`.
    pub async fn insert(
        &self,
        ns: &Namespace,
        documents: &RawArrayBuf,
        in_transaction: bool,
    ) -> Result<Written, Failure> {
        let all: Vec<&RawDocument> = documents.into_iter().flatten().filter_map(|v| v.as_document()).collect();
        let (count, bytes) = (all.len() as u64, all.iter().map(|d| d.as_bytes().len() as u64).sum());
        let mut written = Written { documents: count, bytes, terms: HashSet::new(), in_transaction };
        let mut pending = vec![all.clone()];
        let mut backoff = Backoff::default();
        let mut mixed_allowed = false;
        while let Some(batch) = pending.pop() {
            let done = match written.in_transaction {
                true => self.insert_fenced(ns, &batch).await,
                false => self.insert_plainly(ns, &batch).await,
            };
            match done {
                Ok(term) => written.terms.extend(term),
                Err(Refused::NoTransaction) => {
                    written.in_transaction = false;
                    pending.push(batch);
                }
                Err(Refused::Duplicate(term)) if batch.len() > 1 => {
                    written.terms.extend(term);
                    let missing = self.missing(ns, &batch).await?;
                    if missing.len() < batch.len() {
                        pending.extend((!missing.is_empty()).then_some(missing));
                    } else {
                        // Equal only by the collection's collation: each on its own.
                        pending.extend(batch.into_iter().map(|one| vec![one]));
                    }
                }
                // Found out by looking, since the reply can't tell.
                Err(Refused::Unreadable(error)) => {
                    let missing = self.missing(ns, &batch).await?;
                    match (missing.len() < batch.len(), batch.len() > 1) {
                        (true, _) => pending.extend((!missing.is_empty()).then_some(missing)),
                        (false, true) => pending.extend(batch.into_iter().map(|one| vec![one])),
                        (false, false) => return Err(self.destination.failure(&error)),
                    }
                }
                Err(Refused::Duplicate(_)) => {}
                Err(Refused::TooLarge(_)) if batch.len() > 1 => {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    pending.extend([right.to_vec(), left.to_vec()]);
                }
                Err(Refused::Transient(error)) if backoff.wait().await => {
                    tracing::debug!(%error, %ns, "a batch is sent again");
                    // Nothing conflicts with a copy but the size of it: a cache may be too full for so many keys at once.
                    let most = if error::code(&error) == Some(codes::WRITE_CONFLICT) {
                        batch.len().div_ceil(2)
                    } else {
                        batch.len()
                    };
                    pending.extend(batch.chunks(most).rev().map(<[_]>::to_vec));
                }
                Err(Refused::Transient(error) | Refused::TooLarge(error)) => {
                    return Err(self.destination.failure(&error));
                }
                Err(Refused::Failed(failure))
                    if !mixed_allowed
                        && time_series::allow_mixed_schema(&self.destination, ns, &failure.message).await? =>
                {
                    mixed_allowed = true;
                    pending.push(batch);
                }
                Err(Refused::Failed(failure)) => return Err(failure),
            }
        }
        // An insert has put the current time where a document had a timestamp of zeros.
        for (_, command) in restores(ns, &all, !written.in_transaction).map_err(|e| self.destination.failure(&e))? {
            if written.in_transaction {
                written.terms.extend(self.write(ns, command).await?);
            } else {
                let reply = self.destination.db(&ns.db).run_raw_command(command).await;
                let reply = reply.map_err(|e| self.destination.failure(&e))?;
                if let Some((code, message)) = first_error(&reply) {
                    return Err(error::refused(code, format!("{ns} refused an update: {message}")));
                }
                written.terms.extend(Term::of(&reply));
            }
        }
        Ok(written)
    }

    fn sort(&self, error: Error) -> Refused {
        match error::code(&error) {
            _ if error::is_transient(&error) => Refused::Transient(error),
            None if error::is_unreadable(&error) => Refused::Unreadable(error),
            Some(codes::BSON_OBJECT_TOO_LARGE | codes::TRANSACTION_TOO_LARGE_FOR_CACHE) => Refused::TooLarge(error),
            Some(codes::OPERATION_NOT_SUPPORTED_IN_TRANSACTION) => Refused::NoTransaction,
            _ => Refused::Failed(self.destination.failure(&error)),
        }
    }

    async fn insert_fenced(&self, ns: &Namespace, batch: &[&RawDocument]) -> Result<Option<Term>, Refused> {
        let command = command(ns, batch, doc! {"ordered": true}).map_err(|e| self.sort(e))?;
        self.fenced(ns, command).await
    }

    /// Runs one write in a transaction with the fence.
    async fn fenced(&self, ns: &Namespace, command: RawDocumentBuf) -> Result<Option<Term>, Refused> {
        let mut session = self.session.lock().await;
        // A run that was ended in the middle of a transaction left it open.
        let _ = self.destination.calls().abort(&mut session).await;
        // What was acknowledged may be rolled back; the range knows by its term.
        let concern = WriteConcern::nodes(1);
        session.start_transaction().write_concern(concern).await.map_err(|e| self.sort(e))?;
        let sent = self.send(ns, command, &mut session).await;
        match sent {
            Ok(term) => self.destination.calls().commit(&mut session).await.map(|()| term).map_err(|e| self.sort(e)),
            Err(refused) => {
                // The server ends a transaction that failed by itself; asking for it is a courtesy.
                let _ = self.destination.calls().abort(&mut session).await;
                Err(refused)
            }
        }
    }

    async fn send(
        &self,
        ns: &Namespace,
        command: RawDocumentBuf,
        session: &mut ClientSession,
    ) -> Result<Option<Term>, Refused> {
        let fence = doc! {"update": "fences", "updates": [{
            "q": {"_id": self.store.fence(self.worker), "epoch": self.store.epoch()}, "u": {"$inc": {"writes": 1_i64}},
        }]};
        let reply = self.destination.db(DATABASE).run_command(fence).session(&mut *session).await;
        let reply = reply.map_err(|e| self.sort(e))?;
        if raw_bson::as_i64(reply.get("n")) != Some(1) {
            return Err(match first_error(&reply) {
                None => Refused::Failed(self.store.fenced()),
                Some((code, message)) => Refused::Failed(error::refused(code, message)),
            });
        }
        let reply = self.destination.db(&ns.db).run_raw_command(command).session(&mut *session).await;
        self.judge(ns, &reply.map_err(|e| self.sort(e))?)
    }

    async fn insert_plainly(&self, ns: &Namespace, batch: &[&RawDocument]) -> Result<Option<Term>, Refused> {
        if !self.store.holds(self.worker).await.map_err(Refused::Failed)? {
            return Err(Refused::Failed(self.store.fenced()));
        }
        // Ordered: a reply that told of every document that is there, with its `_id`, could be larger than the server can
        // send, and it would close the connection instead.
        let options = doc! {"ordered": true, "writeConcern": {"w": 1}, "maxTimeMS": MOST_MILLIS};
        if batch.iter().any(|document| needs_exact_insert(document)) {
            return self.insert_exactly(ns, batch).await;
        }
        let command = command(ns, batch, options).map_err(|e| self.sort(e))?;
        let reply = self.destination.db(&ns.db).run_raw_command(command).await.map_err(|e| self.sort(e))?;
        self.judge(ns, &reply)
    }

    /// The same where one of the documents can't be inserted plainly.
    async fn insert_exactly(&self, ns: &Namespace, batch: &[&RawDocument]) -> Result<Option<Term>, Refused> {
        let mut term = None;
        for (_, mut command) in inserts(ns, batch).map_err(|e| self.sort(e))? {
            command.append(cstr!("writeConcern"), rawdoc! {"w": 1});
            command.append(cstr!("maxTimeMS"), MOST_MILLIS);
            let reply = self.destination.db(&ns.db).run_raw_command(command).await.map_err(|e| self.sort(e))?;
            match self.judge(ns, &reply) {
                // Those that aren't there were inserted: nothing of this is ordered.
                Ok(told) | Err(Refused::Duplicate(told)) => term = told,
                Err(refused) => return Err(refused),
            }
        }
        Ok(term)
    }

    fn judge(&self, ns: &Namespace, reply: &Document) -> Result<Option<Term>, Refused> {
        let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        let codes = errors.iter().filter_map(Bson::as_document);
        let worst = codes.clone().find(|e| !e.get_i32("code").is_ok_and(|code| code == codes::DUPLICATE_KEY));
        match (worst, errors.is_empty()) {
            (None, true) => Ok(Term::of(reply)),
            (None, false) => Err(Refused::Duplicate(Term::of(reply))),
            (Some(refused), _) => {
                let message = refused.get_str("errmsg").unwrap_or("no reason given");
                let code = refused.get_i32("code").unwrap_or(0);
                if code == codes::OPERATION_NOT_SUPPORTED_IN_TRANSACTION {
                    return Err(Refused::NoTransaction);
                }
                Err(Refused::Failed(error::refused(code, format!("{ns} refused a document: {message}"))))
            }
        }
    }

    /// Runs one write in a transaction with the fence, again where it passes by itself.
    pub(super) async fn write(&self, ns: &Namespace, command: RawDocumentBuf) -> Result<Option<Term>, Failure> {
        let mut backoff = Backoff::default();
        loop {
            match self.fenced(ns, command.clone()).await {
                Ok(term) => return Ok(term),
                Err(Refused::Transient(error)) if backoff.wait().await => tracing::debug!(%error, %ns, "sent again"),
                Err(Refused::Transient(error) | Refused::TooLarge(error) | Refused::Unreadable(error)) => {
                    return Err(self.destination.failure(&error));
                }
                Err(Refused::Duplicate(_) | Refused::NoTransaction) => {
                    let message = format!("{ns} refused a document while the copy was made again");
                    return Err(Failure::new(limosa_model::ErrorCode::ServerError, message));
                }
                Err(Refused::Failed(failure)) => return Err(failure),
            }
        }
    }

    /// Those of `batch` whose `_id` isn't on the destination.
    async fn missing<'a>(&self, ns: &Namespace, batch: &[&'a RawDocument]) -> Result<Vec<&'a RawDocument>, Failure> {
        let ids = batch.iter().filter_map(|d| id_of(d));
        let present = find_by_id::found(&self.destination, ns, ids, doc! {"projection": {"_id": 1}}).await?;
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

fn first_error(reply: &Document) -> Option<(i32, String)> {
    let first = reply.get_array("writeErrors").ok()?.first()?.as_document()?;
    Some((first.get_i32("code").ok()?, first.get_str("errmsg").unwrap_or_default().to_owned()))
}
