//! Reads one range of a collection on both sides at once and joins the two streams on `_id`. Documents are compared by
//! their bytes, in the server's replies as they came: nothing is decoded but the `_id`s of documents that differ.
//!
//! Ranges are read in the order of the `_id` index, by `min` and `max` as the copy reads them. A clustered collection has
//! no such index and is itself in that order. A collated one has an order that only the server knows: there `_id`s are
//! streamed from each side and looked up on the other.

use crate::{
    mongo::{id_order, raw_builder::RawDocBuilder, raw_value::Value},
    verify::{
        collection_pair::{Broken, Counted, Ends, IdOrder, Interval, Pair, Place},
        document_stream::{Stream, id_of},
        id_lookup,
    },
};
use bson::{Bson, Document, RawDocumentBuf, doc};
use limosa_model::Failure;
use std::cmp::Ordering;

impl Ends {
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
            return id_lookup::both_ways(self, pair, None, suspect, go_on).await;
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
                                (Some(x), Some(y)) => id_order::compare(x, y),
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

fn id_document(id: Value<'_>) -> Option<RawDocumentBuf> {
    RawDocBuilder::new().value("_id", id).build().ok()
}
