//! Cuts collections into copy ranges.
//!
//! Boundaries come from a sample of `_id`s and are used with `min` and `max` on the `_id` index, never with query
//! operators: those compare within one type only and lose documents where `_id`s are of several types.

use crate::{
    catalog::{self, Entry, Uuid},
    cluster::Cluster,
    error,
    raw::as_i64,
};
use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use limosa_model::{ErrorCode, Failure, Namespace};

/// About what one range holds: small enough to be copied again after a failure, large enough that opening a cursor
/// doesn't count.
const RANGE_BYTES: i64 = 64 * 1024 * 1024;

/// Samples per boundary; evens the ranges out.
const SAMPLES_PER_RANGE: i64 = 10;

/// One unit of the copy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CopyRange {
    pub n: i64,
    /// The source's name at the time of planning.
    pub source_ns: Namespace,
    /// The destination's name.
    pub ns: Namespace,
    pub uuid: Option<Uuid>,
    /// From, inclusive; the collection's begin if absent.
    pub min: Option<Bson>,
    /// To, exclusive; the collection's end if absent.
    pub max: Option<Bson>,
    /// Capped: documents are written in the order in which they are read.
    pub ordered: bool,
    pub done: bool,
    pub documents: u64,
    pub bytes: u64,
}

impl CopyRange {
    /// All of `entry`, to be written to `ns`.
    pub fn whole(entry: &Entry, ns: &Namespace, n: i64) -> Self {
        Self {
            n,
            source_ns: entry.ns.clone(),
            ns: ns.clone(),
            uuid: entry.uuid,
            min: None,
            max: None,
            ordered: entry.is_capped(),
            done: false,
            documents: 0,
            bytes: 0,
        }
    }

    pub fn to_document(&self) -> Document {
        let mut document = doc! {"n": self.n, "source": self.source_ns.to_string(), "ns": self.ns.to_string()};
        document.insert("ordered", self.ordered);
        if let Some(uuid) = self.uuid {
            document.insert("uuid", Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() });
        }
        document.extend(self.min.clone().map(|min| ("min".to_owned(), min)));
        document.extend(self.max.clone().map(|max| ("max".to_owned(), max)));
        document
    }

    pub fn from_document(document: &Document) -> Result<Self, Failure> {
        let ns = |field: &str| document.get_str(field).ok().and_then(|text| Namespace::try_from(text.to_owned()).ok());
        match (ns("source"), ns("ns"), document.get_i64("n")) {
            (Some(source_ns), Some(ns), Ok(n)) => Ok(Self {
                n,
                source_ns,
                ns,
                uuid: catalog::uuid_of(document.get("uuid")),
                min: document.get("min").cloned(),
                max: document.get("max").cloned(),
                ordered: document.get_bool("ordered").unwrap_or(false),
                done: document.get_bool("done").unwrap_or(false),
                documents: as_i64(document.get("documents")).unwrap_or(0) as u64,
                bytes: as_i64(document.get("bytes")).unwrap_or(0) as u64,
            }),
            _ => Err(Failure::new(ErrorCode::Internal, "a copy range on the destination can't be read")),
        }
    }
}

/// What the source estimates of one collection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub documents: i64,
    pub bytes: i64,
}

