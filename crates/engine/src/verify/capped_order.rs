//! Whether a capped collection's documents stand in the same order on both sides.
//!
//! A capped collection gives each document a record id above those of all before it, and a document keeps it as long as
//! it lives. So the source's documents are read in their order and looked up on the destination: their record ids must
//! ascend there. What only one side has, at the beginning, where the oldest go, or at the end, where new ones come, is
//! passed over: the order can be told while both sides change. Two documents that seem to stand the other way round are
//! read once more, together, before that counts: another member of a replica set has record ids of its own.

use crate::{
    mongo::{cluster::Cluster, raw_value},
    verify::{
        collection_pair::{ClusterPair, CollectionPair, Place, ScanError},
        document_stream::Stream,
        id_lookup,
    },
};
use bson::{Bson, Document, RawBsonRef, RawDocumentBuf, doc};
use futures::future::BoxFuture;
use mongodb::error::Error;
use std::{collections::HashMap, fmt};

/// Two documents, in the source's order, that stand the other way round on the destination.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Swapped {
    /// `{_id: …}`
    pub earlier: RawDocumentBuf,
    pub later: RawDocumentBuf,
}

/// The first two, if there are any; of the share of the documents that `filter` picks.
pub(crate) async fn first_swapped(
    ends: &ClusterPair,
    pair: &CollectionPair,
    filter: Option<&Document>,
    go_on: &(dyn Fn() -> BoxFuture<'static, ()> + Send + Sync),
) -> Result<Option<Swapped>, ScanError> {
    let mut query = doc! {"hint": {"$natural": 1}, "projection": {"_id": 1}};
    query.extend(filter.map(|filter| ("filter".to_owned(), Bson::Document(filter.clone()))));
    let mut ids = Stream::open(&ends.source, &ends.source_of(pair), &query);
    let mut last: Option<(i64, RawDocumentBuf)> = None;
    loop {
        let next = id_lookup::next_ids(&mut ids, go_on).await.map_err(ScanError::Source)?;
        if next.is_empty() {
            return Ok(None);
        }
        let places =
            places(&ends.destination, &Place::of(&pair.destination), &next).await.map_err(ScanError::Destination)?;
        for later in next {
            let Some(&place) = places.get(&id_lookup::key(&later)) else { continue };
            if let Some((before, earlier)) = last.take().filter(|(before, _)| *before > place) {
                let swapped = Swapped { earlier, later: later.clone() };
                if swapped.is_there(ends, pair).await? {
                    return Ok(Some(swapped));
                }
                tracing::debug!(before, place, "record ids of two members");
            }
            last = Some((place, later));
        }
    }
}

impl Swapped {
    /// Whether both sides have both documents, one way round here and the other there.
    pub async fn is_there(&self, ends: &ClusterPair, pair: &CollectionPair) -> Result<bool, ScanError> {
        let both = [self.earlier.clone(), self.later.clone()];
        let (on_source, on_destination) = (ends.source_of(pair), Place::of(&pair.destination));
        let (source, destination) =
            tokio::join!(places(&ends.source, &on_source, &both), places(&ends.destination, &on_destination, &both),);
        let (source, destination) = (source.map_err(ScanError::Source)?, destination.map_err(ScanError::Destination)?);
        let ascends = |places: &HashMap<Vec<u8>, i64>| {
            let [earlier, later] = both.each_ref().map(|id| places.get(&id_lookup::key(id)));
            Some(earlier? < later?)
        };
        Ok((ascends(&source), ascends(&destination)) == (Some(true), Some(false)))
    }

    /// Their `_id`s.
    pub fn ids(&self) -> [Bson; 2] {
        [&self.earlier, &self.later].map(|id| raw_value::shown_id(id))
    }
}

impl fmt::Display for Swapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [earlier, later] = self.ids().map(Bson::into_relaxed_extjson);
        write!(f, "_id {earlier} stands before _id {later} on the source and after it on the destination")
    }
}

/// Record ids of the documents with these `_id`s that are there.
async fn places(cluster: &Cluster, place: &Place, ids: &[RawDocumentBuf]) -> Result<HashMap<Vec<u8>, i64>, Error> {
    let mut found = HashMap::with_capacity(ids.len());
    let query = doc! {"projection": {"_id": 1}, "showRecordId": true};
    id_lookup::each_of(cluster, place, &query, ids, |document| {
        if let Ok(Some(RawBsonRef::Int64(place))) = document.get("$recordId") {
            found.insert(id_lookup::key(document), place);
        }
    })
    .await?;
    Ok(found)
}
