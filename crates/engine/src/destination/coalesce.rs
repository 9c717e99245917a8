//! Puts the changes of one window in order for a worker, several changes of one document made one where that gives
//! the same.

use crate::destination::{collection_map::Target, delta::Delta};
use bson::RawDocumentBuf;
use std::{collections::HashMap, sync::Arc};

/// What becomes of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WriteKind {
    /// The whole document.
    Put {
        document: RawDocumentBuf,
        origin: Origin,
    },
    /// The same, as a new document in place of one whose `_id` is equal without being the same.
    Remake {
        document: RawDocumentBuf,
    },
    Delete,
    Update(Delta),
    /// Read it again from the source.
    Refetch,
}

/// Where a whole document comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Insert,
    Replacement,
    /// It was read from the source again.
    Reread,
}

/// One document's change.
#[derive(Clone, Debug)]
pub(crate) struct DocumentWrite {
    pub target: Arc<Target>,
    /// `{_id: …}`.
    pub id: RawDocumentBuf,
    /// Equal for equal documents; see [`crate::mongo::raw_bson::canonical_id`].
    pub canonical: Vec<u8>,
    pub change: WriteKind,
}

impl DocumentWrite {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        64 + self.id.as_bytes().len() + self.change.size()
    }
}

impl WriteKind {
    fn size(&self) -> usize {
        match self {
            Self::Put { document, .. } | Self::Remake { document } => document.as_bytes().len(),
            Self::Update(delta) => delta.size(),
            Self::Delete | Self::Refetch => 0,
        }
    }
}

/// The changes for one worker. Operations of one round touch different documents and may be sent in any order; rounds
/// go one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    ops: Vec<(u32, DocumentWrite)>,
    bytes: usize,
    latest: HashMap<(usize, Vec<u8>), usize>,
}

impl Batch {
    /// Writes that it holds.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, op: DocumentWrite) {
        self.bytes += op.size();
        let key = (Arc::as_ptr(&op.target) as usize, op.canonical.clone());
        let mut round = 0;
        if op.target.keeps_order {
            self.ops.push((0, op));
            return;
        }
        if let Some(&index) = self.latest.get(&key) {
            let (own_round, earlier) = &mut self.ops[index];
            if earlier.id == op.id
                && let Some(merged) = merge(&earlier.change, &op.change)
            {
                self.bytes = self.bytes + merged.size() - earlier.change.size() - op.size();
                earlier.change = merged;
                return;
            }
            round = *own_round + 1;
        }
        self.latest.insert(key, self.ops.len());
        self.ops.push((round, op));
    }

    /// All operations, round by round; within a round those of one collection together, its deletes first. What must
    /// keep its order is in one round and in the order it came.
    pub fn into_ops(mut self) -> Vec<(u32, DocumentWrite)> {
        let later = |op: &DocumentWrite| !op.target.keeps_order && op.change != WriteKind::Delete;
        self.ops.sort_by(|(a, x), (b, y)| (a, &x.target.ns, later(x)).cmp(&(b, &y.target.ns, later(y))));
        self.ops
    }
}

/// One change that does what `earlier` and then `later` do.
fn merge(earlier: &WriteKind, later: &WriteKind) -> Option<WriteKind> {
    match (earlier, later) {
        (WriteKind::Put { origin, .. }, WriteKind::Put { document, .. }) => {
            Some(WriteKind::Put { document: document.clone(), origin: *origin })
        }
        (_, WriteKind::Put { .. } | WriteKind::Remake { .. } | WriteKind::Delete | WriteKind::Refetch) => {
            Some(later.clone())
        }
        (WriteKind::Refetch, WriteKind::Update(_)) => Some(WriteKind::Refetch),
        (WriteKind::Update(a), WriteKind::Update(b)) => a.then(b).map(WriteKind::Update),
        (WriteKind::Put { .. } | WriteKind::Remake { .. } | WriteKind::Delete, WriteKind::Update(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;
    use limosa_model::Namespace;

    fn op(target: &Arc<Target>, id: RawDocumentBuf, change: WriteKind) -> DocumentWrite {
        let canonical = crate::mongo::raw_value::id_of(&id)
            .map(|id| crate::mongo::raw_bson::canonical_id(id, target.folds))
            .unwrap_or_default();
        DocumentWrite { target: Arc::clone(target), id, canonical, change }
    }

    fn put(n: i32) -> WriteKind {
        WriteKind::Put { document: rawdoc! {"_id": 1, "n": n}, origin: Origin::Insert }
    }

    #[test]
    fn a_hot_document_becomes_one_write() {
        let target = Arc::new(Target::plain(Namespace::new("d", "c")));
        let mut batch = Batch::default();
        for change in [put(1), put(2), WriteKind::Delete, put(3)] {
            batch.push(op(&target, rawdoc! {"_id": 1}, change));
        }
        let ops = batch.into_ops();
        assert_eq!(ops.len(), 1);
        assert_eq!(ops[0].1.change, put(3));
    }

    #[test]
    fn equal_ids_of_different_types_keep_their_order() {
        let target = Arc::new(Target::plain(Namespace::new("d", "c")));
        let mut batch = Batch::default();
        batch.push(op(&target, rawdoc! {"_id": 1}, WriteKind::Delete));
        batch.push(op(&target, rawdoc! {"_id": 1.0}, put(1)));
        let rounds: Vec<u32> = batch.into_ops().iter().map(|(round, _)| *round).collect();
        assert_eq!(rounds, [0, 1]);
    }

    #[test]
    fn strings_that_a_collation_may_hold_equal_keep_their_order() {
        let target = Arc::new(Target { folds: true, ..Target::plain(Namespace::new("d", "c")) });
        let mut batch = Batch::default();
        for (id, change) in [("a", WriteKind::Delete), ("A", put(1)), ("A", WriteKind::Delete), ("a", put(2))] {
            batch.push(op(&target, rawdoc! {"_id": id}, change));
        }
        let ops: Vec<WriteKind> = batch.into_ops().into_iter().map(|(_, op)| op.change).collect();
        assert_eq!(ops, [WriteKind::Delete, WriteKind::Delete, put(2)]);
    }
}