/// The source's estimate.
pub(crate) async fn size(source: &Cluster, ns: &Namespace) -> Result<Size, Failure> {
    let command = doc! {"aggregate": &ns.coll, "pipeline": [{"$collStats": {"storageStats": {}}}], "cursor": {}};
    let read = async { source.db(&ns.db).run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
    match read.await {
        Ok(found) => {
            let stats = found.first().and_then(|d| d.get_document("storageStats").ok()).cloned().unwrap_or_default();
            let read = |name| as_i64(stats.get(name)).unwrap_or(0);
            Ok(Size { documents: read("count"), bytes: read("size") })
        }
        Err(e) if error::is_gone(&e) => Ok(Size::default()),
        Err(e) => Err(source.failure(&e)),
    }
}

/// The ranges of one collection, each with its share of what the source estimates; all have the number 0.
pub(crate) async fn ranges(source: &Cluster, entry: &Entry) -> Result<Vec<CopyRange>, Failure> {
    let size = size(source, &entry.ns).await?;
    // Clustered collections have no `_id` index to hint, and capped ones must keep their order.
    let whole = entry.is_capped()
        || entry.options.contains_key("clusteredIndex")
        || entry.ns.coll.starts_with(catalog::BUCKETS);
    let boundaries = if whole { Vec::new() } else { boundaries_of(source, &entry.ns, size).await? };
    let mut edges = vec![None];
    edges.extend(boundaries.into_iter().map(Some));
    edges.push(None);
    let share = edges.len() as i64 - 1;
    let ranges = edges.windows(2).map(|edge| CopyRange {
        min: edge[0].clone(),
        max: edge[1].clone(),
        documents: (size.documents / share) as u64,
        bytes: (size.bytes / share) as u64,
        ..CopyRange::whole(entry, &entry.ns, 0)
    });
    Ok(ranges.collect())
}

/// The `_id`s at which a collection of this size is cut.
pub(crate) async fn boundaries_of(source: &Cluster, ns: &Namespace, size: Size) -> Result<Vec<Bson>, Failure> {
    let count = (size.bytes / RANGE_BYTES).clamp(0, 4096) + 1;
    if count > 1 { boundaries(source, ns, count).await } else { Ok(Vec::new()) }
}

async fn boundaries(source: &Cluster, ns: &Namespace, count: i64) -> Result<Vec<Bson>, Failure> {
    let pipeline = vec![
        doc! {"$sample": {"size": count * SAMPLES_PER_RANGE}},
        doc! {"$project": {"_id": 1}},
        doc! {"$sort": {"_id": 1}},
    ];
    let command = doc! {"aggregate": &ns.coll, "pipeline": pipeline, "cursor": {}, "allowDiskUse": true};
    let read = async { source.db(&ns.db).run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
    let sample = match read.await {
        Ok(sample) => sample,
        Err(e) if error::is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(source.failure(&e)),
    };
    let ids = sample.into_iter().filter_map(|mut d| d.remove("_id")).collect();
    Ok(pick(ids, SAMPLES_PER_RANGE as usize))
}

/// Every `step`th of the sorted `ids`, none twice and none that compares equal to its neighbour.
fn pick(ids: Vec<Bson>, step: usize) -> Vec<Bson> {
    let mut picked: Vec<Bson> = ids.into_iter().skip(step).step_by(step).collect();
    let canonical = |id: &Bson| {
        let raw = bson::RawDocumentBuf::try_from(&doc! {"_id": id.clone()}).unwrap_or_default();
        raw.get("_id").ok().flatten().map(|id| crate::raw::canonical_id(id, false))
    };
    picked.dedup_by(|a, b| canonical(a) == canonical(b));
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_distinct() {
        let ids: Vec<Bson> = (0..40).map(|n| Bson::Int32(n / 15)).collect();
        assert_eq!(pick(ids, 10), [Bson::Int32(0), Bson::Int32(1), Bson::Int32(2)]);
        assert!(pick(Vec::new(), 10).is_empty());
    }

    #[test]
    fn a_range_survives_storing() {
        let range = CopyRange {
            n: 3,
            source_ns: Namespace::new("a", "b.c"),
            ns: Namespace::new("a", "d"),
            uuid: Some([7; 16]),
            min: Some(Bson::MinKey),
            max: Some(Bson::Double(f64::INFINITY)),
            ordered: true,
            done: false,
            documents: 0,
            bytes: 0,
        };
        assert_eq!(CopyRange::from_document(&range.to_document()), Ok(range));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collection_whose_name_a_view_has_taken_is_of_no_size() {
        let set = limosa_testkit::ReplicaSet::start().await.expect("starts");
        let uri = limosa_model::Secret::new(set.uri());
        let source = Cluster::connect(crate::cluster::Side::Source, &uri).await.expect("connects");
        let create = doc! {"create": "v", "viewOn": "c", "pipeline": []};
        source.db("app").run_command(create).await.expect("creates");
        let size = size(&source, &Namespace::new("app", "v")).await.expect("a view is no failure");
        assert_eq!((size.documents, size.bytes), (0, 0));
    }
}
