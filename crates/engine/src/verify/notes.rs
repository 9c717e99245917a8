//! What the verifier beside replication keeps on the agent's disk besides the dirty set: the ranges of the pass that is
//! under way and what they held, what the last whole pass found, and which documents were repaired.
//!
//! The notes belong to one run of events: all that were applied since they were begun left their marks in the dirty
//! set beside them. The checkpoint on the destination names them, so that notes which missed an event, because
//! another agent had the migration meanwhile, are thrown away.

use super::{
    dirty::{DirtySet, Key, keyspace_options, storage},
    scan::{Counted, IdOrder, Interval, Pair},
};
use crate::catalog;
use bson::{Binary, Bson, Document, RawDocument, doc, spec::BinarySubtype};
use fjall::Keyspace;
use limosa_model::{Failure, Namespace, verification::NamespaceVerification};
use std::{collections::BTreeMap, path::Path};

/// One range of a pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub n: u32,
    pub pair: Pair,
    pub interval: Interval,
    /// What it held, once it is done.
    pub counted: Option<Counted>,
}

/// A document that was found different and written again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Repaired {
    pub ns: String,
    /// The difference, as it is told.
    pub difference: Document,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Notes {
    pub dirty: DirtySet,
    meta: Keyspace,
    ranges: Keyspace,
    repaired: Keyspace,
}

impl Notes {
    /// Opens the notes in `dir`, which are those called `id` or else are begun anew. Returns their name too.
    pub fn open(dir: &Path, id: Option<&str>) -> Result<(Self, String), Failure> {
        let dirty = DirtySet::open(dir)?;
        let keyspace = |name| dirty.database.keyspace(name, keyspace_options).map_err(storage);
        let notes =
            Self { meta: keyspace("meta")?, ranges: keyspace("ranges")?, repaired: keyspace("repaired")?, dirty };
        let found = notes.meta.get("id").map_err(storage)?;
        if let (Some(id), Some(found)) = (id, &found)
            && found.as_ref() == id.as_bytes()
        {
            return Ok((notes, id.to_owned()));
        }
        notes.dirty.clear()?;
        for keyspace in [&notes.meta, &notes.ranges, &notes.repaired] {
            keyspace.clear().map_err(storage)?;
        }
        let id = format!("{:016x}", rand::random::<u64>());
        notes.meta.insert("id", id.as_bytes()).map_err(storage)?;
        notes.dirty.sync()?;
        Ok((notes, id))
    }

