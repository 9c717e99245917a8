//! Cuts collections into copy ranges.
//!
//! Boundaries come from a sample of `_id`s and are used with `min` and `max` on the `_id` index, never with query
//! operators: those compare within one type only and lose documents where `_id`s are of several types.

use crate::mongo::{
    catalog::{self, Entry, Uuid},
    cluster::Cluster,
    codes, error,
    raw_bson::{self, as_i64},
    raw_value::{self, Value},
};
use bson::{Binary, Bson, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use limosa_model::{ErrorCode, Failure, Namespace};
use mongodb::error::Error;

/// About what one range holds: small enough to be copied again after a failure, large enough that opening a cursor
/// doesn't count.
const RANGE_BYTES: i64 = 64 * 1024 * 1024;

/// Samples per boundary; evens the ranges out.
const SAMPLES_PER_RANGE: i64 = 10;

/// A sample is at most one in so many documents.
const SAMPLED_SHARE: i64 = 20;

/// How often it is tried to take a sample.
const SAMPLES_TRIED: usize = 3;

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

/// The `_id`s at which a collection of this size is cut. Collections with a collation are cut only by a sample: the
/// server can't walk along their index without reading the documents.
pub(crate) async fn boundaries_of(source: &Cluster, ns: &Namespace, size: Size) -> Result<Vec<Bson>, Failure> {
    let count = (size.bytes / RANGE_BYTES).clamp(0, 4096) + 1;
    if count <= 1 {
        return Ok(Vec::new());
    }
    let samples = count * SAMPLES_PER_RANGE;
    // A larger share than this the server takes by reading, and sorting, all documents.
    if samples * SAMPLED_SHARE <= size.documents
        && let Some(ids) = sample(source, ns, samples).await?
    {
        return Ok(pick(&ids, SAMPLES_PER_RANGE as usize));
    }
    walk(source, ns, size.documents / count, count).await
}

/// `_id`s of a random sample, in their order; `None` where the server can't take one.
async fn sample(source: &Cluster, ns: &Namespace, samples: i64) -> Result<Option<Vec<RawDocumentBuf>>, Failure> {
    let pipeline = vec![doc! {"$sample": {"size": samples}}, doc! {"$project": {"_id": 1}}, doc! {"$sort": {"_id": 1}}];
    let command = doc! {"aggregate": &ns.coll, "pipeline": pipeline, "cursor": {}, "allowDiskUse": true};
    for _ in 0..SAMPLES_TRIED {
        match ids(source, ns, command.clone()).await {
            Ok(ids) => return Ok(Some(ids)),
            Err(e) if error::is_gone(&e) => return Ok(Some(Vec::new())),
            Err(e) if error::code(&e) == Some(codes::SAMPLE_FOUND_NOTHING) => {
                tracing::debug!(%ns, error = %e, "no sample");
            }
            Err(e) => return Err(source.failure(&e)),
        }
    }
    Ok(None)
}

/// Every `step`th `_id` along the index, without reading a document.
async fn walk(source: &Cluster, ns: &Namespace, step: i64, count: i64) -> Result<Vec<Bson>, Failure> {
    let entry = catalog::find(source, ns).await?;
    if step < 1 || entry.is_none_or(|entry| entry.is_collated()) {
        return Ok(Vec::new());
    }
    let mut boundaries: Vec<Bson> = Vec::new();
    for _ in 1..count {
        let mut command = doc! {
            "find": &ns.coll, "hint": {"_id": 1}, "projection": {"_id": 1}, "skip": step, "limit": 1,
            "readConcern": {"level": "majority"},
        };
        command.extend(boundaries.last().map(|last| ("min".to_owned(), Bson::Document(doc! {"_id": last.clone()}))));
        let next = match ids(source, ns, command).await {
            Ok(next) => next,
            Err(e) if error::is_gone(&e) => return Ok(Vec::new()),
            Err(e) => return Err(source.failure(&e)),
        };
        match next.first().and_then(boundary) {
            Some(id) => boundaries.push(id),
            // The end, or one that can't be sent back: what follows is one range.
            None => break,
        }
    }
    Ok(boundaries)
}

/// The documents that a read of `_id`s gives.
async fn ids(source: &Cluster, ns: &Namespace, command: Document) -> Result<Vec<RawDocumentBuf>, Error> {
    let (db, member) = (source.db(&ns.db), source.reads.from.criteria());
    let mut cursor = db.run_cursor_command(command).selection_criteria(member).batch().await?;
    let mut all = Vec::new();
    while let Some(batch) = cursor.next().await {
        let batch = batch?;
        all.extend(batch.doc_slices()?.into_iter().flatten().filter_map(|v| v.as_document().map(ToOwned::to_owned)));
    }
    Ok(all)
}

/// The `_id` of a document, if it can be one: a boundary is stored and sent as text, so it must be some.
fn boundary(document: &RawDocumentBuf) -> Option<Bson> {
    raw_value::id_of(document).filter(|id| id.is_utf8()).map(Value::shown)
}

/// Every `step`th of the sorted `ids`, none twice and none that compares equal to its neighbour.
fn pick(ids: &[RawDocumentBuf], step: usize) -> Vec<Bson> {
    let usable = ids.iter().filter_map(|id| raw_value::id_of(id)).filter(|id| id.is_utf8());
    let mut picked: Vec<Value<'_>> = usable.skip(step).step_by(step).collect();
    picked.dedup_by(|a, b| raw_bson::canonical_id(*a, false) == raw_bson::canonical_id(*b, false));
    picked.into_iter().map(Value::shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_distinct() {
        let ids: Vec<RawDocumentBuf> = (0..40).map(|n| bson::rawdoc! {"_id": n / 15}).collect();
        assert_eq!(pick(&ids, 10), [Bson::Int32(0), Bson::Int32(1), Bson::Int32(2)]);
        assert!(pick(&[], 10).is_empty());
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
    async fn few_large_documents_are_cut_without_a_sample_which_would_read_them_all() {
        let set = limosa_testkit::ReplicaSet::start().await.expect("starts");
        let uri = limosa_model::Secret::new(set.uri());
        let source = Cluster::connect(crate::mongo::side::Side::Source, &uri).await.expect("connects");
        let ids: Vec<Document> = (0..200).map(|n| doc! {"_id": n}).collect();
        let app = set.client().await.database("app");
        app.collection("c").insert_many(ids).await.expect("inserts");
        app.run_command(doc! {"profile": 2}).await.expect("profiles");
        // As if each of them had a megabyte.
        let size = Size { documents: 200, bytes: 200 * 1024 * 1024 };
        let boundaries = boundaries_of(&source, &Namespace::new("app", "c"), size).await.expect("cuts");
        assert_eq!(boundaries, [Bson::Int32(50), Bson::Int32(100), Bson::Int32(150)]);
        let profile = app.collection::<Document>("system.profile");
        let sampled = doc! {"command.pipeline.0.$sample": {"$exists": true}};
        assert_eq!(profile.count_documents(sampled).await.expect("counts"), 0);
        let fetched = profile.find(doc! {"command.find": "c"}).await.expect("finds");
        let fetched: Vec<Document> = futures::TryStreamExt::try_collect(fetched).await.expect("reads");
        assert!(fetched.iter().all(|op| op.get_i32("docsExamined").ok() == Some(0)), "{fetched:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collection_whose_name_a_view_has_taken_is_of_no_size() {
        let set = limosa_testkit::ReplicaSet::start().await.expect("starts");
        let uri = limosa_model::Secret::new(set.uri());
        let source = Cluster::connect(crate::mongo::side::Side::Source, &uri).await.expect("connects");
        let create = doc! {"create": "v", "viewOn": "c", "pipeline": []};
        source.db("app").run_command(create).await.expect("creates");
        let size = size(&source, &Namespace::new("app", "v")).await.expect("a view is no failure");
        assert_eq!((size.documents, size.bytes), (0, 0));
    }
}
