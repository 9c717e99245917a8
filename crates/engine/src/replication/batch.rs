//! Changes between two barriers, partitioned over the workers by document.
//!
//! How large a window may grow is counted in what is left after coalescing: where few documents take most of the changes,
//! a long stretch of the stream becomes few writes, and the longer the stretch, the fewer for each change.

use crate::{
    destination::{
        coalesce::{Batch, DocumentWrite, Origin, WriteKind},
        collection_map::Target,
        delta::Delta,
    },
    mongo::{catalog, raw_bson, raw_builder::RawDocBuilder},
    replication::writer::id_document,
    source::event::{Event, Kind},
};
use bson::{RawDocumentBuf, Timestamp};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Workers that write windows. More than a small destination has cores: each waits for its commits to be on the disk of
/// the majority, and others write meanwhile.
pub(crate) const WORKERS: usize = 8;

/// Writes that a window holds at most: two transactions for each worker.
const MOST_OPS: usize = 32_000;

/// Bytes of them: each is held several times until it is written, and up to three windows are at a time.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Events that it is made of at most, so that the position moves on.
const MOST_EVENTS: u64 = 200_000;

/// A delta of this many bytes is no shorter than reading the document again.
const LARGE_DELTA: usize = 8 * 1024 * 1024;

/// See the module.
pub(crate) struct ChangeBatch {
    batches: Vec<Batch>,
    /// The hash of the name of the collection that was added to last: mostly the next one's too.
    place: Option<(Arc<Target>, u64)>,
    pub events: u64,
    /// The times of the oldest and the newest of them.
    pub since: Timestamp,
    pub until: Timestamp,
}

impl ChangeBatch {
    pub fn new() -> Self {
        Self {
            batches: (0..WORKERS).map(|_| Batch::default()).collect(),
            place: None,
            events: 0,
            since: Timestamp { time: u32::MAX, increment: u32::MAX },
            until: Timestamp { time: 0, increment: 0 },
        }
    }

    /// It holds an event of this time.
    pub fn spans(&mut self, time: Timestamp) {
        self.since = self.since.min(time);
        self.until = self.until.max(time);
    }

    /// Whether it is to be written before it takes more in.
    pub fn is_full(&self) -> bool {
        self.events >= MOST_EVENTS
            || self.batches.iter().map(Batch::len).sum::<usize>() >= MOST_OPS
            || self.batches.iter().map(Batch::bytes).sum::<usize>() >= MOST_BYTES
    }

    /// `newer`: the destination's document may be of a later time than the event. A field that the event removes may be
    /// there again and would then not come back to the same place.
    pub fn push(&mut self, target: Arc<Target>, event: &Event<'_>, newer: bool) -> Option<()> {
        let id = event.id?;
        let canonical = raw_bson::canonical_id(id, target.folds);
        let change = match event.kind {
            Kind::Delete => WriteKind::Delete,
            // From 8.0 on the changes of a bucket's columns are told as differences of their bytes.
            Kind::Update if target.ns.coll.starts_with(catalog::BUCKETS) => WriteKind::Refetch,
            Kind::Update => event
                .update_description
                .and_then(Delta::exact)
                .filter(|delta| delta.size() < LARGE_DELTA && !(newer && delta.removes()))
                .map_or(WriteKind::Refetch, WriteKind::Update),
            _ => match event.full_document {
                Some(document) => {
                    let origin = if event.operation == "insert" { Origin::Insert } else { Origin::Replacement };
                    WriteKind::Put { document: document.to_owned(), origin }
                }
                None => WriteKind::Refetch, // an event that was too large
            },
        };
        let id: RawDocumentBuf = match &change {
            WriteKind::Put { document, .. } => id_document(document)?,
            _ => RawDocBuilder::new().value("_id", id).build().ok()?,
        };
        self.add(DocumentWrite { target, id, canonical, change });
        Some(())
    }

    pub fn add(&mut self, op: DocumentWrite) {
        let place = match &self.place {
            Some((target, place)) if Arc::ptr_eq(target, &op.target) => *place,
            _ => {
                let place = xxh3_64(op.target.ns.to_string().as_bytes());
                self.place = Some((Arc::clone(&op.target), place));
                place
            }
        };
        let worker = if op.target.keeps_order { place } else { xxh3_64(&op.canonical) ^ place };
        self.batches[(worker % WORKERS as u64) as usize].push(op);
    }

    /// What each worker is to write, in order.
    pub fn into_shares(self) -> Vec<Vec<(u32, DocumentWrite)>> {
        self.batches.into_iter().map(Batch::into_ops).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;
    use limosa_model::Namespace;

    fn update(id: i32, value: i64) -> RawDocumentBuf {
        rawdoc! {
            "operationType": "update", "documentKey": {"_id": id},
            "updateDescription": {"updatedFields": {"n": value}, "removedFields": []},
        }
    }

    #[test]
    fn a_window_is_as_large_as_the_writes_that_are_left() {
        let target = Arc::new(Target::plain(Namespace::new("d", "c")));
        let mut window = ChangeBatch::new();
        let mut push = |id: i32, value: i64| {
            let raw = update(id, value);
            let event = Event::parse(&raw).expect("an event");
            window.push(Arc::clone(&target), &event, false).expect("is taken");
            window.is_full()
        };
        assert!(!(0..40_000).any(|n| push(0, n)), "one document's changes are one write");
        assert!((1..=MOST_OPS as i32).any(|n| push(n, 0)));
    }

    #[test]
    fn a_bucket_is_read_again_whatever_its_update_tells() {
        let target = Arc::new(Target::plain(Namespace::new("d", "system.buckets.series")));
        let raw = rawdoc! {
            "operationType": "update", "documentKey": {"_id": 1},
            "updateDescription": {
                "updatedFields": {"control.count": 2, "data.Time": {"o": 10, "d": 1}}, "removedFields": [],
                "disambiguatedPaths": {},
            },
        };
        let mut window = ChangeBatch::new();
        window.push(target, &Event::parse(&raw).expect("an event"), false).expect("is taken");
        let changes: Vec<WriteKind> = window.into_shares().into_iter().flatten().map(|(_, op)| op.change).collect();
        assert_eq!(changes, [WriteKind::Refetch]);
    }

    #[test]
    fn a_window_is_full_of_bytes_too() {
        let target = Arc::new(Target::plain(Namespace::new("d", "c")));
        let mut window = ChangeBatch::new();
        for n in 0..8 {
            assert!(!window.is_full());
            let document = rawdoc! {"_id": n, "text": "x".repeat(MOST_BYTES / 8)};
            let change = WriteKind::Put { document, origin: Origin::Insert };
            window.add(DocumentWrite {
                target: Arc::clone(&target),
                id: rawdoc! {"_id": n},
                canonical: vec![n as u8],
                change,
            });
        }
        assert!(window.is_full());
    }
}
