//! What was read from the stream and isn't applied yet.
//!
//! The unit is one reply of the server, kept as its bytes under a running number: nothing is decoded on the way in, and
//! the resume token after it comes with it. While the copy runs every batch goes to disk, so that neither the copy's
//! length nor a crash needs the source's oplog. Once the applier reads along, batches pass through memory, bounded in
//! bytes; when it falls behind, what is in memory goes to disk first, so that the disk never has a gap.

use super::event;
use crate::checkpoint::Position;
use bson::{Document, RawDocument, RawDocumentBuf};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};
use limosa_model::{ErrorCode, Failure};
use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes of batches that may wait in memory.
const MEMORY_BYTES: usize = 48 * 1024 * 1024;

/// What the applier is handed.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// The batch with the asked-for number.
    Batch(Arc<RawDocumentBuf>),
    /// Everything read so far was handed out; the source had nothing more up to this token.
    Idle(RawDocumentBuf),
}

/// A durable queue with one writer and one reader.
pub(crate) struct Spool {
    database: Database,
    batches: Keyspace,
    meta: Keyspace,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Number of the next batch that comes in.
    next: u64,
    /// Batches on disk are below this.
    on_disk_until: u64,
    /// The first one that may still be on disk.
    on_disk_from: u64,
    disk_bytes: u64,
    memory: VecDeque<(u64, Arc<RawDocumentBuf>)>,
    memory_bytes: usize,
    /// What the reader asked for last.
    reading: u64,
    /// Whether there is a reader.
    live: bool,
    /// The token of an empty reply after the last batch.
    idle: Option<RawDocumentBuf>,
}

fn storage(e: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::LocalStorage, format!("the spool on this host's disk: {e}"))
}

