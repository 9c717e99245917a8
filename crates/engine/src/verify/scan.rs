//! Reads one range of a collection on both sides at once and joins the two streams on `_id`. Documents are compared by
//! their bytes, in the server's replies as they came: nothing is decoded but the `_id`s of documents that differ.
//!
//! Ranges are read in the order of the `_id` index, by `min` and `max` as the copy reads them. A clustered collection has
//! no such index and is itself in that order. A collated one has an order that only the server knows: there `_id`s are
//! streamed from each side and looked up on the other.

use super::{lookup, order};
use crate::{
    apply::registry::Target,
    catalog::{self, Entry},
    cluster::Cluster,
    error, raw,
    retry::Backoff,
    throttle::Reads,
    value::{self, Value},
};
use bson::{Binary, Bson, Document, RawDocumentBuf, Timestamp, doc, spec::BinarySubtype};
use limosa_model::{Failure, Namespace};
use mongodb::error::Error;
use std::cmp::Ordering;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_128;

/// Documents a reply; the server ends one at 16 MB by itself.
const BATCH_DOCUMENTS: i32 = 2000;

/// One collection, where it is on either side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    pub source: Namespace,
    pub destination: Namespace,
    /// The source's collection; what is read under its name must be this one.
    pub uuid: Option<catalog::Uuid>,
    pub order: IdOrder,
    pub is_capped: bool,
}

/// How a collection can be read in the order of its `_id`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdOrder {
    /// By the `_id` index.
    Index,
    /// By reading it from beginning to end.
    Natural,
    /// The server's alone.
    Collated,
}

impl Pair {
    /// Of a collection that receives changes; the name is the same on both sides, unless the source is ahead.
    pub fn of_target(target: &Target) -> Self {
        let order = if target.folds && !target.keeps_order { IdOrder::Collated } else { IdOrder::Index };
        let (ns, is_capped) = (target.ns.clone(), target.keeps_order);
        Self { source: ns.clone(), destination: ns, uuid: target.uuid, order, is_capped }
    }

    pub fn of(entry: &Entry, destination: &Namespace) -> Self {
        let order = if entry.is_collated() {
            IdOrder::Collated
        } else if entry.options.contains_key("clusteredIndex") || entry.ns.coll.starts_with(catalog::BUCKETS) {
            IdOrder::Natural
        } else {
            IdOrder::Index
        };
        Self {
            source: entry.ns.clone(),
            destination: destination.clone(),
            uuid: entry.uuid,
            order,
            is_capped: entry.is_capped(),
        }
    }
}

/// An interval of `_id`s: from `min`, inclusive, to `max`, exclusive; all of it where both are absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Interval {
    pub min: Option<Bson>,
    pub max: Option<Bson>,
}

/// What a scan counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Documents of the source that were compared.
    pub compared: u64,
    pub bytes: u64,
    /// The sum of the digests of the documents that are equal.
    pub digest: u128,
}

impl Counted {
    pub fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    fn equal(&mut self, document: &[u8]) {
        self.compared += 1;
        self.bytes += document.len() as u64;
        self.digest = self.digest.wrapping_add(xxh3_128(document));
    }
}

/// Why a scan ended early.
#[derive(Debug)]
pub(crate) enum Broken {
    Source(Error),
    Destination(Error),
    /// What was found can't be noted down.
    Noting(Failure),
}

/// Both ends of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub source: Cluster,
    pub destination: Cluster,
    /// What is read of the source holds everything up to here, whichever member is read.
    pub since: Option<Timestamp>,
}

impl Ends {
    pub fn new(source: Cluster, destination: Cluster) -> Self {
        Self { source, destination, since: None }
    }

    /// To read of the source what holds everything up to `time`.
    pub fn since(&self, time: Timestamp) -> Self {
        Self { since: (time.time > 0).then_some(time), ..self.clone() }
    }

    /// To read where nothing must be waited for: from the primary, as fast as it goes.
    pub fn at_once(&self) -> Self {
        Self { source: self.source.clone().read_as(Reads::default()), ..self.clone() }
    }

    /// How `pair` is read on the source.
    pub fn source_of(&self, pair: &Pair) -> Place {
        Place { ns: pair.source.clone(), uuid: self.collection_uuid(pair), since: self.since }
    }

