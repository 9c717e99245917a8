//! What the verifier beside replication keeps on the agent's disk besides the dirty set: the ranges of the pass that is
//! under way and what they held, what each collection held when it was compared as a whole last and whether it was
//! changed since, and which documents were repaired.
//!
//! The notes belong to one run of events: all that were applied since they were begun left their marks in the dirty
//! set beside them. The checkpoint on the destination names them, so that notes which missed an event, because
//! another agent had the migration meanwhile, are thrown away.

use crate::{
    local_state,
    mongo::catalog::{self, Uuid},
    verify::{
        collection_pair::{CollectionPair, IdOrder, Interval, ScanTotals},
        dirty_set::{DirtySet, Key, keyspace_options, storage},
    },
};
use bson::{Binary, Document, RawDocument, doc, spec::BinarySubtype};
use fjall::Keyspace;
use limosa_model::{Failure, Namespace};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Under what the notes have their name. Releases that kept the dirty set otherwise look for it under the other one,
/// don't find it, and begin again instead of taking the set for empty.
const NAME: &str = "name";
const FORMER_NAME: &str = "id";

/// One range of a pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub n: u32,
    pub pair: CollectionPair,
    pub interval: Interval,
    /// What it held, once it is done.
    pub counted: Option<ScanTotals>,
}

/// A document that was found different and written again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Repaired {
    pub ns: String,
    /// The difference, as it is told.
    pub difference: Document,
}

/// What a collection held when it was compared as a whole last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub counted: ScanTotals,
    /// Whether a document was changed, or found different, since that comparison began: it may or may not be in these
    /// numbers.
    pub changed_since: bool,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Notes {
    pub dirty: DirtySet,
    meta: Keyspace,
    ranges: Keyspace,
    repaired: Keyspace,
    found: Keyspace,
    changed: Keyspace,
    /// Collections that are compared as a whole before everything counts as compared.
    pub doubts: Keyspace,
    changes: Arc<Mutex<Changes>>,
}

/// When collections were changed, in comparisons begun.
#[derive(Default)]
struct Changes {
    /// How many comparisons of whole collections were begun.
    begun: u64,
    /// How many were when this collection was changed last.
    last: HashMap<Uuid, u64>,
}

impl Notes {
    /// Opens the notes in `dir`, which are those called `id` or else are begun again. Returns their name too.
    pub fn open(dir: &Path, id: Option<&str>) -> Result<(Self, String), Failure> {
        local_state::survive(dir, || Self::open_database(dir, id))
    }

    fn open_database(dir: &Path, id: Option<&str>) -> Result<(Self, String), Failure> {
        let dirty = DirtySet::open(dir)?;
        let keyspace = |name| dirty.database.keyspace(name, keyspace_options).map_err(storage);
        let notes = Self {
            meta: keyspace("meta")?,
            ranges: keyspace("ranges")?,
            repaired: keyspace("repaired")?,
            found: keyspace("found")?,
            changed: keyspace("changed")?,
            doubts: keyspace("doubts")?,
            changes: Arc::default(),
            dirty,
        };
        let is_called = |name: &str| {
            let found = notes.meta.get(name).map_err(storage)?;
            Ok::<bool, Failure>(id.is_some_and(|id| found.is_some_and(|found| found.as_ref() == id.as_bytes())))
        };
        let former = is_called(FORMER_NAME)?;
        if let Some(id) = id
            && (former || is_called(NAME)?)
        {
            if former {
                notes.dirty.take_over()?;
                notes.meta.insert(NAME, id.as_bytes()).map_err(storage)?;
                notes.dirty.sync()?;
                notes.meta.remove(FORMER_NAME).map_err(storage)?;
            }
            notes.remember_changes()?;
            return Ok((notes, id.to_owned()));
        }
        notes.dirty.clear()?;
        for keyspace in [&notes.meta, &notes.ranges, &notes.repaired, &notes.found, &notes.changed, &notes.doubts] {
            keyspace.clear().map_err(storage)?;
        }
        let id = format!("{:016x}", rand::random::<u64>());
        notes.meta.insert(NAME, id.as_bytes()).map_err(storage)?;
        notes.dirty.sync()?;
        Ok((notes, id))
    }

