//! Writes one worker's share of a window: in transactions of about two thousand operations, each of which also touches
//! the worker's fence, so that an agent that was replaced meanwhile changes nothing. Where a transaction fails for good,
//! its operations go one by one; what can't be applied as a delta is read again from the source.
//!
//! Transactions are committed with majority: an acknowledged window survives a failover of the destination.

use crate::{
    destination::{
        checkpoint::{DATABASE, Store},
        coalesce::{Change, Op, Origin},
        collection_map::Target,
        indexes, time_series,
        write_commands::{commands, inserts},
    },
    metrics::APPLY,
    mongo::{
        catalog,
        cluster::Cluster,
        codes, error,
        incidents::{self, Standing, Trouble},
        raw_bson::as_i64,
        raw_builder::RawDocBuilder,
    },
    progress::Tracker,
    retry::Backoff,
};
use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc, raw::cstr, rawdoc};
use limosa_model::{Failure, Namespace};
use mongodb::{ClientSession, error::Error, options::WriteConcern};
use std::{sync::Arc, time::Instant};
use tokio::sync::Mutex;

/// Operations a transaction; measured to be past the knee.
const TRANSACTION_OPS: usize = 2000;

/// Bytes a transaction, and a command.
const TRANSACTION_BYTES: usize = 12 * 1024 * 1024;

/// One of several; each writes its own documents.
#[derive(Clone)]
pub(crate) struct Writer {
    pub source: Cluster,
    pub destination: Cluster,
    pub store: Store,
    pub tracker: Tracker,
    /// Which fence is its own.
    pub worker: usize,
    /// Noted at the fence, so that a successor can end what this one left open.
    pub session: Arc<Mutex<ClientSession>>,
    pub trouble: Trouble,
    /// Documents whose unique value another one still had when they were written: read again with the next window.
    pub taken: Arc<std::sync::Mutex<Vec<Op>>>,
}

enum Refused {
    /// Try the whole again.
    Transient(Error),
    /// One operation at a time shows which.
    Operation(i32, String),
    Failed(Failure),
}

impl Writer {
    /// Writes `ops`, ordered by round, of events up to `until`. Returns the source's time of the last re-fetch, if any.
    pub async fn write(&self, ops: Vec<(u32, Op)>, until: Timestamp) -> Result<Option<Timestamp>, Failure> {
        let (mut refetch, mut ops): (Vec<_>, Vec<_>) =
            ops.into_iter().partition(|(_, op)| op.change == Change::Refetch);
        let mut refetch: Vec<Op> = refetch.drain(..).map(|(_, op)| op).collect();
        refetch.extend(self.take_taken());
        for (_, op) in &mut ops {
            if self.trouble.standing(&op.target.ns, &op.id)? == Standing::Suspect && op.change != Change::Delete {
                refetch.push(Op { change: Change::Refetch, ..op.clone() });
                op.change = Change::Delete;
            }
        }
        self.write_all(ops, &mut refetch, until).await?;
        if refetch.is_empty() { Ok(None) } else { self.refetch(refetch, until).await.map(Some) }
    }

