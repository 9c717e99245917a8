//! Writes one worker's share of a window: in transactions of about two thousand operations, each of which also touches
//! the worker's fence, so that an agent that was replaced meanwhile changes nothing. Where a transaction fails for good,
//! its operations go one by one; what can't be applied as a delta is read again from the source.
//!
//! Transactions are committed with majority: an acknowledged window survives a failover of the destination.

use crate::{
    destination::{
        coalesce::{DocumentWrite, Origin, WriteKind},
        collection_map::Target,
        fenced_session::{FencedSession, WriteError},
        indexes, time_series,
        write_commands::{commands, inserts},
    },
    metrics::APPLY,
    mongo::{
        catalog,
        cluster::Cluster,
        codes, error,
        incidents::{self, Standing, Trouble},
        raw_builder::RawDocBuilder,
        refused_writes::refused_writes,
    },
    progress::ProgressTracker,
    retry::Backoff,
};
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp, raw::cstr, rawdoc};
use limosa_model::{Failure, Namespace};
use mongodb::{error::Error, options::WriteConcern};
use std::{sync::Arc, time::Instant};

/// Operations a transaction; measured to be past the knee.
const TRANSACTION_OPS: usize = 2000;

/// Bytes a transaction, and a command.
const TRANSACTION_BYTES: usize = 12 * 1024 * 1024;

/// One of several; each writes its own documents.
#[derive(Clone)]
pub(crate) struct Writer {
    pub source: Cluster,
    pub session: FencedSession,
    pub tracker: ProgressTracker,
    pub trouble: Trouble,
    /// Documents whose unique value another one still had when they were written: read again with the next window.
    pub taken: Arc<std::sync::Mutex<Vec<DocumentWrite>>>,
}

/// What is next after a write that the destination refused.
enum Next {
    /// Nothing: it needn't be done, or is put off.
    Done,
    /// The same again: its cause was removed.
    Again,
    /// This instead.
    Instead(DocumentWrite),
}

/// What was done about refusals of one write.
#[derive(Default)]
struct Remedies {
    /// Its collection is marked as one whose buckets have mixed schemas.
    mixed_allowed: bool,
    /// How often indexes were dropped for it.
    made_way: u32,
}

impl Writer {
    /// Writes `ops`, ordered by round, of events up to `until`. Returns the source's time of the last re-fetch, if any.
    pub async fn write(&self, ops: Vec<(u32, DocumentWrite)>, until: Timestamp) -> Result<Option<Timestamp>, Failure> {
        let (mut refetch, mut ops): (Vec<_>, Vec<_>) =
            ops.into_iter().partition(|(_, op)| op.change == WriteKind::Refetch);
        let mut refetch: Vec<DocumentWrite> = refetch.drain(..).map(|(_, op)| op).collect();
        refetch.extend(self.take_taken());
        for (_, op) in &mut ops {
            if self.trouble.standing(&op.target.ns, &op.id)? == Standing::Suspect && op.change != WriteKind::Delete {
                refetch.push(DocumentWrite { change: WriteKind::Refetch, ..op.clone() });
                op.change = WriteKind::Delete;
            }
        }
        self.write_all(ops, &mut refetch, until).await?;
        if refetch.is_empty() { Ok(None) } else { self.refetch(refetch, until).await.map(Some) }
    }

