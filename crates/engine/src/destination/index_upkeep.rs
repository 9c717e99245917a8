//! Keeps the destination's indexes complete while changes are applied, so that the write pause of a cutover builds none
//! that could have been built before: those that were dropped because they refused a document, those that were refused
//! when they came, and, from sources before 6.0, whose streams don't show them, those that were made since the copy.
//!
//! All collections are gone over once when a run begins to follow the source, and later those alone of which something is
//! known to be missing.

use crate::{
    destination::{
        collection_map::CollectionMap,
        indexes::{self, Pairing},
    },
    missing_indexes::Missing,
    mongo::{cluster::Cluster, index_spec::IndexPhase},
    progress::ProgressTracker,
    tuning::CATALOG_CONCURRENCY,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::Failure;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tracing::Instrument;

/// What was refused is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// What could not be looked at is tried again after so long.
const SOON: Duration = Duration::from_secs(5);

/// The upkeep of one run; ends with it.
pub(crate) struct Upkeep {
    tracker: ProgressTracker,
    properties: IndexPhase,
    /// Whether all collections are still to be gone over.
    all: bool,
    at_work: Option<JoinHandle<Result<(), Failure>>>,
    /// When what was refused is tried again.
    again: Instant,
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(task) = &self.at_work {
            task.abort();
        }
    }
}

impl Upkeep {
    pub fn new(tracker: &ProgressTracker, properties: IndexPhase) -> Self {
        // A way back finds all indexes as they were, final.
        let all = properties == IndexPhase::Deferred;
        Self { tracker: tracker.clone(), properties, all, at_work: None, again: Instant::now() }
    }

    /// Whether nothing is left to be done that could be done now.
    pub fn is_done(&self) -> bool {
        let rests = !self.all && self.at_work.is_none() && self.tracker.missing.has_no_suspects();
        rests || self.properties != IndexPhase::Deferred
    }

    /// What was refused is tried again at once: a cutover waits for the answer, and its cause may be gone.
    pub fn try_again(&mut self) {
        self.again = Instant::now();
        self.tracker.missing.suspect_known();
    }

    /// Begins what is to be done, where nothing is under way. For when the destination is an image of the source: before,
    /// documents of another time may be in the way.
    pub async fn go_on(&mut self, registry: &CollectionMap) {
        if self.properties != IndexPhase::Deferred {
            return;
        }
        if let Some(task) = self.at_work.take_if(|task| task.is_finished()) {
            let ended = task.await;
            self.show();
            // Trouble of the moment shows elsewhere too; the next try is with the others.
            if let Ok(Err(failure)) = ended {
                self.put_off(&failure);
            }
        }
        if self.at_work.is_some() {
            return;
        }
        let missing = self.tracker.missing.clone();
        let due = self.again <= Instant::now();
        let suspects = missing.take_suspects(due);
        if suspects.is_empty() && !(self.all && due) {
            return;
        }
        self.show();
        let pairings = match indexes::pairings(registry, Some(&suspects).filter(|_| !self.all)).await {
            Ok(pairings) => pairings,
            Err(failure) => return self.put_off(&failure),
        };
        self.all = false;
        if due {
            self.again = Instant::now() + AGAIN;
        }
        let (source, destination) = (registry.source().clone(), registry.destination().clone());
        let work = bring(source, destination, pairings, missing, self.properties);
        self.at_work = Some(tokio::spawn(work.in_current_span()));
    }

    fn put_off(&mut self, failure: &Failure) {
        tracing::warn!(%failure, "the destination's indexes could not be gone over");
        self.all = true;
        self.again = Instant::now() + SOON;
    }

    fn show(&self) {
        let listed = self.tracker.missing.listed();
        self.tracker.update(|p| p.missing_indexes = listed);
    }
}

async fn bring(
    source: Cluster,
    destination: Cluster,
    pairings: Vec<Pairing>,
    missing: Missing,
    properties: IndexPhase,
) -> Result<(), Failure> {
    let all: Vec<_> = pairings
        .into_iter()
        .map(|pair| {
            let (source, destination, missing) = (&source, &destination, &missing);
            async move {
                let refused = pair.bring(source, destination, properties).await?;
                missing.found(&pair.destination.ns, refused);
                Ok::<_, Failure>(())
            }
        })
        .collect();
    futures::stream::iter(all).buffer_unordered(CATALOG_CONCURRENCY).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineReport, metrics::Metrics, missing_indexes::RefusedIndex};
    use limosa_model::Namespace;

    #[test]
    fn a_cutover_waits_until_what_was_refused_was_tried_again() {
        let tracker = ProgressTracker::new(tokio::sync::watch::Sender::new(EngineReport::begin()), Metrics::default());
        let mut upkeep = Upkeep::new(&tracker, IndexPhase::Deferred);
        upkeep.all = false;
        let hay = RefusedIndex { name: "hay".to_owned(), is_lasting: true, why: "no".to_owned() };
        tracker.missing.found(&Namespace::new("app", "c"), vec![hay]);
        assert!(upkeep.is_done(), "it is tried again in a minute");
        upkeep.try_again();
        assert!(!upkeep.is_done(), "the refusal may be past");
    }
}