    fn take_taken(&self) -> Vec<Op> {
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Writes `ops` in transactions, those of capped collections outside of them; adds to `refetch` what was refused.
    pub(super) async fn write_all(
        &self,
        ops: Vec<(u32, Op)>,
        refetch: &mut Vec<Op>,
        until: Timestamp,
    ) -> Result<(), Failure> {
        if self.trouble.is_careful(until) {
            return self.write_one_by_one(ops, refetch, until).await;
        }
        let mut pending: Vec<(u32, Op)> = Vec::new();
        let mut ordered: Vec<Op> = Vec::new();
        let mut bytes = 0;
        for (round, op) in ops {
            let full = pending.len() >= TRANSACTION_OPS || bytes >= TRANSACTION_BYTES;
            if full || ordered.first().is_some_and(|first| first.target != op.target) {
                self.write_transaction(std::mem::take(&mut pending), refetch, until).await?;
                self.write_in_order(std::mem::take(&mut ordered), refetch, until).await?;
                bytes = 0;
            }
            bytes += op.size();
            if op.target.keeps_order { ordered.push(op) } else { pending.push((round, op)) }
        }
        self.write_transaction(pending, refetch, until).await?;
        self.write_in_order(ordered, refetch, until).await
    }

    /// Each by itself, noted before: one of them may end the destination's process.
    async fn write_one_by_one(
        &self,
        ops: Vec<(u32, Op)>,
        refetch: &mut Vec<Op>,
        until: Timestamp,
    ) -> Result<(), Failure> {
        let _alone = self.trouble.turn.lock().await;
        for (round, op) in ops {
            self.trouble.sends(&op.target.ns, &op.id)?;
            if op.target.keeps_order {
                self.write_in_order(vec![op], refetch, until).await?;
            } else {
                Box::pin(self.write_transaction(vec![(round, op)], refetch, until)).await?;
            }
            self.trouble.arrived()?;
        }
        Ok(())
    }

    /// Notes a connection that broke in the middle of a write; what became of the process is looked at before the next.
    fn note_break(&self, error: &Error, until: Timestamp) -> Result<(), Failure> {
        if incidents::is_break(error) { self.trouble.broke(until) } else { Ok(()) }
    }

    async fn write_transaction(
        &self,
        ops: Vec<(u32, Op)>,
        refetch: &mut Vec<Op>,
        until: Timestamp,
    ) -> Result<(), Failure> {
        if ops.is_empty() {
            return Ok(());
        }
        let careful = self.trouble.is_careful(until);
        let mut mixed_allowed = false;
        let mut backoff = Backoff::default();
        let mut made_way = 0;
        loop {
            let began = Instant::now();
            match self.try_transaction(&ops).await {
                Ok(()) => {
                    self.tracker.metrics.written(APPLY, began.elapsed());
                    return Ok(());
                }
                Err(Refused::Failed(failure)) => return Err(failure),
                Err(Refused::Operation(code, message)) if ops.len() > 1 => {
                    tracing::debug!(code, message, "a transaction was refused; going one by one");
                    break;
                }
                Err(Refused::Operation(code, message)) => {
                    let (_, op) = &ops[0];
                    if code == codes::NAMESPACE_NOT_FOUND && !matches!(op.change, Change::Put { .. }) {
                        return Ok(()); // the collection is gone
                    }
                    if code == codes::CANNOT_BUILD_INDEX_KEYS && op.change == Change::Delete {
                        return Ok(()); // it can't have such a document
                    }
                    if !mixed_allowed
                        && time_series::allow_mixed_schema(&self.destination, &op.target.ns, &message).await?
                    {
                        mixed_allowed = true;
                        continue;
                    }
                    match &op.change {
                        Change::Update(_) => {
                            refetch.push(Op { change: Change::Refetch, ..op.clone() });
                            return Ok(());
                        }
                        // The destination has a document whose `_id` is equal but not the same; or, before 5.0, it takes a
                        // name that begins with a dollar from an insert and not from a replacement.
                        Change::Put { document, .. }
                            if matches!(
                                code,
                                codes::IMMUTABLE_FIELD | codes::DOLLAR_PREFIXED_FIELD_NAME | codes::INVALID_DB_REF
                            ) =>
                        {
                            let change = Change::Remake { document: document.clone() };
                            let again = (0, Op { change, ..op.clone() });
                            return Box::pin(self.write_transaction(vec![again], refetch, until)).await;
                        }
                        Change::Put { .. } | Change::Remake { .. }
                            if codes::is_refused_by_index(code)
                                && self.make_way(&op.target, made_way, &message).await? =>
                        {
                            made_way += 1;
                            continue;
                        }
                        change if self.may_be_anothers(change) => {
                            refetch.push(Op { change: Change::Refetch, ..op.clone() });
                            return Ok(());
                        }
                        _ => {}
                    }
                    return Err(error::refused(code, format!("{} refused a write: {message}", op.target.ns)));
                }
                Err(Refused::Transient(error)) => {
                    self.note_break(&error, until)?;
                    if !backoff.wait().await {
                        return Err(self.destination.failure(&error));
                    }
                    self.tracker.metrics.retried(APPLY);
                    tracing::debug!(%error, "a transaction is tried again");
                    if self.judge(&error, until).await? && !careful {
                        return Box::pin(self.write_one_by_one(ops, refetch, until)).await;
                    }
                }
            }
        }
        for op in ops {
            Box::pin(self.write_transaction(vec![op], refetch, until)).await?;
        }
        Ok(())
    }

    /// Whether what is refused may belong to a collection that is gone. Before 6.0 events show neither a collection's UUID
    /// nor its options: it is made with those of the one that has its name by now, which need not take its documents.
    fn may_be_anothers(&self, change: &Change) -> bool {
        let from_event = matches!(change, Change::Put { origin: Origin::Insert | Origin::Replacement, .. });
        from_event && !self.source.can().show_expanded_events()
    }

    /// Whether the process ended to which `error`'s connection was, so that one by one is right; unknown counts as not.
    async fn judge(&self, error: &Error, until: Timestamp) -> Result<bool, Failure> {
        match self.trouble.judge(&self.destination, until).await {
            Err(failure) if failure.code == self.destination.failure(error).code => Ok(false),
            told => told,
        }
    }

    async fn try_transaction(&self, ops: &[(u32, Op)]) -> Result<(), Refused> {
        let sort = |e: Error| match error::code(&e) {
            _ if error::is_transient(&e) => Refused::Transient(e),
            Some(code) => Refused::Operation(code, error::words(&e)),
            None => Refused::Failed(self.destination.failure(&e)),
        };
        let mut session = self.session.lock().await;
        // A run that was ended in the middle of a transaction left it open.
        let _ = self.destination.calls().abort(&mut session).await;
        session.start_transaction().write_concern(WriteConcern::majority()).await.map_err(sort)?;
        let written = self.send_all(ops, &mut session).await;
        match written {
            Ok(()) => self.destination.calls().commit(&mut session).await.map_err(sort),
            Err(refused) => {
                // The server ends a transaction that failed by itself; asking for it is a courtesy.
                let _ = self.destination.calls().abort(&mut session).await;
                Err(refused)
            }
        }
    }

    async fn send_all(&self, ops: &[(u32, Op)], session: &mut ClientSession) -> Result<(), Refused> {
        let fence = doc! {"update": "fences", "updates": [{
            "q": {"_id": self.store.fence(self.worker), "epoch": self.store.epoch()}, "u": {"$inc": {"writes": 1_i64}},
        }]};
        let fence = RawDocumentBuf::try_from(&fence)
            .map_err(|e| Refused::Failed(self.destination.failure(&Error::custom(e))))?;
        let reply = self.send(DATABASE, fence, session).await?;
        if as_i64(reply.get("n")) != Some(1) {
            return Err(Refused::Failed(self.store.fenced()));
        }
        for (ns, command) in commands(ops).map_err(|e| Refused::Failed(self.destination.failure(&e)))? {
            self.send(&ns.db, command, session).await?;
        }
        Ok(())
    }

    async fn send(&self, db: &str, command: RawDocumentBuf, session: &mut ClientSession) -> Result<Document, Refused> {
        let reply = self.destination.db(db).run_raw_command(command).session(session).await;
        let reply = reply.map_err(|e| match error::code(&e) {
            _ if error::is_transient(&e) => Refused::Transient(e),
            Some(code) => Refused::Operation(code, error::words(&e)),
            None => Refused::Failed(self.destination.failure(&e)),
        })?;
        match reply.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document) {
            None => Ok(reply),
            Some(e) => Err(Refused::Operation(
                e.get_i32("code").unwrap_or(0),
                e.get_str("errmsg").unwrap_or_default().to_owned(),
            )),
        }
    }

