//! Keeps the destination's indexes complete while changes are applied, so that the write pause of a cutover builds none
//! that could have been built before: those that were dropped because they refused a document, those that were refused
//! when they came, and, from sources before 6.0, whose streams don't show them, those that were made since the copy.
//!
//! All collections are gone over once when a run begins to follow the source, and later those alone of which something is
//! known to be missing.

use crate::{
    apply::registry::Registry,
    cluster::Cluster,
    index_spec::Properties,
    indexes::{self, Pairing, Refused},
    progress::Tracker,
    verify::metadata::SIDE_BY_SIDE,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{ErrorCode, Failure, Finding, Namespace, progress::MissingIndex};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// What was refused is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// What could not be looked at is tried again after so long.
const SOON: Duration = Duration::from_secs(5);

/// At most so many missing indexes are named.
const NAMED: usize = 50;

/// Which of the destination's indexes are missing, and where some may be. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Missing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Collections of which something may be missing.
    suspects: BTreeSet<Namespace>,
    /// Why each is; `None` as code: it was dropped, and is built again.
    known: BTreeMap<(Namespace, String), Refused>,
}

impl Missing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of this collection of the destination may be missing.
    pub fn suspect(&self, ns: &Namespace) {
        self.state().suspects.insert(ns.clone());
    }

    /// Indexes were dropped because they refused a document.
    pub fn dropped(&self, ns: &Namespace, names: &[String], why: &str) {
        if names.is_empty() {
            return;
        }
        let mut state = self.state();
        state.suspects.insert(ns.clone());
        for name in names {
            let why = format!("dropped, since it refused a document; it is built again soon: {why}");
            let refused = Refused { name: name.clone(), code: None, why };
            state.known.insert((ns.clone(), name.clone()), refused);
        }
    }

    /// What was found of a collection when its indexes were brought to the source's.
    fn found(&self, ns: &Namespace, refused: Vec<Refused>) {
        let mut state = self.state();
        state.known.retain(|(own, _), _| own != ns);
        state.known.extend(refused.into_iter().map(|one| ((ns.clone(), one.name.clone()), one)));
    }

    /// All that the destination refused for a reason that lies in the index itself: why a cutover can't complete.
    pub fn refusals(&self) -> Vec<Finding> {
        let state = self.state();
        let lasting = state.known.iter().filter(|(_, one)| one.code.is_some() && !one.waits_for_the_cutover());
        lasting
            .map(|((ns, name), one)| {
                let evidence = format!("the destination can't build index {name} of {ns}: {}", one.why);
                Finding::error(ErrorCode::IndexBuildFailed, ns.to_string(), evidence)
            })
            .collect()
    }

    fn listed(&self) -> Vec<MissingIndex> {
        let state = self.state();
        let all = state.known.iter().take(NAMED).map(|((ns, name), one)| MissingIndex {
            namespace: ns.to_string(),
            name: name.clone(),
            reason: one.why.clone(),
        });
        all.collect()
    }
}

/// The upkeep of one run; ends with it.
pub(crate) struct Upkeep {
    tracker: Tracker,
    properties: Properties,
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
    pub fn new(tracker: &Tracker, properties: Properties) -> Self {
        // A way back finds all indexes as they were, final.
        let all = properties == Properties::Deferred;
        Self { tracker: tracker.clone(), properties, all, at_work: None, again: Instant::now() }
    }

    /// Whether nothing is left to be done that could be done now.
    pub fn is_done(&self) -> bool {
        let rests = !self.all && self.at_work.is_none() && self.tracker.missing.state().suspects.is_empty();
        rests || self.properties != Properties::Deferred
    }

    /// What was refused is tried again at once: a cutover waits for the answer.
    pub fn try_again(&mut self) {
        self.again = Instant::now();
    }

    /// Begins what is to be done, where nothing is under way. For when the destination is an image of the source: before,
    /// documents of another time may be in the way.
    pub async fn go_on(&mut self, registry: &Registry) {
        if self.properties != Properties::Deferred {
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
        let suspects = {
            let mut state = missing.state();
            let mut suspects = std::mem::take(&mut state.suspects);
            if due {
                suspects.extend(state.known.keys().map(|(ns, _)| ns.clone()));
            }
            suspects
        };
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
        self.at_work = Some(tokio::spawn(bring(source, destination, pairings, missing, self.properties)));
    }

    fn put_off(&mut self, failure: &Failure) {
        tracing::warn!(%failure, "the destination's indexes could not be gone over");
        self.all = true;
        self.again = Instant::now() + SOON;
    }

    fn show(&self) {
        let listed = self.tracker.missing.listed();
        self.tracker.count(|p| p.missing_indexes = listed);
    }
}

async fn bring(
    source: Cluster,
    destination: Cluster,
    pairings: Vec<Pairing>,
    missing: Missing,
    properties: Properties,
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
    futures::stream::iter(all).buffer_unordered(SIDE_BY_SIDE).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_index_refuses_a_cutover() {
        let (missing, ns) = (Missing::default(), Namespace::new("app", "c"));
        missing.dropped(&ns, &["ab".to_owned()], "cannot index parallel arrays");
        assert!(missing.refusals().is_empty() && missing.listed().len() == 1);
        let refused = |name: &str, code| Refused { name: name.to_owned(), code: Some(code), why: "no".to_owned() };
        missing.found(&ns, vec![refused("twin", 85), refused("hay", 197)]);
        let found = missing.refusals();
        assert!(found.len() == 1 && found[0].evidence.contains("hay of app.c"), "{found:?}");
        missing.found(&ns, Vec::new());
        assert!(missing.refusals().is_empty() && missing.listed().is_empty());
    }
}
