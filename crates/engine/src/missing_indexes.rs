//! Which of the destination's indexes are missing while changes are applied, and why.

use limosa_model::{ErrorCode, Finding, Namespace, progress::MissingIndex};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// At most so many missing indexes are named.
const NAMED: usize = 50;

/// An index that the destination refused to build before the cutover.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RefusedIndex {
    pub name: String,
    /// Whether the reason lies in the index itself, so that a cutover can't complete. Another index that is only in its way
    /// as long as neither is unique is no such reason: the cutover builds it.
    pub is_lasting: bool,
    /// The server's words.
    pub why: String,
}

/// Which of the destination's indexes are missing, and where some may be. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Missing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Collections of which something may be missing.
    suspects: BTreeSet<Namespace>,
    /// Why each is missing.
    known: BTreeMap<(Namespace, String), RefusedIndex>,
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
            let refused = RefusedIndex { name: name.clone(), is_lasting: false, why };
            state.known.insert((ns.clone(), name.clone()), refused);
        }
    }

    /// What was found of a collection when its indexes were brought to the source's.
    pub fn found(&self, ns: &Namespace, refused: Vec<RefusedIndex>) {
        let mut state = self.state();
        state.known.retain(|(own, _), _| own != ns);
        state.known.extend(refused.into_iter().map(|one| ((ns.clone(), one.name.clone()), one)));
    }

    /// The collections of which something may be missing, from here on none; with those of which it is known, if `known`.
    pub fn take_suspects(&self, known: bool) -> BTreeSet<Namespace> {
        let mut state = self.state();
        let mut suspects = std::mem::take(&mut state.suspects);
        if known {
            suspects.extend(state.known.keys().map(|(ns, _)| ns.clone()));
        }
        suspects
    }

    /// What is known to be missing may not be any more: nothing is done until it was gone over again.
    pub fn suspect_known(&self) {
        let mut state = self.state();
        let known: Vec<Namespace> = state.known.keys().map(|(ns, _)| ns.clone()).collect();
        state.suspects.extend(known);
    }

    /// Whether nothing of any collection may be missing.
    pub fn has_no_suspects(&self) -> bool {
        self.state().suspects.is_empty()
    }

    /// All that the destination refused for a reason that lies in the index itself: why a cutover can't complete.
    pub fn refusals(&self) -> Vec<Finding> {
        let state = self.state();
        let lasting = state.known.iter().filter(|(_, one)| one.is_lasting);
        lasting
            .map(|((ns, name), one)| {
                let evidence = format!("the destination can't build index {name} of {ns}: {}", one.why);
                Finding::error(ErrorCode::IndexBuildFailed, ns.to_string(), evidence)
            })
            .collect()
    }

    pub fn listed(&self) -> Vec<MissingIndex> {
        let state = self.state();
        let all = state.known.iter().take(NAMED).map(|((ns, name), one)| MissingIndex {
            namespace: ns.to_string(),
            name: name.clone(),
            reason: one.why.clone(),
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_index_refuses_a_cutover() {
        let (missing, ns) = (Missing::default(), Namespace::new("app", "c"));
        missing.dropped(&ns, &["ab".to_owned()], "cannot index parallel arrays");
        assert!(missing.refusals().is_empty() && missing.listed().len() == 1);
        let refused = |name: &str, is_lasting| RefusedIndex { name: name.to_owned(), is_lasting, why: "no".to_owned() };
        missing.found(&ns, vec![refused("twin", false), refused("hay", true)]);
        let found = missing.refusals();
        assert!(found.len() == 1 && found[0].evidence.contains("hay of app.c"), "{found:?}");
        missing.found(&ns, Vec::new());
        assert!(missing.refusals().is_empty() && missing.listed().is_empty());
    }
}