    /// Compares `interval` of `pair`. `suspect` gets `{_id: …}` of each document that isn't the same on both sides;
    /// `go_on` is awaited before each pair of replies and may hold the scan up.
    pub async fn scan(
        &self,
        pair: &Pair,
        interval: &Interval,
        suspect: &mut (dyn FnMut(RawDocumentBuf) -> Result<(), Failure> + Send),
        go_on: &(dyn Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync),
    ) -> Result<Counted, Broken> {
        if pair.order == IdOrder::Collated {
            return lookup::both_ways(self, pair, None, suspect, go_on).await;
        }
        let mut counted = Counted::default();
        let mut queries = vec![find(interval, pair.order)];
        if interval.min.is_some() && interval.max.is_none() {
            // `min` without `max` leaves out the one document whose `_id` is MaxKey.
            queries.push(doc! {"filter": {"_id": Bson::MaxKey}});
        }
        for query in queries {
            let mut left = Stream::open(&self.source, &self.source_of(pair), &query);
            let mut right = Stream::open(&self.destination, &Place::of(&pair.destination), &query);
            loop {
                if left.needs_reply() || right.needs_reply() {
                    go_on().await;
                    let (a, b) = tokio::join!(left.fill(), right.fill());
                    a.map_err(Broken::Source)?;
                    b.map_err(Broken::Destination)?;
                }
                match (left.current(), right.current()) {
                    (None, None) => break,
                    (Some(x), Some(y)) if x == y => {
                        counted.equal(x);
                        left.advance();
                        right.advance();
                    }
                    (x, y) => {
                        // A side that has ended has nothing to pass over: each turn passes over a document.
                        let order = match (x, y) {
                            (Some(_), None) => Ordering::Less,
                            (None, _) => Ordering::Greater,
                            (Some(x), Some(y)) => match (id_of(x), id_of(y)) {
                                (Some(x), Some(y)) => order::compare(x, y),
                                (None, _) => Ordering::Less,
                                (Some(_), None) => Ordering::Greater,
                            },
                        };
                        let id = if order.is_le() { x } else { y };
                        if let Some(id) = id.and_then(id_of).and_then(id_document) {
                            suspect(id).map_err(Broken::Noting)?;
                        }
                        if order.is_le() {
                            counted.compared += 1;
                            counted.bytes += left.current().map_or(0, |d| d.len() as u64);
                            left.advance();
                        }
                        if order.is_ge() {
                            right.advance();
                        }
                    }
                }
            }
        }
        Ok(counted)
    }

    /// Whether to do again what broke, after a pause; `false` where the collection was dropped or renamed under it.
    pub async fn again(&self, broken: &Broken, backoff: &mut Backoff) -> Result<bool, Failure> {
        match broken {
            Broken::Source(e) | Broken::Destination(e) if error::is_gone(e) => Ok(false),
            Broken::Source(e) | Broken::Destination(e) if error::is_transient(e) && backoff.wait().await => {
                tracing::debug!(error = %e, "comparing again");
                Ok(true)
            }
            _ => Err(self.failure(broken)),
        }
    }

    /// What is told of it.
    pub fn failure(&self, broken: &Broken) -> Failure {
        match broken {
            Broken::Source(e) => self.source.failure(e),
            Broken::Destination(e) => self.destination.failure(e),
            Broken::Noting(failure) => failure.clone(),
        }
    }

    /// The UUID to read the source under, where the source can be asked to hold to it.
    pub fn collection_uuid(&self, pair: &Pair) -> Option<catalog::Uuid> {
        pair.uuid.filter(|_| self.source.level >= (6, 0))
    }
}

fn find(interval: &Interval, order: IdOrder) -> Document {
    let mut query = match order {
        IdOrder::Natural => doc! {"hint": {"$natural": 1}},
        IdOrder::Index | IdOrder::Collated => doc! {"hint": {"_id": 1}},
    };
    query.extend(interval.min.clone().map(|id| ("min".to_owned(), Bson::Document(doc! {"_id": id}))));
    query.extend(interval.max.clone().map(|id| ("max".to_owned(), Bson::Document(doc! {"_id": id}))));
    query
}

/// What is read of one side.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub ns: Namespace,
    /// What is read under the name must be this collection.
    pub uuid: Option<catalog::Uuid>,
    /// It holds everything up to here.
    pub since: Option<Timestamp>,
}

impl Place {
    /// Whatever has this name now.
    pub fn of(ns: &Namespace) -> Self {
        Self { ns: ns.clone(), uuid: None, since: None }
    }
}