    /// A document that the source has may not fit an index that the destination has: one that the source has dropped
    /// since, or that came after a later state of the document. Such indexes are dropped; what the source has is built
    /// again once the destination is an image of it. Returns whether the write is worth another try.
    async fn make_way(&self, target: &Target, tries: u32, why: &str) -> Result<bool, Failure> {
        let source = match target.uuid {
            Some(uuid) => catalog::find_by_uuid(&self.source, &target.ns, uuid).await?.map(|entry| entry.ns),
            None => Some(target.ns.clone()),
        };
        let dropped = indexes::make_way(&self.source, source.as_ref(), &self.destination, &target.ns, tries).await?;
        self.tracker.missing.dropped(&target.ns, &dropped, why);
        // Even if there was nothing at first: another worker may have made way since the write was refused.
        Ok(tries == 0 || !dropped.is_empty())
    }

    /// Capped collections: no transaction can write to them, and their order is part of what is copied.
    async fn write_in_order(&self, ops: Vec<Op>, refetch: &mut Vec<Op>, until: Timestamp) -> Result<(), Failure> {
        // The fence can't be touched with them; it is asked for instead.
        if !ops.is_empty() && !self.store.holds(self.worker).await? {
            return Err(self.store.fenced());
        }
        let mut rest = ops.as_slice();
        while let Some(first) = rest.first() {
            let documents: Vec<&RawDocument> = rest
                .iter()
                .map_while(|op| match &op.change {
                    Change::Put { document, origin: Origin::Insert } => Some(document.as_ref()),
                    _ => None,
                })
                .collect();
            let (ns, one) = (&first.target.ns, documents.is_empty());
            let built = if one { commands(&[(0, first.clone())]) } else { inserts(ns, &documents) };
            let run = &rest[..documents.len().max(1)];
            for (_, command) in built.map_err(|e| self.destination.failure(&e))? {
                match self.send_alone(ns, command, until).await? {
                    Answer::Written => {}
                    // Read again after the others: one of them may free the value.
                    Answer::Taken => refetch.extend(run.iter().map(|op| Op { change: Change::Refetch, ..op.clone() })),
                    Answer::Refused(code, message) => match (&first.change, code) {
                        (Change::Update(_), _) => refetch.push(Op { change: Change::Refetch, ..first.clone() }),
                        // Before 5.0 a capped collection's documents can't be deleted, on the source neither.
                        (Change::Delete, codes::ILLEGAL_OPERATION) => {}
                        // Another collection's document is here under the same name and `_id`. Before a cutover the whole
                        // collection is compared, and copied again.
                        (Change::Put { .. }, codes::CANNOT_GROW_DOCUMENT_IN_CAPPED_NAMESPACE)
                            if !self.source.can().show_expanded_events() =>
                        {
                            tracing::warn!(%ns, message, "a document of a capped collection stays as it is for now");
                        }
                        (change, _) if self.may_be_anothers(change) => {
                            refetch.extend(run.iter().map(|op| Op { change: Change::Refetch, ..op.clone() }));
                        }
                        _ => {
                            return Err(error::refused(code, format!("{ns} refused a write: {message}")));
                        }
                    },
                }
            }
            rest = &rest[documents.len().max(1)..];
        }
        Ok(())
    }