    fn take_taken(&self) -> Vec<DocumentWrite> {
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Writes `ops` in transactions, those of capped collections outside of them; adds to `refetch` what was refused.
    pub(super) async fn write_all(
        &self,
        ops: Vec<(u32, DocumentWrite)>,
        refetch: &mut Vec<DocumentWrite>,
        until: Timestamp,
    ) -> Result<(), Failure> {
        if self.trouble.is_careful(until) {
            return self.write_one_by_one(ops, refetch, until).await;
        }
        let mut pending: Vec<(u32, DocumentWrite)> = Vec::new();
        let mut ordered: Vec<DocumentWrite> = Vec::new();
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

    /// Each alone, noted before: one of them may end the destination's process.
    async fn write_one_by_one(
        &self,
        ops: Vec<(u32, DocumentWrite)>,
        refetch: &mut Vec<DocumentWrite>,
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
        ops: Vec<(u32, DocumentWrite)>,
        refetch: &mut Vec<DocumentWrite>,
        until: Timestamp,
    ) -> Result<(), Failure> {
        if ops.is_empty() {
            return Ok(());
        }
        let careful = self.trouble.is_careful(until);
        let (mut backoff, mut remedies) = (Backoff::default(), Remedies::default());
        loop {
            let began = Instant::now();
            let (code, message) = match self.try_transaction(&ops).await {
                Ok(()) => {
                    self.tracker.metrics.written(APPLY, began.elapsed());
                    return Ok(());
                }
                Err(WriteError::Failed(failure)) => return Err(failure),
                Err(WriteError::Unreadable(error)) => return Err(self.destination().failure(&error)),
                Err(WriteError::Transient(error)) => {
                    self.note_break(&error, until)?;
                    if !backoff.wait().await {
                        return Err(self.destination().failure(&error));
                    }
                    self.tracker.metrics.retried(APPLY);
                    tracing::debug!(%error, "a transaction is tried again");
                    if self.judge(&error, until).await? && !careful {
                        return Box::pin(self.write_one_by_one(ops, refetch, until)).await;
                    }
                    continue;
                }
                Err(WriteError::Command(code, error)) => (code, error::words(&error)),
                Err(WriteError::Writes(reply)) => first_refusal(&reply),
            };
            if ops.len() > 1 {
                tracing::debug!(code, message, "a transaction was refused; going one by one");
                break;
            }
            match self.answer_refusal(&ops[0].1, code, &message, &mut remedies, refetch).await? {
                Next::Done => return Ok(()),
                Next::Again => {}
                Next::Instead(op) => return Box::pin(self.write_transaction(vec![(0, op)], refetch, until)).await,
            }
        }
        for op in ops {
            Box::pin(self.write_transaction(vec![op], refetch, until)).await?;
        }
        Ok(())
    }

    /// What to do about the one write `op`, which the destination refused with `code`. An error if nothing can be done.
    async fn answer_refusal(
        &self,
        op: &DocumentWrite,
        code: i32,
        message: &str,
        remedies: &mut Remedies,
        refetch: &mut Vec<DocumentWrite>,
    ) -> Result<Next, Failure> {
        if code == codes::NAMESPACE_NOT_FOUND && !matches!(op.change, WriteKind::Put { .. }) {
            return Ok(Next::Done); // the collection is gone
        }
        if code == codes::CANNOT_BUILD_INDEX_KEYS && op.change == WriteKind::Delete {
            return Ok(Next::Done); // it can't have such a document
        }
        if !remedies.mixed_allowed
            && time_series::allow_mixed_schema(self.destination(), &op.target.ns, message).await?
        {
            remedies.mixed_allowed = true;
            return Ok(Next::Again);
        }
        match &op.change {
            WriteKind::Update(_) => {
                refetch.push(DocumentWrite { change: WriteKind::Refetch, ..op.clone() });
                return Ok(Next::Done);
            }
            // The destination has a document whose `_id` is equal but not the same; or, before 5.0, it takes a name that
            // begins with a dollar from an insert and not from a replacement.
            WriteKind::Put { document, .. } if codes::is_refused_replacement(code) => {
                let change = WriteKind::Remake { document: document.clone() };
                return Ok(Next::Instead(DocumentWrite { change, ..op.clone() }));
            }
            WriteKind::Put { .. } | WriteKind::Remake { .. }
                if codes::is_refused_by_index(code)
                    && self.drop_conflicting(&op.target, remedies.made_way, message).await? =>
            {
                remedies.made_way += 1;
                return Ok(Next::Again);
            }
            change if self.may_be_anothers(change) => {
                refetch.push(DocumentWrite { change: WriteKind::Refetch, ..op.clone() });
                return Ok(Next::Done);
            }
            _ => {}
        }
        Err(error::refused(code, format!("{} refused a write: {message}", op.target.ns)))
    }

    /// Whether what is refused may belong to a collection that is gone. Before 6.0 events show neither a collection's UUID
    /// nor its options: it is made with those of the one that has its name by now, which need not take its documents.
    fn may_be_anothers(&self, change: &WriteKind) -> bool {
        let from_event = matches!(change, WriteKind::Put { origin: Origin::Insert | Origin::Replacement, .. });
        from_event && !self.source.can().show_expanded_events()
    }

    /// Whether the process ended to which `error`'s connection was, so that one by one is right; unknown counts as not.
    async fn judge(&self, error: &Error, until: Timestamp) -> Result<bool, Failure> {
        match self.trouble.judge(self.destination(), until).await {
            Err(failure) if failure.code == self.destination().failure(error).code => Ok(false),
            told => told,
        }
    }

    async fn try_transaction(&self, ops: &[(u32, DocumentWrite)]) -> Result<(), WriteError> {
        let commands = commands(ops).map_err(|e| WriteError::Failed(self.destination().failure(&e)))?;
        self.session.transact(commands, WriteConcern::majority()).await.map(drop)
    }

    fn destination(&self) -> &Cluster {
        self.session.destination()
    }

    /// A document that the source has may not fit an index that the destination has: one that the source has dropped
    /// since, or that came after a later state of the document. Such indexes are dropped; what the source has is built
    /// again once the destination is an image of it. Returns whether the write is worth another try.
    async fn drop_conflicting(&self, target: &Target, tries: u32, why: &str) -> Result<bool, Failure> {
        let source = match target.uuid {
            Some(uuid) => catalog::find_by_uuid(&self.source, &target.ns, uuid).await?.map(|entry| entry.ns),
            None => Some(target.ns.clone()),
        };
        let dropped =
            indexes::drop_conflicting(&self.source, source.as_ref(), self.destination(), &target.ns, tries).await?;
        self.tracker.missing.dropped(&target.ns, &dropped, why);
        // Even if there was nothing at first: another worker may have made way since the write was refused.
        Ok(tries == 0 || !dropped.is_empty())
    }

    /// Capped collections: no transaction can write to them, and their order is part of what is copied.
    async fn write_in_order(
        &self,
        ops: Vec<DocumentWrite>,
        refetch: &mut Vec<DocumentWrite>,
        until: Timestamp,
    ) -> Result<(), Failure> {
        // The fence can't be touched with them; it is asked for instead.
        if !ops.is_empty() {
            self.session.check().await?;
        }
        let mut rest = ops.as_slice();
        while let Some(first) = rest.first() {
            let documents: Vec<&RawDocument> = rest
                .iter()
                .map_while(|op| match &op.change {
                    WriteKind::Put { document, origin: Origin::Insert } => Some(document.as_ref()),
                    _ => None,
                })
                .collect();
            let (ns, one) = (&first.target.ns, documents.is_empty());
            let built = if one { commands(&[(0, first.clone())]) } else { inserts(ns, &documents) };
            let run = &rest[..documents.len().max(1)];
            for (_, command) in built.map_err(|e| self.destination().failure(&e))? {
                match self.send_alone(ns, command, until).await? {
                    Answer::Written => {}
                    // Read again after the others: one of them may free the value.
                    Answer::Taken => {
                        refetch.extend(run.iter().map(|op| DocumentWrite { change: WriteKind::Refetch, ..op.clone() }));
                    }
                    Answer::Refused(code, message) => match (&first.change, code) {
                        (WriteKind::Update(_), _) => {
                            refetch.push(DocumentWrite { change: WriteKind::Refetch, ..first.clone() });
                        }
                        // Before 5.0 a capped collection's documents can't be deleted, on the source neither.
                        (WriteKind::Delete, codes::ILLEGAL_OPERATION) => {}
                        // Another collection's document is here under the same name and `_id`. Before a cutover the whole
                        // collection is compared, and copied again.
                        (WriteKind::Put { .. }, codes::CANNOT_GROW_DOCUMENT_IN_CAPPED_NAMESPACE)
                            if !self.source.can().show_expanded_events() =>
                        {
                            tracing::warn!(%ns, message, "a document of a capped collection stays as it is for now");
                        }
                        (change, _) if self.may_be_anothers(change) => {
                            refetch.extend(
                                run.iter().map(|op| DocumentWrite { change: WriteKind::Refetch, ..op.clone() }),
                            );
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
    pub(super) fn write_later(&self, taken: Vec<DocumentWrite>) {
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
            let reply = self.destination().db(&ns.db).run_raw_command(command.clone()).await;
            match reply.and_then(error::confirmed) {
                Ok(reply) => return Ok(answer(&reply)),
                Err(e) => {
                    self.note_break(&e, until)?;
                    if !error::is_transient(&e) || !backoff.wait().await {
                        return Err(self.destination().failure(&e));
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
    let mut found = Answer::Written;
    for refused in refused_writes(reply) {
        match refused.code {
            codes::DUPLICATE_KEY if refused.is_of_id() => {}
            codes::DUPLICATE_KEY => found = Answer::Taken,
            code => return Answer::Refused(code, refused.message.to_owned()),
        }
    }
    found
}

/// The code and the words of the first write that `reply` says was refused.
fn first_refusal(reply: &Document) -> (i32, String) {
    refused_writes(reply).next().map_or_else(Default::default, |first| (first.code, first.message.to_owned()))
}

/// `{_id: …}` of a document.
pub(crate) fn id_document(document: &bson::RawDocument) -> Option<RawDocumentBuf> {
    RawDocBuilder::new().value("_id", crate::mongo::raw_value::id_of(document)?).build().ok()
}
