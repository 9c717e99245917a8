//! Documents that have to be looked at again, on the agent's disk, so that memory stays flat however many they are.
//!
//! The set has one entry a document, whatever number of changes it had: its key, with the second of its last mark. A
//! document is looked at once it has been quiet for some seconds. The entries are gone through in the order of their
//! keys, round and round, so that each has its turn and none is passed over again and again.

use crate::local_state;
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
    bytes: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// The second of the last mark of each document that was marked lately, in two generations.
    recent: HashMap<Short, u32>,
    former: HashMap<Short, u32>,
    /// When `recent` was begun.
    since: u32,
    /// Where the next look through the set begins.
    next: Option<Key>,
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

/// For how long a mark is remembered at least. One that is forgotten earlier costs a look at the disk.
const REMEMBERED_SECONDS: u32 = 4;

/// Entries that one [`DirtySet::take_some`] goes through: where nearly all are written to all the time, this bounds what
/// looking for a quiet one costs.
const GONE_THROUGH: usize = 100_000;

/// Of the set, how much is held in memory before it goes to disk.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// What is held in memory of the files on disk.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// What an entry takes besides its `_id`.
const ENTRY_BYTES: u64 = 36;

pub(crate) fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

pub(crate) fn storage(e: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::LocalStorage, format!("the verifier's files on this host's disk: {e}"))
}

/// An entry's value: the second of its last mark, and `{_id: …}`.
fn value(second: u32, id: &[u8]) -> Vec<u8> {
    let mut value = second.to_be_bytes().to_vec();
    value.extend_from_slice(id);
    value
}

/// The key of a document.
pub(crate) fn key(uuid: [u8; 16], canonical_id: &[u8]) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&uuid);
    key[16..].copy_from_slice(&xxh3_128(canonical_id).to_be_bytes());
    key
}

fn less(counter: &AtomicU64, by: u64) {
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(by)));
}

/// The key after this one; `None` after the last.
fn after(key: &Key) -> Option<Key> {
    let mut next = *key;
    for byte in next.iter_mut().rev() {
        let (sum, overflows) = byte.overflowing_add(1);
        *byte = sum;
        if !overflows {
            return Some(next);
        }
    }
    None
}

