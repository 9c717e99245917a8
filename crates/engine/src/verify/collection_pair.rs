//! A collection on both sides, and the two clusters between which it is compared.

use crate::{
    copy::plan,
    destination::collection_map::Target,
    mongo::{
        catalog::{self, Entry},
        cluster::Cluster,
        error,
    },
    retry::Backoff,
    throttle::Reads,
};
use bson::{Bson, Timestamp};
use limosa_model::{Failure, Namespace};
use mongodb::error::Error;
use xxhash_rust::xxh3::xxh3_128;

/// One collection, where it is on either side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CollectionPair {
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

impl CollectionPair {
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
pub(crate) struct ScanTotals {
    /// Documents of the source that were compared.
    pub compared: u64,
    pub bytes: u64,
    /// The sum of the digests of the documents that are equal.
    pub digest: u128,
}

impl ScanTotals {
    pub fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// One more document, the same on both sides.
    pub fn equal(&mut self, document: &[u8]) {
        self.compared += 1;
        self.bytes += document.len() as u64;
        self.digest = self.digest.wrapping_add(xxh3_128(document));
    }
}

/// Why a scan ended early.
#[derive(Debug)]
pub(crate) enum ScanError {
    Source(Error),
    Destination(Error),
    /// What was found can't be noted down.
    Noting(Failure),
}

/// Both ends of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPair {
    pub source: Cluster,
    pub destination: Cluster,
    /// What is read of the source holds everything up to here, whichever member is read.
    pub since: Option<Timestamp>,
}

impl ClusterPair {
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
    pub fn source_of(&self, pair: &CollectionPair) -> Place {
        Place { ns: pair.source.clone(), uuid: self.collection_uuid(pair), since: self.since }
    }

    /// Whether to do again what broke, after a pause; `false` where the collection was dropped or renamed under it.
    pub async fn again(&self, broken: &ScanError, backoff: &mut Backoff) -> Result<bool, Failure> {
        match broken {
            ScanError::Source(e) | ScanError::Destination(e) if error::is_gone(e) => Ok(false),
            ScanError::Source(e) | ScanError::Destination(e) if error::is_transient(e) && backoff.wait().await => {
                tracing::debug!(error = %e, "comparing again");
                Ok(true)
            }
            _ => Err(self.failure(broken)),
        }
    }

    /// What is told of it.
    pub fn failure(&self, broken: &ScanError) -> Failure {
        match broken {
            ScanError::Source(e) => self.source.failure(e),
            ScanError::Destination(e) => self.destination.failure(e),
            ScanError::Noting(failure) => failure.clone(),
        }
    }

    /// The UUID to read the source under, where the source can be asked to hold to it.
    pub fn collection_uuid(&self, pair: &CollectionPair) -> Option<catalog::Uuid> {
        pair.uuid.filter(|_| self.source.can().check_uuid())
    }
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

/// The copy's own ranges.
pub(crate) async fn intervals(
    source: &Cluster,
    pair: &CollectionPair,
    size: plan::Size,
) -> Result<Vec<Interval>, Failure> {
    if pair.order != IdOrder::Index {
        return Ok(vec![Interval::default()]);
    }
    let boundaries = plan::boundaries_of(source, &pair.source, size).await?;
    let mut edges = vec![None];
    edges.extend(boundaries.into_iter().map(Some));
    edges.push(None);
    Ok(edges.windows(2).map(|edge| Interval { min: edge[0].clone(), max: edge[1].clone() }).collect())
}
