//! Reads one range of a collection on both sides at once and joins the two streams on `_id`. Documents are compared by
//! their bytes, in the server's replies as they came: nothing is decoded but the `_id`s of documents that differ.
//!
//! Ranges are read in the order of the `_id` index, by `min` and `max` as the copy reads them. A clustered collection has
//! no such index and is itself in that order. A collated one has an order that only the server knows: there `_id`s are
//! streamed from each side and looked up on the other.

use crate::{
    mongo::{id_order, range_read, raw_builder::RawDocBuilder, raw_value::Value},
    verify::{
        collection_pair::{ClusterPair, CollectionPair, IdOrder, Interval, Place, ScanError, ScanTotals},
        document_stream::{Stream, id_of},
        id_lookup,
    },
};
use bson::{RawDocumentBuf, doc};
use limosa_model::Failure;
use std::cmp::Ordering;

impl ClusterPair {
    /// Compares `interval` of `pair`. `suspect` gets `{_id: …}` of each document that isn't the same on both sides;
    /// `go_on` is awaited before each pair of replies and may hold the scan up.
    pub async fn scan(
        &self,
        pair: &CollectionPair,
        interval: &Interval,
        suspect: &mut (dyn FnMut(RawDocumentBuf) -> Result<(), Failure> + Send),
        go_on: &(dyn Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync),
    ) -> Result<ScanTotals, ScanError> {
        if pair.order == IdOrder::Collated {
            return id_lookup::both_ways(self, pair, None, suspect, go_on).await;
        }
        let hint = match pair.order {
            IdOrder::Natural => doc! {"$natural": 1},
            IdOrder::Index | IdOrder::Collated => doc! {"_id": 1},
        };
        let mut counted = ScanTotals::default();
        for query in range_read::queries(Some(hint), interval.min.as_ref(), interval.max.as_ref()) {
            let mut left = Stream::open(&self.source, &self.source_of(pair), &query);
            let mut right = Stream::open(&self.destination, &Place::of(&pair.destination), &query);
            loop {
                if left.needs_reply() || right.needs_reply() {
                    go_on().await;
                    let (a, b) = tokio::join!(left.fill(), right.fill());
                    a.map_err(ScanError::Source)?;
                    b.map_err(ScanError::Destination)?;
                }
                if left.current().is_none() && right.current().is_none() {
                    break;
                }
                if let Some(id) = compare_next(&mut left, &mut right, &mut counted) {
                    suspect(id).map_err(ScanError::Noting)?;
                }
            }
        }
        Ok(counted)
    }
}

/// Passes over the next document of the side that is behind, or of both; returns `{_id: …}` of one that isn't the same on
/// both. A side that has ended has nothing to pass over, so that each turn passes over a document.
fn compare_next(left: &mut Stream, right: &mut Stream, counted: &mut ScanTotals) -> Option<RawDocumentBuf> {
    let (x, y) = (left.current(), right.current());
    if let (Some(x), Some(y)) = (x, y)
        && x == y
    {
        counted.equal(x);
        left.advance();
        right.advance();
        return None;
    }
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
    let id = id.and_then(id_of).and_then(id_document);
    if order.is_le() {
        counted.compared += 1;
        counted.bytes += x.map_or(0, |document| document.len() as u64);
        left.advance();
    }
    if order.is_ge() {
        right.advance();
    }
    id
}

fn id_document(id: Value<'_>) -> Option<RawDocumentBuf> {
    RawDocBuilder::new().value("_id", id).build().ok()
}
