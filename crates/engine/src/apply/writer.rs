//! Writes one worker's share of a window: in transactions of about two thousand operations, each of which also touches
//! the worker's fence, so that an agent that was replaced meanwhile changes nothing. Where a transaction fails for good,
//! its operations go one by one; what can't be applied as a delta is read again from the source.
//!
//! Transactions are committed with majority: an acknowledged window survives a failover of the destination.

use super::{
    coalesce::{Change, Op},
    registry::Target,
};
use crate::{
    checkpoint::{DATABASE, Store},
    cluster::Cluster,
    error,
    progress::Tracker,
    raw::{self, RawArrayBuilder, RawDocBuilder, as_i64},
    retry::Backoff,
};
use bson::{Bson, Document, RawBsonRef, RawDocumentBuf, Timestamp, doc};
use futures::StreamExt;
use limosa_model::{ErrorCode, Failure, Namespace};
use mongodb::{ClientSession, error::Error, options::WriteConcern};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Mutex;

/// Operations a transaction; measured to be past the knee.
const TRANSACTION_OPS: usize = 2000;

/// Bytes a transaction, and a command.
const TRANSACTION_BYTES: usize = 12 * 1024 * 1024;

/// `_id`s in one read of documents from the source.
const REFETCH_IDS: usize = 500;

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
        let mut refetch: Vec<Op> = Vec::new();
        let mut pending: Vec<(u32, Op)> = Vec::new();
        let mut bytes = 0;
        for (round, op) in ops {
            if op.change == Change::Refetch {
                refetch.push(op);
            } else if op.target.keeps_order {
                self.write_in_order(&op, &mut refetch).await?;
            } else {
                bytes += size(&op);
                pending.push((round, op));
                if pending.len() >= TRANSACTION_OPS || bytes >= TRANSACTION_BYTES {
                    self.write_transaction(std::mem::take(&mut pending), &mut refetch).await?;
                    bytes = 0;
                }
            }
        }
        self.write_transaction(pending, &mut refetch).await?;
        if refetch.is_empty() { Ok(None) } else { self.refetch(refetch, until).await.map(Some) }
    }

    async fn write_transaction(&self, ops: Vec<(u32, Op)>, refetch: &mut Vec<Op>) -> Result<(), Failure> {
        if ops.is_empty() {
            return Ok(());
        }
        let mut backoff = Backoff::default();
        loop {
            match self.try_transaction(&ops).await {
                Ok(()) => return Ok(()),
                Err(Refused::Failed(failure)) => return Err(failure),
                Err(Refused::Operation(code, message)) if ops.len() > 1 => {
                    tracing::debug!(code, message, "a transaction was refused; going one by one");
                    break;
                }
                Err(Refused::Operation(code, message)) => {
                    let (_, op) = &ops[0];
                    if code == 26 && !matches!(op.change, Change::Put { .. }) {
                        return Ok(()); // the collection is gone
                    }
                    if let Change::Update(_) = op.change {
                        refetch.push(Op { change: Change::Refetch, ..op.clone() });
                        return Ok(());
                    }
                    return Err(Failure::new(
                        ErrorCode::ServerError,
                        format!("{} refused a write: {message}", op.target.ns),
                    ));
                }
                Err(Refused::Transient(error)) if !backoff.wait().await => {
                    return Err(self.destination.failure(&error));
                }
                Err(Refused::Transient(error)) => tracing::debug!(%error, "a transaction is tried again"),
            }
        }
        for op in ops {
            Box::pin(self.write_transaction(vec![op], refetch)).await?;
        }
        Ok(())
    }

    async fn try_transaction(&self, ops: &[(u32, Op)]) -> Result<(), Refused> {
        let sort = |e: Error| match error::code(&e) {
            _ if error::is_transient(&e) => Refused::Transient(e),
            Some(code) => Refused::Operation(code, e.to_string()),
            None => Refused::Failed(self.destination.failure(&e)),
        };
        let mut session = self.session.lock().await;
        session.start_transaction().write_concern(WriteConcern::majority()).await.map_err(sort)?;
        let written = self.send_all(ops, &mut session).await;
        match written {
            Ok(()) => session.commit_transaction().await.map_err(sort),
            Err(refused) => {
                // The server ends a transaction that failed by itself; asking for it is a courtesy.
                let _ = session.abort_transaction().await;
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
        for (target, command) in commands(ops).map_err(|e| Refused::Failed(self.destination.failure(&e)))? {
            self.send(&target.ns.db, command, session).await?;
        }
        Ok(())
    }

    async fn send(&self, db: &str, command: RawDocumentBuf, session: &mut ClientSession) -> Result<Document, Refused> {
        let reply = self.destination.db(db).run_raw_command(command).session(session).await;
        let reply = reply.map_err(|e| match error::code(&e) {
            _ if error::is_transient(&e) => Refused::Transient(e),
            Some(code) => Refused::Operation(code, e.to_string()),
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

    /// Capped collections: no transaction can write to them, and their order is part of what is copied.
    async fn write_in_order(&self, op: &Op, refetch: &mut Vec<Op>) -> Result<(), Failure> {
        let command = match &op.change {
            Change::Put { document, fresh: true } => {
                let mut documents = RawArrayBuilder::with_capacity(document.as_bytes().len());
                documents.push_document(document.as_bytes());
                let head = doc! {"insert": &op.target.ns.coll, "bypassDocumentValidation": true, "writeConcern": {"w": "majority"}};
                RawDocBuilder::new().extend(&head).and_then(|c| c.array("documents", documents).build())
            }
            _ => commands(&[(0, op.clone())]).map(|mut all| all.pop().map_or_else(RawDocumentBuf::new, |(_, c)| c)),
        };
        let command = command.map_err(|e| self.destination.failure(&e))?;
        let mut backoff = Backoff::default();
        loop {
            match self.destination.db(&op.target.ns.db).run_raw_command(command.clone()).await {
                Ok(reply) => {
                    let first = reply.get_array("writeErrors").ok().and_then(|e| e.first()).and_then(Bson::as_document);
                    return match first {
                        None => Ok(()),
                        Some(e) if e.get_i32("code").is_ok_and(|c| c == 11000) => Ok(()),
                        Some(_) if matches!(op.change, Change::Update(_)) => {
                            refetch.push(Op { change: Change::Refetch, ..op.clone() });
                            Ok(())
                        }
                        // Before 5.0 a capped collection's documents can't be deleted, on the source neither.
                        Some(e) if e.get_i32("code").is_ok_and(|c| c == 20) && op.change == Change::Delete => Ok(()),
                        Some(e) => {
                            let message = e.get_str("errmsg").unwrap_or_default();
                            Err(Failure::new(
                                ErrorCode::ServerError,
                                format!("{} refused a write: {message}", op.target.ns),
                            ))
                        }
                    };
                }
                Err(e) if error::is_transient(&e) && backoff.wait().await => {}
                Err(e) => return Err(self.destination.failure(&e)),
            }
        }
    }

    /// Reads the documents of `ops` from the source as they are now and writes them, or deletes them where they are gone.
    async fn refetch(&self, ops: Vec<Op>, until: Timestamp) -> Result<Timestamp, Failure> {
        let mut by_target: HashMap<Namespace, Vec<Op>> = HashMap::new();
        for op in ops {
            by_target.entry(op.target.ns.clone()).or_default().push(op);
        }
        for ops in by_target.into_values() {
            for chunk in ops.chunks(REFETCH_IDS) {
                let found = self.read_current(&chunk[0].target, chunk, until).await?;
                let Some(mut found) = found else { continue };
                let mut changes = Vec::with_capacity(chunk.len());
                for op in chunk {
                    let change = match found.remove(&op.canonical) {
                        Some(document) => Change::Put { document, fresh: false },
                        None => Change::Delete,
                    };
                    let id = match &change {
                        Change::Put { document, .. } => id_document(document).unwrap_or_else(|| op.id.clone()),
                        _ => op.id.clone(),
                    };
                    changes.push((0, Op { change, id, ..op.clone() }));
                }
                self.tracker.count(|p| p.documents_refetched += changes.len() as u64);
                let mut again = Vec::new();
                if changes[0].1.target.keeps_order {
                    for (_, op) in &changes {
                        self.write_in_order(op, &mut again).await?;
                    }
                } else {
                    for part in changes.chunks(100) {
                        self.write_transaction(part.to_vec(), &mut again).await?;
                    }
                }
            }
        }
        self.source.optimes().await.map(|(_, majority)| majority.max(until))
    }

    /// `None` when the collection is gone on the source.
    async fn read_current(
        &self,
        target: &Target,
        ops: &[Op],
        until: Timestamp,
    ) -> Result<Option<HashMap<Vec<u8>, RawDocumentBuf>>, Failure> {
        let mut ids = RawArrayBuilder::with_capacity(ops.len() * 32);
        for op in ops {
            if let Ok(Some(id)) = op.id.get("_id") {
                ids.push_value(id);
            }
        }
        let filter =
            RawDocBuilder::new().document("_id", &RawDocBuilder::new().array("$in", ids).into_bytes()).into_bytes();
        let mut ns = target.ns.clone();
        let mut backoff = Backoff::default();
        loop {
            let mut head = doc! {"find": &ns.coll, "readConcern": {"level": "majority", "afterClusterTime": until}};
            if let (Some(uuid), true) = (target.uuid, self.source.version >= (6, 0, 0)) {
                head.insert(
                    "collectionUUID",
                    bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.to_vec() },
                );
            }
            let read = async {
                let command = RawDocBuilder::new().extend(&head)?.document("filter", &filter).build()?;
                let mut found = HashMap::new();
                let mut cursor = self.source.db(&ns.db).run_raw_cursor_command(command).batch().await?;
                while let Some(batch) = cursor.next().await {
                    for document in batch?.doc_slices()?.into_iter().flatten().filter_map(RawBsonRef::as_document) {
                        if let Some(id) = document.get("_id").ok().flatten() {
                            found.insert(raw::canonical_id(id), document.to_owned());
                        }
                    }
                }
                Ok::<_, Error>(found)
            };
            match read.await {
                Ok(found) => return Ok(Some(found)),
                Err(e) if error::is_gone(&e) => {
                    let Some(uuid) = target.uuid else { return Ok(None) };
                    match crate::catalog::find_by_uuid(&self.source, &ns.db, uuid).await? {
                        Some(entry) if entry.ns != ns || backoff.wait().await => ns = entry.ns,
                        _ => return Ok(None),
                    }
                }
                Err(e) if error::is_transient(&e) && backoff.wait().await => {}
                Err(e) => return Err(self.source.failure(&e)),
            }
        }
    }
}

/// `{_id: …}` of a document.
pub(crate) fn id_document(document: &bson::RawDocument) -> Option<RawDocumentBuf> {
    RawDocBuilder::new().value("_id", document.get("_id").ok()??).build().ok()
}

fn size(op: &Op) -> usize {
    64 + op.id.as_bytes().len()
        + match &op.change {
            Change::Put { document, .. } => document.as_bytes().len(),
            Change::Update(delta) => delta.size(),
            Change::Delete | Change::Refetch => 0,
        }
}

/// The commands for `ops`: one for each run of updates or deletes of one collection within one round.
fn commands(ops: &[(u32, Op)]) -> Result<Vec<(Arc<Target>, RawDocumentBuf)>, Error> {
    let mut commands = Vec::new();
    let mut rest = ops;
    while let Some((round, first)) = rest.first() {
        let same = rest.iter().take_while(|(r, op)| r == round && op.target.ns == first.target.ns).count();
        let (run, later) = rest.split_at(same);
        rest = later;
        let mut updates = RawArrayBuilder::with_capacity(run.iter().map(|(_, op)| size(op)).sum());
        let mut deletes = RawArrayBuilder::with_capacity(256);
        let (mut any_update, mut any_delete) = (false, false);
        for (_, op) in run {
            let statement = RawDocBuilder::new().document("q", op.id.as_bytes());
            match &op.change {
                Change::Put { document, .. } => {
                    let statement =
                        statement.document("u", document.as_bytes()).value("upsert", RawBsonRef::Boolean(true));
                    updates.push_document(&statement.into_bytes());
                    any_update = true;
                }
                Change::Update(delta) if delta.is_empty() => {}
                Change::Update(delta) => {
                    updates.push_document(&delta.append_update(statement).into_bytes());
                    any_update = true;
                }
                Change::Delete => {
                    deletes.push_document(&statement.value("limit", RawBsonRef::Int32(1)).into_bytes());
                    any_delete = true;
                }
                Change::Refetch => {}
            }
        }
        let target = &first.target;
        if any_update {
            let head = doc! {"update": &target.ns.coll, "ordered": true, "bypassDocumentValidation": true};
            commands.push((Arc::clone(target), RawDocBuilder::new().extend(&head)?.array("updates", updates).build()?));
        }
        if any_delete {
            let head = doc! {"delete": &target.ns.coll, "ordered": true};
            commands.push((Arc::clone(target), RawDocBuilder::new().extend(&head)?.array("deletes", deletes).build()?));
        }
    }
    Ok(commands)
}
