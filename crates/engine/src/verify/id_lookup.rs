//! Looks documents up by `_id` on both sides and holds them against each other. The slower way to compare, and the one
//! that settles every doubt.

use crate::{
    mongo::{
        cluster::Cluster,
        codes, error,
        find_by_id::{self, IDS},
        raw_bson,
        raw_builder::RawDocBuilder,
        raw_value,
    },
    verify::{
        collection_pair::{ClusterPair, CollectionPair, Place, ScanError, ScanTotals},
        diff::first_difference,
        document_stream::{Stream, find_command, id_of},
    },
};
use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures::future::BoxFuture;
use limosa_model::{
    Failure, Namespace,
    verification::{Difference, DifferenceKind},
};
use mongodb::error::Error;
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_128;

/// What is known of one `_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub source: Option<Digest>,
    pub destination: Option<Digest>,
}

/// A document's length and hash.
pub(crate) type Digest = (u64, u128);

impl Seen {
    pub fn is_equal(&self) -> bool {
        self.source == self.destination
    }

    /// What is the matter, if they differ.
    pub fn departure(&self) -> Option<DifferenceKind> {
        match (self.source, self.destination) {
            (a, b) if a == b => None,
            (Some(_), None) => Some(DifferenceKind::Missing),
            (None, Some(_)) => Some(DifferenceKind::Extra),
            _ => Some(DifferenceKind::Value),
        }
    }
}

/// Looks `ids`, each `{_id: …}`, up on both sides, in their order. A side whose collection is gone has none of them.
pub(crate) async fn look_up(
    ends: &ClusterPair,
    pair: &CollectionPair,
    ids: &[RawDocumentBuf],
) -> Result<Vec<Seen>, ScanError> {
    let (on_source, on_destination) = (ends.source_of(pair), Place::of(&pair.destination));
    let (source, destination) =
        tokio::join!(digests(&ends.source, &on_source, ids), digests(&ends.destination, &on_destination, ids),);
    let (source, destination) = (source.map_err(ScanError::Source)?, destination.map_err(ScanError::Destination)?);
    Ok(ids
        .iter()
        .map(|id| {
            let key = key(id);
            Seen { source: source.get(&key).copied(), destination: destination.get(&key).copied() }
        })
        .collect())
}

/// The canonical form of a document's `_id`.
pub(crate) fn key(document: &RawDocument) -> Vec<u8> {
    raw_value::id_of(document).map(|id| raw_bson::canonical_id(id, false)).unwrap_or_default()
}

/// Digests of the documents with these `_id`s that are there; none if the collection isn't.
pub(crate) async fn digests(
    cluster: &Cluster,
    place: &Place,
    ids: &[RawDocumentBuf],
) -> Result<HashMap<Vec<u8>, Digest>, Error> {
    let mut found = HashMap::with_capacity(ids.len());
    each_of(cluster, place, &Document::new(), ids, |document| {
        let bytes = document.as_bytes();
        found.insert(key(document), (bytes.len() as u64, xxh3_128(bytes)));
    })
    .await?;
    Ok(found)
}

/// Shows `see` each document with one of these `_id`s that is there, as `query` asks for it; none if the collection isn't.
pub(crate) async fn each_of(
    cluster: &Cluster,
    place: &Place,
    query: &Document,
    ids: &[RawDocumentBuf],
    mut see: impl FnMut(&RawDocument),
) -> Result<(), Error> {
    for chunk in raw_bson::chunks_by_size(ids, IDS, |id| id.as_bytes().len()) {
        match read_chunk(cluster, place, query, chunk, &mut see).await {
            Err(e) if error::code(&e) == Some(codes::CANNOT_BUILD_INDEX_KEYS) => {
                // One of them is an `_id` that a collated collection can't have, and the server refuses to look for it.
                let possible = |id: &&RawDocumentBuf| raw_value::id_of(id).is_some_and(|id| !id.has_symbol());
                let possible: Vec<RawDocumentBuf> = chunk.iter().filter(possible).cloned().collect();
                read_chunk(cluster, place, query, &possible, &mut see).await?;
            }
            done => done?,
        }
    }
    Ok(())
}

