//! Documents that have to be looked at again, on the agent's disk, so that memory stays flat however many they are.
//!
//! An entry's key begins with the second of its last mark: the oldest come first, and a document is looked at once it
//! has been quiet for some seconds. A document that is written to all the time leaves an entry a second; which of them
//! is its newest is kept in memory for just as long as it matters, and older ones are dropped unseen.

use crate::kept;
use bson::{RawDocument, RawDocumentBuf};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use limosa_model::{ErrorCode, Failure};
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use xxhash_rust::xxh3::xxh3_128;

/// A collection's UUID and the hash of a document's canonical `_id`.
pub(crate) type Key = [u8; 32];

/// One document to look at.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    second: u32,
    pub key: Key,
    /// `{_id: …}`
    pub id: RawDocumentBuf,
}

impl Entry {
    /// Of which collection.
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.key[..16]);
        uuid
    }
}

/// The set. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DirtySet {
    pub database: Database,
    entries: Keyspace,
    state: Arc<Mutex<State>>,
    count: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// The second of the last mark of each document that was marked lately, in two generations.
    recent: HashMap<Short, u32>,
    former: HashMap<Short, u32>,
    /// When `recent` was begun.
    since: u32,
    /// No entry is before this: what was removed there need not be passed over again and again.
    floor: Vec<u8>,
    /// The first place that was marked since the set was gone through last: the floor must not rise above it.
    marked_since: Option<Vec<u8>>,
    /// Documents that are being looked at: whether they were marked since.
    in_hand: HashMap<Key, bool>,
}

/// Enough of a key to tell documents apart in memory, where a million may be remembered.
type Short = [u8; 12];

fn short(key: &Key) -> Short {
    let mut short = [0; 12];
    short.copy_from_slice(&xxh3_128(key).to_be_bytes()[..12]);
    short
}

/// For how long the second of a mark is remembered at least: longer than a document has to be quiet. One that is
/// forgotten earlier is only looked at once more than it must.
const REMEMBERED_SECONDS: u32 = 4;

/// Of the set, how much is held in memory before it goes to disk.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// What is held in memory of the files on disk.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

pub(crate) fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

pub(crate) fn storage(e: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::LocalStorage, format!("the verifier's files on this host's disk: {e}"))
}

/// Where an entry is.
fn place(second: u32, key: &Key) -> Vec<u8> {
    let mut at = second.to_be_bytes().to_vec();
    at.extend_from_slice(key);
    at
}

/// The key of a document.
pub(crate) fn key(uuid: [u8; 16], canonical_id: &[u8]) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&uuid);
    key[16..].copy_from_slice(&xxh3_128(canonical_id).to_be_bytes());
    key
}