impl DirtySet {
    /// Opens what is in `dir`, or begins again.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let make = || Database::builder(dir).cache_size(CACHE_BYTES).open();
        let database = local_state::database(dir, make).map_err(storage)?;
        let entries = database.keyspace("documents", keyspace_options).map_err(storage)?;
        let set = Self { database, entries, state: Arc::default(), count: Arc::default(), bytes: Arc::default() };
        set.count_all()?;
        Ok(set)
    }

    fn count_all(&self) -> Result<(), Failure> {
        let (mut count, mut bytes) = (0, 0);
        for item in self.entries.iter() {
            count += 1;
            bytes += ENTRY_BYTES - 4 + u64::from(item.size().map_err(storage)?);
        }
        self.count.store(count, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes over what a release before this one kept: an entry for each document and second, under both.
    pub fn take_over(&self) -> Result<(), Failure> {
        let former = self.database.keyspace("dirty", keyspace_options).map_err(storage)?;
        for item in former.iter() {
            let (at, id) = item.into_inner().map_err(storage)?;
            let (Some(second), Some(key)) = (at.first_chunk::<4>(), at.get(4..)) else { continue };
            // In the order of their seconds: the last one stays.
            self.entries.insert(key, value(u32::from_be_bytes(*second), &id)).map_err(storage)?;
        }
        self.sync()?;
        former.clear().map_err(storage)?;
        self.count_all()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything; what is in hand counts as marked.
    pub fn clear(&self) -> Result<(), Failure> {
        let mut state = self.state();
        *state = State::default();
        self.entries.clear().map_err(storage)?;
        self.count.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
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
        let (mut count, mut bytes) = (0, 0);
        for (key, id) in documents {
            if let Some(marked) = state.in_hand.get_mut(&key) {
                *marked = true;
            }
            let short = short(&key);
            let known = state.recent.insert(short, second);
            if known == Some(second) {
                continue;
            }
            let is_there = known.is_some()
                || state.former.contains_key(&short)
                || self.entries.contains_key(key).map_err(storage)?;
            if !is_there {
                count += 1;
                bytes += ENTRY_BYTES + id.as_bytes().len() as u64;
            }
            marks.insert(&self.entries, key, value(second, id.as_bytes()));
        }
        marks.commit().map_err(storage)?;
        self.count.fetch_add(count, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
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
        if waits || self.entries.contains_key(key).map_err(storage)? { Ok(()) } else { self.mark(key, id, second) }
    }

    /// Takes up to `most` documents in hand whose last mark is not after `until`. They stay in the set until
    /// [`Self::settle`]. None: there are none.
    pub fn take(&self, most: usize, until: u32) -> Result<Vec<Entry>, Failure> {
        self.gather(most, until, usize::MAX)
    }

    /// The same, going through a bounded part of the set: others may be found the next time.
    pub fn take_some(&self, most: usize, until: u32) -> Result<Vec<Entry>, Failure> {
        self.gather(most, until, GONE_THROUGH)
    }

    /// From where the last look ended to the end, then from the beginning to there.
    fn gather(&self, most: usize, until: u32, entries: usize) -> Result<Vec<Entry>, Failure> {
        let begin = self.state().next.unwrap_or([0; 32]);
        let all = self.entries.range(begin..).chain(self.entries.range([0; 32]..begin));
        let mut taken: Vec<Entry> = Vec::new();
        let mut next = begin;
        for (n, item) in all.enumerate() {
            if n >= entries || taken.len() >= most {
                break;
            }
            let (key, held) = item.into_inner().map_err(storage)?;
            let (Ok(key), Some((second, id))) = (Key::try_from(key.as_ref()), held.split_first_chunk::<4>()) else {
                continue;
            };
            next = after(&key).unwrap_or([0; 32]);
            let mut state = self.state();
            // What was marked since this look began shows in memory alone.
            let newest = state.recent.get(&short(&key)).copied().unwrap_or(0).max(u32::from_be_bytes(*second));
            if newest > until || state.in_hand.contains_key(&key) {
                continue;
            }
            state.in_hand.insert(key, false);
            taken.push(Entry { key, id: RawDocumentBuf::from_bytes(id.to_vec()).map_err(storage)? });
        }
        self.state().next = Some(next);
        Ok(taken)
    }

    /// Puts a document out of hand. `true`: it was not marked meanwhile, so that what was seen of it holds; `clean`
    /// then takes it out of the set.
    pub fn conclude(&self, entry: &Entry, clean: bool) -> Result<bool, Failure> {
        let mut state = self.state();
        // One that isn't in hand may have been marked at any time.
        let marked = state.in_hand.remove(&entry.key).unwrap_or(true);
        if clean && !marked {
            self.entries.remove(entry.key).map_err(storage)?;
            less(&self.count, 1);
            less(&self.bytes, ENTRY_BYTES + entry.id.as_bytes().len() as u64);
            let short = short(&entry.key);
            state.recent.remove(&short);
            state.former.remove(&short);
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

    /// How many documents there are.
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// About how many bytes they take on the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
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
        let mut all: Vec<i32> = entries.iter().map(|e| e.id.get_i32("_id").expect("a number")).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_document_has_one_entry_and_hot_ones_wait() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        for (n, second) in [(1, 100), (2, 101), (1, 103), (3, 104), (2, 90_000), (2, 103)] {
            let (key, id) = id(n);
            set.mark(key, &id, second).expect("marks");
        }
        assert_eq!(set.len(), 3);
        assert_eq!(set.bytes(), 3 * (ENTRY_BYTES + id(1).1.as_bytes().len() as u64));
        let taken = set.take(10, 103).expect("takes");
        assert_eq!(ids(&taken), [1, 2]);
        // What is in hand isn't handed out twice.
        assert!(set.take(10, 103).expect("takes").is_empty());
        for entry in &taken {
            assert!(set.conclude(entry, true).expect("settles"));
        }
        assert_eq!(ids(&set.take(10, 200).expect("takes")), [3]);
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn many_seconds_of_changes_of_few_documents_take_no_more_than_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        let documents: Vec<_> = (0..50).map(id).collect();
        for second in 0..100 {
            set.mark_all(documents.iter().map(|(key, id)| (*key, id.as_ref())), second).expect("marks");
        }
        assert_eq!(set.len(), 50);
        let all = set.take(1_000, u32::MAX).expect("takes");
        assert_eq!(all.len(), 50);
        for entry in &all {
            assert!(set.conclude(entry, true).expect("settles"));
        }
        assert_eq!((set.len(), set.bytes()), (0, 0));
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
            assert!(!set.conclude(&taken[0], true).expect("settles"), "{second}");
            let again = set.take(10, 99).expect("takes");
            assert_eq!(again.len(), 1, "{second}");
            // One that was put back keeps its mark, whoever settles it then.
            set.put_back(&again[0]);
            assert!(!set.conclude(&again[0], true).expect("settles"), "{second}");
            let again = set.take(10, 99).expect("takes");
            assert!(set.conclude(&again[0], true).expect("settles"));
            assert_eq!(set.len(), 0, "{second}");
        }
    }

    #[test]
    fn all_have_their_turn() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        for n in 0..100 {
            let (key, id) = id(n);
            set.mark(key, &id, 1_000).expect("marks");
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            let taken = set.take(30, 2_000).expect("takes");
            seen.extend(ids(&taken));
            // They differ on, and are looked at again.
            taken.iter().for_each(|entry| set.put_back(entry));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100);
        assert_eq!(set.take(500, 2_000).map(|all| all.len()), Ok(100));
    }

    #[test]
    fn scans_that_come_again_do_not_keep_a_document_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        let (key, id) = id(1);
        (100..120).for_each(|second| set.suspect(key, &id, second).expect("marks"));
        let taken = set.take(10, 100).expect("takes");
        set.suspect(key, &id, 125).expect("marks");
        assert!(!set.is_marked(&taken[0]) && set.conclude(&taken[0], true).expect("settles"));
        assert_eq!(set.len(), 0);
        set.suspect(key, &id, 126).expect("marks");
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn the_set_outlives_its_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes = {
            let set = DirtySet::open(dir.path()).expect("opens");
            for n in 0..5 {
                let (key, id) = id(n);
                set.mark(key, &id, 10 + n as u32).expect("marks");
            }
            let first = set.take(1, 99).expect("takes");
            assert!(set.conclude(&first[0], true).expect("settles"));
            set.bytes()
        };
        let set = DirtySet::open(dir.path()).expect("opens");
        assert_eq!((set.len(), set.bytes(), set.take(10, 99).expect("takes").len()), (4, bytes, 4));
    }

    #[test]
    fn what_the_release_before_kept_is_taken_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = DirtySet::open(dir.path()).expect("opens");
        let former = set.database.keyspace("dirty", keyspace_options).expect("opens");
        for (n, second) in [(1, 100_u32), (2, 101), (1, 103)] {
            let (key, id) = id(n);
            let mut at = second.to_be_bytes().to_vec();
            at.extend_from_slice(&key);
            former.insert(at, id.as_bytes()).expect("writes");
        }
        set.take_over().expect("takes over");
        assert_eq!(set.len(), 2);
        assert_eq!(ids(&set.take(10, 101).expect("takes")), [2]);
        assert_eq!(ids(&set.take(10, 103).expect("takes")), [1]);
    }
}
