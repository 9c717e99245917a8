//! What was read from the stream and isn't applied yet.
//!
//! The unit is one reply of the server, kept as its bytes under a running number: nothing is decoded on the way in, and
//! the resume token after it comes with it. While the copy runs every batch goes to disk, so that neither the copy's
//! length nor a crash needs the source's oplog. Once the applier reads along, batches pass through memory, bounded in
//! bytes; when it falls behind, what is in memory goes to disk first, so that the disk never has a gap. What was handed
//! out stays until it is said to be applied, so that it can be handed out again.
//!
//! The disk has a cap: at it the reader waits, until the applier has got through half.

use crate::{
    Tuning, local_state,
    source::{event, position::Position},
};
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};
use limosa_model::{ErrorCode, Failure};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

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
    dir: PathBuf,
    database: Database,
    batches: Keyspace,
    meta: Keyspace,
    state: Mutex<State>,
    changed: Notify,
    most_in_memory: usize,
    most_on_disk: u64,
}

struct State {
    /// Number of the next batch that comes in.
    next: u64,
    /// Batches on disk are below this.
    on_disk_until: u64,
    /// The first one that may still be on disk.
    on_disk_from: u64,
    disk_bytes: u64,
    /// What else of this migration's takes room on the disk.
    besides: u64,
    memory: VecDeque<(u64, Arc<RawDocumentBuf>)>,
    memory_bytes: usize,
    /// What the reader asked for last.
    reading: u64,
    /// Everything before it is applied.
    applied: Position,
    /// Whether there is a reader.
    live: bool,
    /// The token of an empty reply after the last batch.
    idle: Option<RawDocumentBuf>,
    /// Up to where the source is read.
    read_until: Option<Timestamp>,
}

impl State {
    /// Nothing is there, and `position` is where it continues.
    fn at(position: &Position) -> Self {
        Self {
            next: position.seq,
            on_disk_until: position.seq,
            on_disk_from: position.seq,
            disk_bytes: 0,
            besides: 0,
            memory: VecDeque::new(),
            memory_bytes: 0,
            reading: position.seq,
            applied: position.clone(),
            live: false,
            idle: None,
            read_until: None,
        }
    }
}

/// What is held in memory before it goes to disk, and of the files that are there: each batch is written once and read
/// once, in order, so that more gains nothing.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
const META_BYTES: u64 = 1024 * 1024;
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// What the journals hold is read back into memory after a crash: no more than the least that the library allows.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// How often it is looked whether memory has been written out, and for how long: a disk that takes no more says so with
/// the next write.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOK_FOR: Duration = Duration::from_secs(5);

fn open_database(dir: &Path) -> fjall::Result<Database> {
    let builder = Database::builder(dir).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES);
    // What stays is compressed; the journal is gone as soon as it is written out.
    local_state::database(dir, || builder.journal_compression(fjall::CompressionType::None).open())
}

/// A file that says that what is beside it can't be read any more.
const SPOILED: &str = "spoiled";

fn storage(e: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::LocalStorage, format!("the spool on this host's disk: {e}"))
}

/// The database in `dir`; an empty one if what is there can't be read: the source can be read again from the checkpoint.
fn open_or_begin_again(dir: &Path) -> Result<Database, Failure> {
    let spoiled = dir.join(SPOILED);
    match if spoiled.exists() { None } else { Some(open_database(dir)) } {
        Some(Ok(database)) => Ok(database),
        Some(Err(error @ (fjall::Error::Io(_) | fjall::Error::Locked))) => Err(storage(error)),
        unreadable => {
            tracing::warn!(error = ?unreadable.and_then(Result::err), "the spool can't be read any more; it begins again");
            local_state::empty(dir).map_err(storage)?;
            open_database(dir).map_err(storage)
        }
    }
}