    /// How many passes were made over everything.
    pub fn passes(&self) -> Result<u64, Failure> {
        self.number("passes")
    }

    fn number(&self, name: &str) -> Result<u64, Failure> {
        Ok(self.meta.get(name).map_err(storage)?.map_or(0, |value| number_of(&value)))
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_changes(&self) -> Result<(), Failure> {
        let mut changes = self.changes();
        changes.begun = self.number("begun")?;
        for item in self.changed.iter() {
            let (uuid, begun) = item.into_inner().map_err(storage)?;
            let uuid = uuid.as_ref().try_into().map_err(storage)?;
            changes.last.insert(uuid, number_of(&begun));
        }
        Ok(())
    }

    /// Notes that a document of this collection is about to be changed, or was found different.
    pub fn touch(&self, uuid: Uuid) -> Result<(), Failure> {
        let mut changes = self.changes();
        let begun = changes.begun;
        if changes.last.insert(uuid, begun) != Some(begun) {
            self.changed.insert(uuid, begun.to_be_bytes()).map_err(storage)?;
        }
        Ok(())
    }

    /// Begins a comparison of one or more whole collections; returns its number.
    pub fn begin_pass(&self) -> Result<u64, Failure> {
        let mut changes = self.changes();
        changes.begun += 1;
        self.meta.insert("begun", changes.begun.to_be_bytes()).map_err(storage)?;
        Ok(changes.begun)
    }

    /// The ranges of the pass that is under way; none if the last one is over.
    pub fn ranges(&self) -> Result<Vec<Range>, Failure> {
        let mut all = Vec::new();
        for item in self.ranges.iter() {
            let (key, value) = item.into_inner().map_err(storage)?;
            let n = key.as_ref().try_into().map(u32::from_be_bytes).map_err(storage)?;
            let document = RawDocument::from_bytes(value.as_ref()).map_err(storage)?;
            all.extend(read_range(n, &crate::mongo::raw_bson::to_document(document)));
        }
        Ok(all)
    }

    /// Notes what a pass that was just begun will go over.
    pub fn plan(&self, ranges: &[Range]) -> Result<(), Failure> {
        self.ranges.clear().map_err(storage)?;
        let begun = self.changes().begun;
        let mut batch = self.dirty.database.batch();
        batch.insert(&self.meta, "pass", begun.to_be_bytes());
        for range in ranges {
            batch.insert(&self.ranges, range.n.to_be_bytes(), bytes(&write_range(range))?);
        }
        batch.commit().map_err(storage)
    }

    /// The number of the pass that is under way; 0 if none is.
    pub fn pass(&self) -> Result<u64, Failure> {
        self.number("pass")
    }

    /// Notes what a range of pass `number` held; `false` if that pass is no longer under way.
    pub fn done(&self, range: &Range, number: u64) -> Result<bool, Failure> {
        let _changes = self.changes();
        if self.pass()? != number {
            return Ok(false);
        }
        self.ranges.insert(range.n.to_be_bytes(), bytes(&write_range(range))?).map_err(storage)?;
        Ok(true)
    }

    /// Takes a range out of the pass: its collection is gone, and what is gone was not compared.
    pub fn leave_out(&self, range: &Range) -> Result<(), Failure> {
        self.ranges.remove(range.n.to_be_bytes()).map_err(storage)
    }

    /// Forgets which documents are dirty: from here on only a pass that begins later says whether both sides are equal.
    pub fn owe_a_pass(&self) -> Result<(), Failure> {
        // Noted before anything is forgotten.
        let changes = self.changes();
        self.meta.insert("owed", (changes.begun + 1).to_be_bytes()).map_err(storage)?;
        self.meta.insert("pass", 0_u64.to_be_bytes()).map_err(storage)?;
        self.dirty.sync()?;
        self.ranges.clear().map_err(storage)?;
        self.dirty.clear()
    }

    /// Whether a pass that began after the last [`Self::owe_a_pass`] has yet to end.
    pub fn owes_a_pass(&self) -> Result<bool, Failure> {
        Ok(self.meta.get("owed").map_err(storage)?.is_some())
    }

    /// Ends pass `number`; what it found replaces what the one before found. Returns how many collections there were;
    /// `None` if that pass is no longer under way.
    pub fn end_pass(&self, number: u64) -> Result<Option<usize>, Failure> {
        if self.pass()? != number {
            return Ok(None);
        }
        // By UUID: a collection that was renamed between two of its ranges is one.
        let mut sums: BTreeMap<Uuid, (CollectionPair, ScanTotals)> = BTreeMap::new();
        let ranges = self.ranges()?;
        for range in &ranges {
            let uuid = range.pair.uuid.unwrap_or_default();
            let (_, sum) = sums.entry(uuid).or_insert((range.pair.clone(), ScanTotals::default()));
            sum.add(range.counted.unwrap_or_default());
        }
        for (pair, counted) in sums.values() {
            self.record_result(pair, *counted, number)?;
        }
        self.meta.insert("passes", (self.passes()? + 1).to_be_bytes()).map_err(storage)?;
        if self.number("owed")? <= number {
            self.meta.remove("owed").map_err(storage)?;
        }
        self.ranges.clear().map_err(storage)?;
        Ok(Some(sums.len()))
    }

    /// Notes what comparison `number` found of a collection.
    pub fn record_result(&self, pair: &CollectionPair, counted: ScanTotals, number: u64) -> Result<(), Failure> {
        let mut document = write_counted(counted);
        document.insert("number", number as i64);
        self.found.insert(pair.uuid.unwrap_or_default(), bytes(&document)?).map_err(storage)
    }

    /// What was found of a collection when it was compared as a whole last.
    pub fn found_of(&self, pair: &CollectionPair) -> Result<Option<Found>, Failure> {
        let uuid = pair.uuid.unwrap_or_default();
        let Some(value) = self.found.get(uuid).map_err(storage)? else { return Ok(None) };
        let document = crate::mongo::raw_bson::to_document(RawDocument::from_bytes(value.as_ref()).map_err(storage)?);
        let number = document.get_i64("number").unwrap_or(0) as u64;
        let changed_since = self.changes().last.get(&uuid).is_some_and(|last| *last >= number);
        Ok(read_counted(&document).map(|counted| Found { counted, changed_since }))
    }

    /// Notes that a document is about to be repaired; `false` if it was before, to the end, and nobody has resumed since.
    pub fn record_repair(&self, key: &Key, repaired: &Repaired) -> Result<bool, Failure> {
        if let Some(known) = self.repaired.get(key).map_err(storage)? {
            // Noted by a run that died before it could write the document counts as this one.
            let known = RawDocument::from_bytes(known.as_ref()).map_err(storage)?;
            return Ok(known.get_i64("written").ok() != Some(self.number("failures")? as i64));
        }
        let document = doc! {"ns": &repaired.ns, "difference": repaired.difference.clone()};
        self.repaired.insert(key, bytes(&document)?).map_err(storage)?;
        Ok(true)
    }

    /// A document was repaired to the end.
    pub fn confirm(&self, key: &Key) -> Result<(), Failure> {
        let Some(known) = self.repaired.get(key).map_err(storage)? else { return Ok(()) };
        let mut document =
            crate::mongo::raw_bson::to_document(RawDocument::from_bytes(known.as_ref()).map_err(storage)?);
        document.insert("written", self.number("failures")? as i64);
        self.repaired.insert(key, bytes(&document)?).map_err(storage)
    }

    /// The migration fails for a document that differs again. Only a human's resume leads on from there, after whatever
    /// changed it was stopped: then each document may be repaired once more.
    pub fn fail(&self) -> Result<(), Failure> {
        self.meta.insert("failures", (self.number("failures")? + 1).to_be_bytes()).map_err(storage)?;
        self.dirty.sync()
    }

    /// How many documents were repaired.
    pub fn repairs(&self) -> Result<u64, Failure> {
        Ok(self.repaired.len().map_err(storage)? as u64)
    }

    /// The first `most` of them.
    pub fn first_repaired(&self, most: usize) -> Result<Vec<Repaired>, Failure> {
        let mut all = Vec::new();
        for item in self.repaired.iter().take(most) {
            let value = item.value().map_err(storage)?;
            let document =
                crate::mongo::raw_bson::to_document(RawDocument::from_bytes(value.as_ref()).map_err(storage)?);
            all.push(Repaired {
                ns: document.get_str("ns").unwrap_or_default().to_owned(),
                difference: document.get_document("difference").cloned().unwrap_or_default(),
            });
        }
        Ok(all)
    }
}

fn bytes(document: &Document) -> Result<Vec<u8>, Failure> {
    document.to_vec().map_err(storage)
}

fn number_of(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

fn digest_of(document: &Document) -> Option<u128> {
    let bytes: [u8; 16] = document.get_binary_generic("digest").ok()?.as_slice().try_into().ok()?;
    Some(u128::from_be_bytes(bytes))
}

fn write_range(range: &Range) -> Document {
    let order = match range.pair.order {
        IdOrder::Index => "index",
        IdOrder::Natural => "natural",
        IdOrder::Collated => "collated",
    };
    let mut document = doc! {"source": range.pair.source.to_string(), "ns": range.pair.destination.to_string(), "order": order, "capped": range.pair.is_capped};
    if let Some(uuid) = range.pair.uuid {
        document.insert("uuid", Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() });
    }
    document.extend(range.interval.min.clone().map(|min| ("min".to_owned(), min)));
    document.extend(range.interval.max.clone().map(|max| ("max".to_owned(), max)));
    document.extend(range.counted.map(write_counted).unwrap_or_default());
    document
}

fn write_counted(counted: ScanTotals) -> Document {
    let digest = Binary { subtype: BinarySubtype::Generic, bytes: counted.digest.to_be_bytes().to_vec() };
    doc! {"compared": counted.compared as i64, "bytes": counted.bytes as i64, "digest": digest}
}

fn read_counted(document: &Document) -> Option<ScanTotals> {
    let compared = document.get_i64("compared").ok()? as u64;
    let bytes = document.get_i64("bytes").unwrap_or(0) as u64;
    Some(ScanTotals { compared, bytes, digest: digest_of(document).unwrap_or(0) })
}

fn read_range(n: u32, document: &Document) -> Option<Range> {
    let ns = |field: &str| Namespace::try_from(document.get_str(field).ok()?.to_owned()).ok();
    let order = match document.get_str("order").ok()? {
        "natural" => IdOrder::Natural,
        "collated" => IdOrder::Collated,
        _ => IdOrder::Index,
    };
    let uuid = catalog::uuid_of(document.get("uuid"));
    let is_capped = document.get_bool("capped").unwrap_or(false);
    let pair = CollectionPair { source: ns("source")?, destination: ns("ns")?, uuid, order, is_capped };
    let interval = Interval { min: document.get("min").cloned(), max: document.get("max").cloned() };
    Some(Range { n, pair, interval, counted: read_counted(document) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::Bson;

    fn whole() -> (Range, ScanTotals) {
        let pair = CollectionPair {
            source: Namespace::new("a", "b"),
            destination: Namespace::new("a", "c.d"),
            uuid: Some([3; 16]),
            order: IdOrder::Natural,
            is_capped: true,
        };
        let interval = Interval { min: Some(Bson::MinKey), max: Some(Bson::Double(f64::INFINITY)) };
        let counted = ScanTotals { compared: 5, bytes: 50, digest: u128::MAX - 1 };
        (Range { n: 1, pair, interval, counted: Some(counted) }, counted)
    }

    fn of_nothing(range: &Range) -> CollectionPair {
        CollectionPair { source: Namespace::new("a", "gone"), uuid: Some([9; 16]), ..range.pair.clone() }
    }

    /// The first run's notes: a pass under way, one range compared, one document repaired.
    fn first_run(dir: &Path, repaired: &Repaired) -> String {
        let (range, _) = whole();
        let (notes, id) = Notes::open(dir, None).expect("opens");
        notes.touch([3; 16]).expect("notes");
        assert_eq!(notes.begin_pass(), Ok(1));
        notes.plan(&[Range { counted: None, ..range.clone() }]).expect("plans");
        assert!(notes.done(&range, 1).expect("notes"));
        assert!(notes.record_repair(&[1; 32], repaired).expect("notes"));
        assert!(notes.record_repair(&[1; 32], repaired).expect("notes"), "it was not written yet");
        notes.confirm(&[1; 32]).expect("notes");
        assert!(!notes.record_repair(&[1; 32], repaired).expect("notes"), "a second time");
        notes.fail().expect("notes");
        let gone = Range { n: 2, pair: of_nothing(&range), ..range };
        assert!(notes.done(&gone, 1).expect("notes"));
        notes.leave_out(&gone).expect("notes");
        id
    }

    #[test]
    fn notes_are_continued_where_they_were_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let ((range, counted), repaired) = (whole(), Repaired { ns: "a.b".to_owned(), difference: doc! {"id": 1} });
        let id = first_run(dir.path(), &repaired);
        {
            let (notes, again) = Notes::open(dir.path(), Some(&id)).expect("opens");
            assert_eq!((again, notes.ranges().expect("reads")), (id.clone(), vec![range.clone()]));
            assert!(notes.record_repair(&[1; 32], &repaired).expect("notes"), "it was resumed");
            notes.confirm(&[1; 32]).expect("notes");
            assert!(!notes.record_repair(&[1; 32], &repaired).expect("notes"), "a second time after that");
            assert_eq!(notes.first_repaired(9).expect("reads"), [repaired]);
            assert_eq!(notes.end_pass(1), Ok(Some(1)));
            assert_eq!((notes.passes().expect("reads"), notes.ranges().expect("reads").len()), (1, 0));
            assert_eq!(notes.found_of(&of_nothing(&range)).expect("reads"), None, "what is gone was not compared");
            let found = || notes.found_of(&range.pair).expect("reads").expect("is there");
            assert_eq!(found(), Found { counted, changed_since: false });
            notes.touch([4; 16]).expect("notes");
            assert!(!found().changed_since, "another's change");
            notes.touch([3; 16]).expect("notes");
            assert!(found().changed_since);
        }
        let (notes, _) = Notes::open(dir.path(), Some(&id)).expect("opens");
        assert!(notes.found_of(&range.pair).expect("reads").expect("is there").changed_since);
        let number = notes.begin_pass().expect("begins");
        notes.record_result(&range.pair, ScanTotals::default(), number).expect("notes");
        assert!(!notes.found_of(&range.pair).expect("reads").expect("is there").changed_since);
    }

    #[test]
    fn a_pass_that_is_owed_begins_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (range, _) = whole();
        let (notes, _) = Notes::open(dir.path(), None).expect("opens");
        let number = notes.begin_pass().expect("begins");
        notes.plan(std::slice::from_ref(&range)).expect("plans");
        notes.owe_a_pass().expect("notes");
        assert!(notes.ranges().expect("reads").is_empty(), "the one under way began too early");
        assert_eq!((notes.done(&range, number), notes.end_pass(number)), (Ok(false), Ok(None)));
        assert!(notes.owes_a_pass().expect("reads"));
        let number = notes.begin_pass().expect("begins");
        notes.plan(std::slice::from_ref(&range)).expect("plans");
        assert!(notes.end_pass(number).expect("ends").is_some());
        assert!(!notes.owes_a_pass().expect("reads"));
    }

    #[test]
    fn notes_are_continued_by_their_name_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let repaired = Repaired { ns: "a.b".to_owned(), difference: doc! {"id": 1} };
        let id = first_run(dir.path(), &repaired);
        {
            let (notes, _) = Notes::open(dir.path(), Some(&id)).expect("opens");
            assert_eq!(notes.end_pass(1), Ok(Some(1)));
            // A release that kept the set otherwise.
            notes.meta.remove(NAME).expect("writes");
            notes.meta.insert(FORMER_NAME, id.as_bytes()).expect("writes");
        }
        {
            let (notes, again) = Notes::open(dir.path(), Some(&id)).expect("opens");
            assert!(again == id && notes.meta.get(FORMER_NAME).expect("reads").is_none());
            assert!(notes.passes().expect("reads") == 1 && notes.repairs().expect("reads") > 0, "they are the same");
        }
        let (notes, other) = Notes::open(dir.path(), Some("another's")).expect("opens");
        assert!(other != id && notes.passes().expect("reads") == 0 && notes.repairs().expect("reads") == 0);
    }
}