impl Spool {
    /// Opens the spool in `dir` to go on at `position`. What is there is used if it belongs to that position's spool
    /// and reaches back to it, else thrown away. Returns the place to apply from, and the token to read on from.
    pub fn open(dir: &Path, position: &Position) -> Result<(Self, Position, Option<Document>), Failure> {
        let database = Database::builder(dir).open().map_err(storage)?;
        let options = || KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()));
        let batches = database.keyspace("batches", options).map_err(storage)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(storage)?;
        let key_of = |guard: Option<fjall::Guard>| -> Result<Option<u64>, Failure> {
            let key = guard.map(fjall::Guard::key).transpose().map_err(storage)?;
            Ok(key.and_then(|k| k.as_ref().try_into().ok()).map(u64::from_be_bytes))
        };
        let (first, last) = (key_of(batches.first_key_value())?, key_of(batches.last_key_value())?);
        let own = meta.get("id").map_err(storage)?.is_some_and(|id| id.as_ref() == position.spool.as_bytes());
        let usable =
            own && first.is_some_and(|first| first <= position.seq) && last.is_some_and(|last| last >= position.seq);
        let mut position = position.clone();
        let mut token = position.token.clone();
        let mut state = State {
            next: position.seq,
            on_disk_until: position.seq,
            on_disk_from: position.seq,
            disk_bytes: 0,
            memory: VecDeque::new(),
            memory_bytes: 0,
            reading: position.seq,
            live: false,
            idle: None,
        };
        if let (true, Some(first), Some(last)) = (usable, first, last) {
            let newest = batches.get(last.to_be_bytes()).map_err(storage)?.unwrap_or_else(|| [].into());
            let newest = RawDocument::from_bytes(newest.as_ref()).map_err(storage)?;
            let idle = meta.get("idle").map_err(storage)?;
            let idle = idle.as_ref().and_then(|v| {
                let (seq, token) = v.as_ref().split_at_checked(8)?;
                if seq == (last + 1).to_be_bytes() { RawDocument::from_bytes(token).ok() } else { None }
            });
            token = match idle {
                Some(idle) => Some(crate::raw::to_document(idle)),
                None => event::token_of(newest).map(|t| crate::raw::to_document(&t)),
            };
            state.next = last + 1;
            state.on_disk_until = last + 1;
            state.on_disk_from = first;
            for item in batches.range(first.to_be_bytes()..) {
                state.disk_bytes += u64::from(item.size().map_err(storage)?);
            }
        } else {
            batches.clear().map_err(storage)?;
            position.spool = format!("{:016x}", rand::random::<u64>());
            position.index = 0;
            meta.insert("id", position.spool.as_bytes()).map_err(storage)?;
        }
        Ok((Self { database, batches, meta, state: Mutex::new(state), changed: Notify::new() }, position, token))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one reply in.
    pub fn push(&self, reply: RawDocumentBuf) -> Result<(), Failure> {
        let mut state = self.state();
        if event::events_of(&reply).is_none_or(|events| events.is_empty()) {
            if let Some(token) = event::token_of(&reply) {
                if !state.live {
                    let mut value = state.next.to_be_bytes().to_vec();
                    value.extend_from_slice(token.as_bytes());
                    self.meta.insert("idle", value).map_err(storage)?;
                }
                state.idle = Some(token);
            }
        } else {
            let seq = state.next;
            state.next += 1;
            state.idle = None;
            let fits = state.memory_bytes + reply.as_bytes().len() <= MEMORY_BYTES;
            if state.live && fits && state.reading >= state.on_disk_until {
                state.memory_bytes += reply.as_bytes().len();
                state.memory.push_back((seq, Arc::new(reply)));
            } else {
                while let Some((earlier, batch)) = state.memory.pop_front() {
                    self.write(&mut state, earlier, &batch)?;
                }
                state.memory_bytes = 0;
                self.write(&mut state, seq, &reply)?;
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    fn write(&self, state: &mut State, seq: u64, batch: &RawDocument) -> Result<(), Failure> {
        self.batches.insert(seq.to_be_bytes(), batch.as_bytes()).map_err(storage)?;
        if state.on_disk_until <= state.on_disk_from || state.on_disk_until < seq {
            state.on_disk_from = seq;
        }
        state.on_disk_until = seq + 1;
        state.disk_bytes += batch.as_bytes().len() as u64;
        Ok(())
    }

    /// From now on batches may stay in memory: someone reads them.
    pub fn set_live(&self) {
        self.state().live = true;
    }

    /// Waits for batch `seq`, or for the news that there is nothing yet.
    pub async fn next(&self, seq: u64) -> Result<Next, Failure> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(next) = self.try_next(seq)? {
                return Ok(next);
            }
            changed.await;
        }
    }

    /// Batch `seq`, or the news that there is nothing yet, if either is at hand.
    pub fn try_next(&self, seq: u64) -> Result<Option<Next>, Failure> {
        let mut state = self.state();
        state.reading = seq;
        while state.memory.front().is_some_and(|(first, _)| *first < seq) {
            if let Some((_, batch)) = state.memory.pop_front() {
                state.memory_bytes -= batch.as_bytes().len();
            }
        }
        if let Some((_, batch)) = state.memory.front().filter(|(first, _)| *first == seq) {
            return Ok(Some(Next::Batch(Arc::clone(batch))));
        }
        if seq < state.on_disk_until {
            drop(state);
            let found = self.batches.get(seq.to_be_bytes()).map_err(storage)?;
            let found = found.ok_or_else(|| storage(format!("batch {seq} is missing")))?;
            let batch = RawDocumentBuf::from_bytes(found.to_vec()).map_err(storage)?;
            return Ok(Some(Next::Batch(Arc::new(batch))));
        }
        Ok(state.idle.take().map(Next::Idle))
    }

    /// Forgets the batches before `seq`: they are applied and the checkpoint says so.
    pub fn trim(&self, seq: u64) -> Result<(), Failure> {
        let mut state = self.state();
        while state.on_disk_from < seq.min(state.on_disk_until) {
            let key = state.on_disk_from.to_be_bytes();
            if let Some(size) = self.batches.size_of(key).map_err(storage)? {
                state.disk_bytes = state.disk_bytes.saturating_sub(u64::from(size));
                self.batches.remove(key).map_err(storage)?;
            }
            state.on_disk_from += 1;
        }
        Ok(())
    }

    /// Makes what was pushed so far outlive a power failure.
    pub fn sync(&self) -> Result<(), Failure> {
        self.database.persist(fjall::PersistMode::SyncData).map_err(storage)
    }

    /// Bytes waiting, in memory and on disk.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        state.memory_bytes as u64 + state.disk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn reply(n: i32, events: usize) -> RawDocumentBuf {
        let mut array = bson::RawArrayBuf::new();
        for _ in 0..events {
            array.push(rawdoc! {"n": n});
        }
        rawdoc! {"cursor": {"nextBatch": array, "postBatchResumeToken": {"_data": format!("{n}")}}}
    }

    fn start() -> Position {
        Position { token: None, spool: String::new(), seq: 0, index: 0 }
    }

    async fn number(spool: &Spool, seq: u64) -> i32 {
        match spool.next(seq).await {
            Ok(Next::Batch(batch)) => {
                event::events_of(&batch).and_then(|events| events.get_document(0).ok()?.get_i32("n").ok()).unwrap_or(-1)
            }
            other => panic!("no batch {seq}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn what_was_spooled_before_a_restart_is_read_on_from_the_checkpoint() {
        let dir = tempfile::tempdir().expect("a directory");
        let position = {
            let (spool, position, token) = Spool::open(dir.path(), &start()).expect("opens");
            assert_eq!(token, None);
            (0..5).for_each(|n| spool.push(reply(n, 1)).expect("pushes"));
            spool.push(reply(99, 0)).expect("pushes");
            spool.trim(2).expect("trims");
            Position { seq: 3, ..position }
        };
        let (spool, again, token) = Spool::open(dir.path(), &position).expect("opens");
        assert_eq!((&again, token), (&position, Some(bson::doc! {"_data": "99"})));
        assert_eq!((number(&spool, 3).await, number(&spool, 4).await), (3, 4));
        drop(spool);
        // A checkpoint of another agent's spool: nothing here is of use.
        let other = Position { spool: "other".into(), token: Some(bson::doc! {"_data": "7"}), ..position };
        let (spool, fresh, token) = Spool::open(dir.path(), &other).expect("opens");
        assert_eq!((fresh.seq, token), (3, Some(bson::doc! {"_data": "7"})));
        spool.push(reply(8, 1)).expect("pushes");
        assert_eq!(number(&spool, 3).await, 8);
    }

    #[tokio::test]
    async fn order_holds_when_memory_overflows_to_disk_and_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (spool, _, _) = Spool::open(dir.path(), &start()).expect("opens");
        spool.set_live();
        let big = 20_000;
        (0..200).for_each(|n| spool.push(reply(n, big)).expect("pushes"));
        assert!(spool.state().memory_bytes <= MEMORY_BYTES && spool.state().disk_bytes > 0);
        for n in 0..200 {
            assert_eq!(number(&spool, n as u64).await, n);
            spool.trim(n as u64).expect("trims");
        }
        spool.push(reply(200, 1)).expect("pushes");
        assert_eq!(number(&spool, 200).await, 200);
        spool.push(reply(201, 0)).expect("pushes");
        assert!(matches!(spool.next(201).await, Ok(Next::Idle(_))));
    }
}