    /// How many passes were made over everything.
    pub fn passes(&self) -> Result<u64, Failure> {
        let stored = self.meta.get("passes").map_err(storage)?;
        Ok(stored.and_then(|v| v.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// The ranges of the pass that is under way; none if the last one is over.
    pub fn ranges(&self) -> Result<Vec<Range>, Failure> {
        let mut all = Vec::new();
        for item in self.ranges.iter() {
            let (key, value) = item.into_inner().map_err(storage)?;
            let n = key.as_ref().try_into().map(u32::from_be_bytes).map_err(storage)?;
            let document = RawDocument::from_bytes(value.as_ref()).map_err(storage)?;
            all.extend(read_range(n, &crate::raw::to_document(document)));
        }
        Ok(all)
    }

    /// Begins a pass.
    pub fn plan(&self, ranges: &[Range]) -> Result<(), Failure> {
        self.ranges.clear().map_err(storage)?;
        let mut batch = self.dirty.database.batch();
        for range in ranges {
            batch.insert(&self.ranges, range.n.to_be_bytes(), bytes(&write_range(range))?);
        }
        batch.commit().map_err(storage)
    }

    /// Notes what a range held.
    pub fn done(&self, range: &Range) -> Result<(), Failure> {
        self.ranges.insert(range.n.to_be_bytes(), bytes(&write_range(range))?).map_err(storage)
    }

    /// Ends a pass; what it found replaces what the one before found.
    pub fn end_pass(&self) -> Result<BTreeMap<Namespace, Counted>, Failure> {
        let mut sums: BTreeMap<Namespace, Counted> = BTreeMap::new();
        for range in self.ranges()? {
            sums.entry(range.pair.destination.clone()).or_default().add(range.counted.unwrap_or_default());
        }
        let found: Vec<Document> = sums
            .iter()
            .map(|(ns, counted)| {
                let digest = Binary { subtype: BinarySubtype::Generic, bytes: counted.digest.to_be_bytes().to_vec() };
                doc! {"ns": ns.to_string(), "compared": counted.compared as i64, "bytes": counted.bytes as i64, "digest": digest}
            })
            .collect();
        let mut batch = self.dirty.database.batch();
        batch.insert(&self.meta, "found", bytes(&doc! {"namespaces": found})?);
        batch.insert(&self.meta, "passes", (self.passes()? + 1).to_be_bytes());
        batch.commit().map_err(storage)?;
        self.ranges.clear().map_err(storage)?;
        Ok(sums)
    }

    /// What the last whole pass found, by namespace.
    pub fn found(&self) -> Result<Vec<NamespaceVerification>, Failure> {
        let Some(value) = self.meta.get("found").map_err(storage)? else { return Ok(Vec::new()) };
        let document = crate::raw::to_document(RawDocument::from_bytes(value.as_ref()).map_err(storage)?);
        let all = document.get_array("namespaces").map(Vec::as_slice).unwrap_or_default();
        let read = |d: &Document| NamespaceVerification {
            namespace: d.get_str("ns").unwrap_or_default().to_owned(),
            documents_compared: d.get_i64("compared").unwrap_or(0) as u64,
            bytes_compared: d.get_i64("bytes").unwrap_or(0) as u64,
            digest: digest_of(d).map(|digest| format!("{digest:032x}")),
            ..NamespaceVerification::default()
        };
        Ok(all.iter().filter_map(Bson::as_document).map(read).collect())
    }

    /// Notes that a document is about to be repaired; `false` if it was before, to the end.
    pub fn repair(&self, key: &Key, repaired: &Repaired) -> Result<bool, Failure> {
        if let Some(known) = self.repaired.get(key).map_err(storage)? {
            // Noted by a run that died before it could write the document counts as this one.
            let known = RawDocument::from_bytes(known.as_ref()).map_err(storage)?;
            return Ok(!known.get_bool("written").unwrap_or(false));
        }
        let document = doc! {"ns": &repaired.ns, "difference": repaired.difference.clone()};
        self.repaired.insert(key, bytes(&document)?).map_err(storage)?;
        Ok(true)
    }

    /// A document was repaired to the end.
    pub fn confirm(&self, key: &Key) -> Result<(), Failure> {
        let Some(known) = self.repaired.get(key).map_err(storage)? else { return Ok(()) };
        let mut document = crate::raw::to_document(RawDocument::from_bytes(known.as_ref()).map_err(storage)?);
        document.insert("written", true);
        self.repaired.insert(key, bytes(&document)?).map_err(storage)
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
            let document = crate::raw::to_document(RawDocument::from_bytes(value.as_ref()).map_err(storage)?);
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
    if let Some(counted) = range.counted {
        let digest = Binary { subtype: BinarySubtype::Generic, bytes: counted.digest.to_be_bytes().to_vec() };
        document.extend(doc! {"compared": counted.compared as i64, "bytes": counted.bytes as i64, "digest": digest});
    }
    document
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
    let pair = Pair { source: ns("source")?, destination: ns("ns")?, uuid, order, is_capped };
    let counted = document.get_i64("compared").ok().map(|compared| Counted {
        compared: compared as u64,
        bytes: document.get_i64("bytes").unwrap_or(0) as u64,
        digest: digest_of(document).unwrap_or(0),
    });
    let interval = Interval { min: document.get("min").cloned(), max: document.get("max").cloned() };
    Some(Range { n, pair, interval, counted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_gone_on_with_by_their_name_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let pair = Pair {
            source: Namespace::new("a", "b"),
            destination: Namespace::new("a", "c.d"),
            uuid: Some([3; 16]),
            order: IdOrder::Natural,
            is_capped: true,
        };
        let interval = Interval { min: Some(Bson::MinKey), max: Some(Bson::Double(f64::INFINITY)) };
        let counted = Some(Counted { compared: 5, bytes: 50, digest: u128::MAX - 1 });
        let range = Range { n: 1, pair, interval, counted };
        let repaired = Repaired { ns: "a.b".to_owned(), difference: doc! {"id": 1} };
        let id = {
            let (notes, id) = Notes::open(dir.path(), None).expect("opens");
            notes.plan(&[Range { counted: None, ..range.clone() }]).expect("plans");
            notes.done(&range).expect("notes");
            assert!(notes.repair(&[1; 32], &repaired).expect("notes"));
            assert!(notes.repair(&[1; 32], &repaired).expect("notes"), "it was not written yet");
            notes.confirm(&[1; 32]).expect("notes");
            assert!(!notes.repair(&[1; 32], &repaired).expect("notes"), "a second time");
            id
        };
        {
            let (notes, again) = Notes::open(dir.path(), Some(&id)).expect("opens");
            assert_eq!((again, notes.ranges().expect("reads")), (id.clone(), vec![range]));
            assert_eq!(notes.first_repaired(9).expect("reads"), [repaired]);
            notes.end_pass().expect("ends");
            assert_eq!((notes.passes().expect("reads"), notes.ranges().expect("reads").len()), (1, 0));
            let found = notes.found().expect("reads");
            assert_eq!((found[0].documents_compared, found[0].namespace.as_str()), (5, "a.c.d"));
        }
        let (notes, other) = Notes::open(dir.path(), Some("another's")).expect("opens");
        assert!(other != id && notes.passes().expect("reads") == 0 && notes.repairs().expect("reads") == 0);
    }
}