impl DirtySet {
    /// Opens what is in `dir`, or begins anew.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let make = || Database::builder(dir).cache_size(CACHE_BYTES).open();
        let database = kept::database(dir, make).map_err(storage)?;
        let entries = database.keyspace("dirty", keyspace_options).map_err(storage)?;
        let count = Arc::new(AtomicU64::new(entries.len().map_err(storage)? as u64));
        Ok(Self { database, entries, state: Arc::default(), count })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything.
    pub fn clear(&self) -> Result<(), Failure> {
        let mut state = self.state();
        *state = State::default();
        self.entries.clear().map_err(storage)?;
        self.count.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Marks a document, at `second`. What is looked at just now will have to be looked at again.
    pub fn mark(&self, key: Key, id: &RawDocument, second: u32) -> Result<(), Failure> {
        self.mark_all([(key, id)], second)
    }

    /// Marks documents, all with one write to the disk.
    pub fn mark_all<'a>(
        &self,
        documents: impl IntoIterator<Item = (Key, &'a RawDocument)>,
        second: u32,
    ) -> Result<(), Failure> {
        // Held to the end: the disk and what is remembered of it change together.
        let mut state = self.state();
        if second >= state.since.saturating_add(REMEMBERED_SECONDS) {
            state.former = std::mem::take(&mut state.recent);
            state.since = second;
        }
        let mut marks = self.database.batch();
        for (key, id) in documents {
            if let Some(marked) = state.in_hand.get_mut(&key) {
                *marked = true;
            }
            if state.recent.insert(short(&key), second) == Some(second) {
                continue;
            }
            let at = place(second, &key);
            if at < state.floor {
                state.floor.clone_from(&at);
            }
            if state.marked_since.as_ref().is_none_or(|first| at < *first) {
                state.marked_since = Some(at.clone());
            }
            marks.insert(&self.entries, at, id.as_bytes());
        }
        let count = marks.len() as u64;
        marks.commit().map_err(storage)?;
        self.count.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Marks a document that a scan found different, unless it waits to be looked at anyway: nothing touched it, so it
    /// need not be quiet for longer.
    pub fn suspect(&self, key: Key, id: &RawDocument, second: u32) -> Result<(), Failure> {
        let waits = {
            let state = self.state();
            let short = short(&key);
            state.in_hand.contains_key(&key) || state.recent.contains_key(&short) || state.former.contains_key(&short)
        };
        if waits { Ok(()) } else { self.mark(key, id, second) }
    }

    /// Takes up to `most` documents in hand whose last mark is not after `until`. They stay in the set until
    /// [`Self::settle`].
    pub fn take(&self, most: usize, until: u32) -> Result<Vec<Entry>, Failure> {
        let mut taken: Vec<Entry> = Vec::new();
        let mut stale: Vec<Vec<u8>> = Vec::new();
        let (all, mut first) = {
            let mut state = self.state();
            state.marked_since = None;
            (self.entries.range(state.floor.clone()..), true)
        };
        for item in all {
            let (at, id) = item.into_inner().map_err(storage)?;
            if std::mem::take(&mut first) {
                let mut state = self.state();
                // What was marked meanwhile isn't in what is gone through here.
                let begin = at.to_vec();
                state.floor = state.marked_since.clone().map_or(begin.clone(), |since| since.min(begin));
            }
            let (Some(second), Some(key)) = (at.get(..4), at.get(4..)) else { continue };
            let (Ok(second), Ok(key)) = (second.try_into().map(u32::from_be_bytes), Key::try_from(key)) else {
                continue;
            };
            if second > until || taken.len() >= most {
                break;
            }
            let mut state = self.state();
            if state.in_hand.contains_key(&key) {
                continue;
            }
            let short = short(&key);
            let newest = state.recent.get(&short).or_else(|| state.former.get(&short)).copied();
            if newest.is_some_and(|newest| newest > second) {
                stale.push(at.to_vec());
                continue;
            }
            state.in_hand.insert(key, false);
            let id = RawDocumentBuf::from_bytes(id.to_vec()).map_err(storage)?;
            taken.push(Entry { second, key, id });
        }
        for at in stale {
            self.remove(at)?;
        }
        Ok(taken)
    }

    fn remove(&self, at: Vec<u8>) -> Result<(), Failure> {
        self.entries.remove(at).map_err(storage)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a document out of hand. `true`: it was not marked meanwhile, so that what was seen of it holds; `clean`
    /// then takes it out of the set.
    pub fn settle(&self, entry: &Entry, clean: bool) -> Result<bool, Failure> {
        let mut state = self.state();
        let marked = state.in_hand.remove(&entry.key).unwrap_or(false);
        // A mark in the same second is at the entry's place; it must stay then.
        let short = short(&entry.key);
        let marked_there = marked && state.recent.get(&short) == Some(&entry.second);
        if (marked || clean) && !marked_there {
            self.remove(place(entry.second, &entry.key))?;
            if !marked {
                state.recent.remove(&short);
                state.former.remove(&short);
            }
        }
        Ok(!marked)
    }

    /// Nobody has anything in hand any more: what was looked at last was not settled.
    pub fn put_all_back(&self) {
        self.state().in_hand.clear();
    }

    /// Whether a document in hand was marked since it was taken.
    pub fn is_marked(&self, entry: &Entry) -> bool {
        self.state().in_hand.get(&entry.key).copied().unwrap_or(true)
    }

    /// Puts a document out of hand that wasn't judged: it stays in the set as it is.
    pub fn put_back(&self, entry: &Entry) {
        self.state().in_hand.remove(&entry.key);
    }

    /// How many entries there are; a document that is written to has several.
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes what was marked outlive a power failure.
    pub fn sync(&self) -> Result<(), Failure> {
        self.database.persist(fjall::PersistMode::SyncData).map_err(storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn id(n: i32) -> (Key, RawDocumentBuf) {
        (key([1; 16], &n.to_be_bytes()), rawdoc! {"_id": n})
    }

    fn ids(entries: &[Entry]) -> Vec<i32> {
        entries.iter().map(|e| e.id.get_i32("_id").expect("a number")).collect()
    }

    #[test]
    fn quiet_documents_come_oldest_first_and_hot_ones_wait() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        for (n, second) in [(1, 100), (2, 101), (1, 103), (3, 104)] {
            let (key, id) = id(n);
            set.mark(key, &id, second).expect("marks");
        }
        assert_eq!(set.len(), 4);
        let taken = set.take(10, 103).expect("takes");
        assert_eq!(ids(&taken), [2, 1]);
        // What is in hand isn't handed out twice.
        assert!(set.take(10, 103).expect("takes").is_empty());
        for entry in &taken {
            assert!(set.settle(entry, true).expect("settles"));
        }
        assert_eq!(ids(&set.take(10, 200).expect("takes")), [3]);
    }

    #[test]
    fn a_mark_while_in_hand_invalidates_what_was_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        let (key, id) = id(7);
        for second in [50, 50, 60] {
            set.mark(key, &id, 50).expect("marks");
            let taken = set.take(1, 99).expect("takes");
            assert_eq!(taken.len(), 1, "{second}");
            set.mark(key, &id, second).expect("marks");
            assert!(!set.settle(&taken[0], true).expect("settles"), "{second}");
            let again = set.take(10, 99).expect("takes");
            assert_eq!(again.len(), 1, "{second}");
            assert!(set.settle(&again[0], true).expect("settles"));
            assert_eq!(set.len(), 0, "{second}");
        }
    }

    #[test]
    fn a_mark_below_what_was_passed_over_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        for n in 0..100 {
            let (key, id) = id(n);
            set.mark(key, &id, 1_000).expect("marks");
        }
        let taken = set.take(60, 2_000).expect("takes");
        for entry in &taken {
            assert!(set.settle(entry, true).expect("settles"));
        }
        assert_eq!(set.take(5, 2_000).map(|all| all.len()), Ok(5));
        // The clock went back.
        let (key, id) = id(500);
        set.mark(key, &id, 10).expect("marks");
        assert_eq!(ids(&set.take(1, 2_000).expect("takes")), [500]);
        assert_eq!(set.take(100, 2_000).map(|all| all.len()), Ok(35));
    }

    #[test]
    fn scans_that_come_again_do_not_keep_a_document_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        let (key, id) = id(1);
        (100..105).for_each(|second| set.suspect(key, &id, second).expect("marks"));
        let taken = set.take(10, 100).expect("takes");
        set.suspect(key, &id, 105).expect("marks");
        assert!(!set.is_marked(&taken[0]) && set.settle(&taken[0], true).expect("settles"));
        assert_eq!(set.len(), 0);
        set.suspect(key, &id, 106).expect("marks");
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn the_set_outlives_its_process() {
        let dir = tempfile::tempdir().expect("a directory");
        {
            let set = DirtySet::open(dir.path()).expect("opens");
            for n in 0..5 {
                let (key, id) = id(n);
                set.mark(key, &id, 10 + n as u32).expect("marks");
            }
            let first = set.take(1, 99).expect("takes");
            assert!(set.settle(&first[0], true).expect("settles"));
        }
        let set = DirtySet::open(dir.path()).expect("opens");
        assert_eq!((set.len(), ids(&set.take(10, 99).expect("takes"))), (4, vec![1, 2, 3, 4]));
    }
}