/// A whole `find`, majority-committed.
pub(crate) fn find_command(place: &Place, query: &Document) -> Document {
    let mut concern = doc! {"level": "majority"};
    concern.extend(place.since.map(|since| ("afterClusterTime".to_owned(), Bson::Timestamp(since))));
    let mut command = doc! {"find": &place.ns.coll, "batchSize": BATCH_DOCUMENTS, "readConcern": concern};
    if let Some(uuid) = place.uuid {
        command.insert("collectionUUID", Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() });
    }
    command.extend(query.clone());
    command
}

/// The value of a document's `_id`.
pub(crate) fn id_of(document: &[u8]) -> Option<Value<'_>> {
    value::elements(document).find(|(name, _)| *name == b"_id").map(|(_, id)| id)
}

fn id_document(id: Value<'_>) -> Option<RawDocumentBuf> {
    raw::RawDocBuilder::new().value("_id", id).build().ok()
}

/// The documents of one side, in the replies that they came in; the next reply is fetched while one is gone through.
pub(crate) struct Stream {
    replies: mpsc::Receiver<Result<Reply, Error>>,
    reply: Reply,
    next: usize,
    ended: bool,
}

/// One reply's documents.
#[derive(Default)]
struct Reply {
    bytes: Vec<u8>,
    /// Where each document begins and ends.
    documents: Vec<(usize, usize)>,
}

impl Reply {
    fn of(array: &bson::RawArray) -> Self {
        let bytes = array.as_bytes().to_vec();
        let mut documents = Vec::new();
        // Each element is a type, a name that ends with a zero, and a document that begins with its length.
        let mut at = 4;
        while bytes.get(at).is_some_and(|kind| *kind != 0) {
            let Some(name) = bytes[at + 1..].iter().position(|b| *b == 0) else { break };
            let begin = at + 1 + name + 1;
            let Some(length) = bytes.get(begin..begin + 4).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes)
            else {
                break;
            };
            let end = begin + length as usize;
            documents.push((begin, end));
            at = end;
        }
        Self { bytes, documents }
    }
}

impl Stream {
    pub fn open(cluster: &Cluster, place: &Place, query: &Document) -> Self {
        let (sender, replies) = mpsc::channel(1);
        let (db, command, reads) = (cluster.db(&place.ns.db), find_command(place, query), cluster.reads.clone());
        let batch_size = command.get_i32("batchSize").unwrap_or(BATCH_DOCUMENTS) as u32;
        tokio::spawn(async move {
            let opened =
                db.run_cursor_command(command).batch_size(batch_size).selection_criteria(reads.from.criteria());
            let mut cursor = match opened.batch().await {
                Ok(cursor) => cursor,
                Err(e) => return drop(sender.send(Err(e)).await),
            };
            while let Some(batch) = cursor.next().await {
                let reply = batch.and_then(|batch| batch.doc_slices().map(Reply::of));
                let failed = reply.is_err();
                reads.throttle.note_read(reply.as_ref().map_or(0, |reply| reply.bytes.len()));
                // Nobody listens any more: the scan ended.
                if sender.send(reply).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { replies, reply: Reply::default(), next: 0, ended: false }
    }

    pub fn needs_reply(&self) -> bool {
        !self.ended && self.next >= self.reply.documents.len()
    }

    pub async fn fill(&mut self) -> Result<(), Error> {
        while self.needs_reply() {
            match self.replies.recv().await {
                Some(reply) => (self.reply, self.next) = (reply?, 0),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// The document at hand, if there is one.
    pub fn current(&self) -> Option<&[u8]> {
        self.reply.documents.get(self.next).map(|(begin, end)| &self.reply.bytes[*begin..*end])
    }

    pub fn advance(&mut self) {
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawArrayBuf, rawdoc};

    #[test]
    fn documents_of_a_reply_are_found_in_place() {
        let mut array = RawArrayBuf::new();
        let all: Vec<RawDocumentBuf> = (0..120).map(|n| rawdoc! {"_id": n, "x": ["a", {"b": n}]}).collect();
        all.iter().for_each(|d| array.push(d.clone()));
        let reply = Reply::of(&array);
        let found: Vec<&[u8]> = reply.documents.iter().map(|(b, e)| &reply.bytes[*b..*e]).collect();
        assert_eq!(found, all.iter().map(|d| d.as_bytes()).collect::<Vec<_>>());
        assert!(Reply::of(&RawArrayBuf::new()).documents.is_empty());
    }
}