    /// What still met a unique value that another document has, is read again with the next window: that document may
    /// change in it.
    pub(super) fn write_later(&self, taken: Vec<Op>) {
        for op in &taken {
            let id = incidents::shown(&op.id);
            tracing::warn!(ns = %op.target.ns, id, "another document has its unique value; it is written later");
        }
        self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(taken);
    }

    /// Runs a write outside of a transaction. That a document is there already is no refusal.
    async fn send_alone(&self, ns: &Namespace, command: RawDocumentBuf, until: Timestamp) -> Result<Answer, Failure> {
        let mut command = command;
        command.append(cstr!("writeConcern"), rawdoc! {"w": "majority"});
        let mut backoff = Backoff::default();
        loop {
            let reply = self.destination.db(&ns.db).run_raw_command(command.clone()).await;
            match reply.and_then(error::confirmed) {
                Ok(reply) => return Ok(answer(&reply)),
                Err(e) => {
                    self.note_break(&e, until)?;
                    if !error::is_transient(&e) || !backoff.wait().await {
                        return Err(self.destination.failure(&e));
                    }
                    self.judge(&e, until).await?;
                }
            }
        }
    }
}

/// What came of a write outside of a transaction.
enum Answer {
    Written,
    /// Another document has the value of a unique index.
    Taken,
    Refused(i32, String),
}

fn answer(reply: &Document) -> Answer {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let told = |e: &Document| (e.get_i32("code").unwrap_or(0), e.get_str("errmsg").unwrap_or_default().to_owned());
    let is_there =
        |e: &Document| e.get_document("keyPattern").is_ok_and(|keys| keys.len() == 1 && keys.contains_key("_id"));
    let mut found = Answer::Written;
    for error in errors.iter().filter_map(Bson::as_document) {
        match told(error) {
            (codes::DUPLICATE_KEY, _) if is_there(error) => {}
            (codes::DUPLICATE_KEY, _) => found = Answer::Taken,
            (code, message) => return Answer::Refused(code, message),
        }
    }
    found
}

/// `{_id: …}` of a document.
pub(crate) fn id_document(document: &bson::RawDocument) -> Option<RawDocumentBuf> {
    RawDocBuilder::new().value("_id", crate::mongo::raw_value::id_of(document)?).build().ok()
}