/// The numbers of the first and the last batch, if they are of `position`'s spool and `position` is among them.
fn usable(batches: &Keyspace, meta: &Keyspace, position: &Position) -> Result<Option<(u64, u64)>, Failure> {
    let key_of = |guard: Option<fjall::Guard>| -> Result<Option<u64>, Failure> {
        let key = guard.map(fjall::Guard::key).transpose().map_err(storage)?;
        Ok(key.and_then(|k| k.as_ref().try_into().ok()).map(u64::from_be_bytes))
    };
    let own = meta.get("id").map_err(storage)?.is_some_and(|id| id.as_ref() == position.spool.as_bytes());
    let ends = key_of(batches.first_key_value())?.zip(key_of(batches.last_key_value())?);
    Ok(ends.filter(|(first, last)| own && *first <= position.seq && *last >= position.seq))
}

/// The token to read on from after batch `last`: that of an empty reply that came after it, else its own.
fn last_token(batches: &Keyspace, meta: &Keyspace, last: u64) -> Result<Option<Document>, Failure> {
    let newest = batches.get(last.to_be_bytes()).map_err(storage)?.unwrap_or_else(|| [].into());
    let newest = RawDocument::from_bytes(newest.as_ref()).map_err(storage)?;
    let idle = meta.get("idle").map_err(storage)?;
    let idle = idle.as_ref().and_then(|v| {
        let (seq, token) = v.as_ref().split_at_checked(8)?;
        if seq == (last + 1).to_be_bytes() { RawDocument::from_bytes(token).ok() } else { None }
    });
    Ok(match idle {
        Some(idle) => Some(crate::mongo::raw_bson::to_document(idle)),
        None => event::token_of(newest).map(|t| crate::mongo::raw_bson::to_document(&t)),
    })
}

impl Spool {
    /// Opens the spool in `dir` to continue at `position`. What is there is used if it belongs to that position's spool
    /// and reaches back to it, else thrown away. Returns the place to apply from, and the token to read on from.
    pub fn open(
        dir: &Path,
        position: &Position,
        tuning: &Tuning,
    ) -> Result<(Self, Position, Option<Document>), Failure> {
        local_state::survive(dir, || Self::open_database(dir, position, tuning))
    }