/// The same of as many as one read looks up.
async fn read_chunk(
    cluster: &Cluster,
    place: &Place,
    query: &Document,
    ids: &[RawDocumentBuf],
    see: &mut impl FnMut(&RawDocument),
) -> Result<(), Error> {
    let filter = find_by_id::filter(ids.iter().filter_map(|id| raw_value::id_of(id)));
    let mut cursor = match find_by_id::open(cluster, &place.ns.db, &find_command(place, query), &filter).await {
        Ok(cursor) => cursor,
        Err(e) if error::is_gone(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    while let Some(batch) = cursor.next().await {
        let batch = batch?;
        let documents = batch.doc_slices()?;
        cluster.reads.throttle.note_read(documents.as_bytes().len());
        for document in documents.into_iter().flatten().filter_map(|value| value.as_document()) {
            see(document);
        }
    }
    Ok(())
}

/// `{_id: …}` of the stream's next documents, as many as one read looks up; none at its end.
pub(crate) async fn next_ids(
    stream: &mut Stream,
    go_on: &(dyn Fn() -> BoxFuture<'static, ()> + Send + Sync),
) -> Result<Vec<RawDocumentBuf>, Error> {
    let mut ids = Vec::with_capacity(IDS);
    while ids.len() < IDS {
        if stream.needs_reply() {
            go_on().await;
            stream.fill().await?;
        }
        let Some(document) = stream.current() else { break };
        ids.extend(id_of(document).and_then(|id| RawDocBuilder::new().value("_id", id).build().ok()));
        stream.advance();
    }
    Ok(ids)
}

/// Compares a whole collection, or the share of it that `filter` picks, by streaming the `_id`s of each side and looking
/// them up on the other. For collections whose order only the server knows, and for samples.
pub(crate) async fn both_ways(
    ends: &ClusterPair,
    pair: &CollectionPair,
    filter: Option<&Document>,
    suspect: &mut (dyn FnMut(RawDocumentBuf) -> Result<(), Failure> + Send),
    go_on: &(dyn Fn() -> BoxFuture<'static, ()> + Send + Sync),
) -> Result<ScanTotals, ScanError> {
    let mut query = doc! {"projection": {"_id": 1}};
    query.extend(filter.map(|filter| ("filter".to_owned(), Bson::Document(filter.clone()))));
    let mut counted = ScanTotals::default();
    for from_source in [true, false] {
        let mut ids = match from_source {
            true => Stream::open(&ends.source, &ends.source_of(pair), &query),
            false => Stream::open(&ends.destination, &Place::of(&pair.destination), &query),
        };
        let broken = |e| if from_source { ScanError::Source(e) } else { ScanError::Destination(e) };
        loop {
            let wanted = next_ids(&mut ids, go_on).await.map_err(broken)?;
            if wanted.is_empty() {
                break;
            }
            let all = look_up(ends, pair, &wanted).await?;
            for (id, seen) in wanted.into_iter().zip(all) {
                // Once for each document of the source; the way back looks only for what the source doesn't have.
                if let Some((bytes, hash)) = seen.source.filter(|_| from_source) {
                    counted.compared += 1;
                    counted.bytes += bytes;
                    if seen.is_equal() {
                        counted.digest = counted.digest.wrapping_add(hash);
                    }
                }
                if !seen.is_equal() && (from_source || seen.source.is_none()) {
                    suspect(id).map_err(ScanError::Noting)?;
                }
            }
        }
    }
    Ok(counted)
}

/// The difference of one document as it is told; `None` if there is none any more.
pub(crate) async fn explain(
    ends: &ClusterPair,
    pair: &CollectionPair,
    id: &RawDocumentBuf,
) -> Result<Option<Difference>, ScanError> {
    let one = async |cluster: &Cluster, ns: &Namespace| {
        let mut found = None;
        let ids = std::slice::from_ref(id);
        each_of(cluster, &Place::of(ns), &Document::new(), ids, |document| found = Some(document.to_owned())).await?;
        Ok::<Option<RawDocumentBuf>, Error>(found)
    };
    let ends = ends.at_once();
    let (source, destination) =
        tokio::join!(one(&ends.source, &pair.source), one(&ends.destination, &pair.destination));
    let shown = raw_value::shown_id(id);
    let told = |departure, path| Some(Difference { id: shown.into_relaxed_extjson(), departure, path });
    Ok(match (source.map_err(ScanError::Source)?, destination.map_err(ScanError::Destination)?) {
        (None, None) => None,
        (Some(_), None) => told(DifferenceKind::Missing, None),
        (None, Some(_)) => told(DifferenceKind::Extra, None),
        (Some(a), Some(b)) => first_difference(&a, &b).and_then(|(path, departure)| told(departure, Some(path))),
    })
}