    fn open_database(
        dir: &Path,
        position: &Position,
        tuning: &Tuning,
    ) -> Result<(Self, Position, Option<Document>), Failure> {
        let database = open_or_begin_again(dir)?;
        let options = || {
            let separated = KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()));
            separated.max_memtable_size(MEMTABLE_BYTES)
        };
        let batches = database.keyspace("batches", options).map_err(storage)?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(META_BYTES);
        let meta = database.keyspace("meta", small).map_err(storage)?;
        let mut position = position.clone();
        let mut token = position.token.clone();
        let mut state = State::at(&position);
        if let Some((first, last)) = usable(&batches, &meta, &position)? {
            token = last_token(&batches, &meta, last)?;
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
        state.applied = position.clone();
        let spool = Self {
            dir: dir.to_owned(),
            database,
            batches,
            meta,
            state: Mutex::new(state),
            changed: Notify::new(),
            most_in_memory: tuning.spool_memory_bytes,
            most_on_disk: tuning.spool_disk_bytes,
        };
        Ok((spool, position, token))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one reply in; on an error it isn't in, and what was before is as it was.
    pub fn push(&self, reply: &Arc<RawDocumentBuf>) -> Result<(), Failure> {
        let mut state = self.state();
        if event::events_of(reply).is_none_or(|events| events.is_empty()) {
            if let Some(token) = event::token_of(reply) {
                if !state.live {
                    let mut value = state.next.to_be_bytes().to_vec();
                    value.extend_from_slice(token.as_bytes());
                    self.meta.insert("idle", value).map_err(storage)?;
                }
                state.idle = Some(token);
            }
        } else {
            let seq = state.next;
            let fits = state.memory_bytes + reply.as_bytes().len() <= self.most_in_memory;
            if state.live && fits && state.reading >= state.on_disk_until {
                state.memory_bytes += reply.as_bytes().len();
                state.memory.push_back((seq, Arc::clone(reply)));
            } else {
                while let Some((earlier, batch)) = state.memory.front().cloned() {
                    self.write(&mut state, earlier, &batch)?;
                    state.memory.pop_front();
                    state.memory_bytes -= batch.as_bytes().len();
                }
                self.write(&mut state, seq, reply)?;
            }
            state.next += 1;
            state.idle = None;
        }
        state.read_until = event::token_of(reply).and_then(|t| event::token_time(&t)).or(state.read_until);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The cluster time up to which the source is read; unknown right after a start.
    pub fn read_until(&self) -> Option<Timestamp> {
        self.state().read_until
    }

    fn write(&self, state: &mut State, seq: u64, batch: &RawDocument) -> Result<(), Failure> {
        if state.on_disk_until < seq {
            // Batches between passed through memory alone: a resume can't continue from what is before them.
            self.remove_until(state, state.on_disk_until)?;
            state.on_disk_from = seq;
        }
        self.batches.insert(seq.to_be_bytes(), batch.as_bytes()).map_err(storage)?;
        state.on_disk_until = seq + 1;
        state.disk_bytes += batch.as_bytes().len() as u64;
        Ok(())
    }

    /// Whether the disk has room for more.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.disk_bytes < self.most_on_disk.saturating_sub(state.besides)
    }

    /// Waits until what was pushed has gone from memory to the disk, but for one batch. The library by itself continues
    /// until five of its tables are full, each of which is as large as a batch may be.
    pub async fn written_out(&self) {
        let began = Instant::now();
        // More than what both tables hold before they are written out: one of them is being written.
        while self.database.write_buffer_size() > MEMTABLE_BYTES + META_BYTES && began.elapsed() < LOOK_FOR {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the disk's cap is far enough away again.
    pub async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if state.disk_bytes <= self.most_on_disk.saturating_sub(state.besides) / 2 {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Other files of this migration take so many bytes, which count as the spool's.
    pub fn shares_with(&self, bytes: u64) {
        self.state().besides = bytes;
        self.changed.notify_waiters();
    }

    /// Everything before `position` is applied: what is in memory of it is let go.
    pub fn applied(&self, position: &Position) {
        let mut state = self.state();
        state.applied = position.clone();
        while state.memory.front().is_some_and(|(first, _)| *first < position.seq) {
            if let Some((_, batch)) = state.memory.pop_front() {
                state.memory_bytes -= batch.as_bytes().len();
            }
        }
    }

    /// Where to continue applying.
    pub fn applied_to(&self) -> Position {
        self.state().applied.clone()
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
        if let Some((first, _)) = state.memory.front()
            && let Some((_, batch)) = seq.checked_sub(*first).and_then(|n| state.memory.get(n as usize))
        {
            return Ok(Some(Next::Batch(Arc::clone(batch))));
        }
        if seq < state.on_disk_until {
            drop(state);
            let found = self.batches.get(seq.to_be_bytes()).map_err(|e| self.spoiled(seq, &e))?;
            let found = found.ok_or_else(|| self.spoiled(seq, &"is missing"))?;
            let batch = RawDocumentBuf::from_bytes(found.to_vec()).map_err(|e| self.spoiled(seq, &e))?;
            return Ok(Some(Next::Batch(Arc::new(batch))));
        }
        Ok(state.idle.take().map(Next::Idle))
    }

    /// What can't be read back is of no use: the next opening begins again.
    fn spoiled(&self, seq: u64, error: &dyn std::fmt::Display) -> Failure {
        if let Err(error) = std::fs::write(self.dir.join(SPOILED), b"") {
            tracing::warn!(%error, "the spool can't be marked as spoiled");
        }
        storage(format!("batch {seq}: {error}"))
    }

    /// Forgets the batches before `seq`: they are applied and the checkpoint says so.
    pub fn trim(&self, seq: u64) -> Result<(), Failure> {
        let mut state = self.state();
        let until = seq.min(state.on_disk_until);
        self.remove_until(&mut state, until)?;
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Takes the batches on disk before `until` away.
    fn remove_until(&self, state: &mut State, until: u64) -> Result<(), Failure> {
        while state.on_disk_from < until {
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

    /// Whether there is anything on disk, applied or not.
    pub fn is_on_disk(&self) -> bool {
        self.state().disk_bytes > 0
    }

    /// Bytes waiting, in memory and on disk.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        state.memory_bytes as u64 + state.disk_bytes
    }
}

#[cfg(test)]
mod tests;
