//! The verifier beside replication. It goes over everything range by range, pass after pass, while changes are applied;
//! it is held up whenever the lag grows, and rests four times as long as a pass took.
//!
//! A document that a scan finds different may only be on its way: it is marked dirty, like every document that a change
//! is applied to. Once it has been quiet for some seconds it is looked at again: read on the source; then wait until
//! everything that the source had by then is applied; then read on the destination. If no change touched it between,
//! both must be equal. If they aren't, somebody else wrote on the destination: the document is read again from the
//! source and written by the replicator's own writers, so that order and fences hold, and is counted. If the same
//! document differs a second time, the migration fails: whoever it was will do it again after the cutover too. Once
//! somebody has resumed it, every document may be written again once more.

use crate::{
    component::Component,
    destination::{coalesce::DocumentWrite, collection_map::CollectionMap},
    mongo::catalog::Uuid,
    progress::ProgressTracker,
    tuning::Tuning,
    verify::{
        collection_pair::{ClusterPair, CollectionPair},
        dirty_set::{self, Entry},
        id_lookup,
        state::{Found, Notes, Repaired},
    },
};
use bson::Timestamp;
use limosa_model::{ErrorCode, Failure, Namespace};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use tracing::Instrument;

/// More documents to look at than this are no small rest: they take two seconds of a write pause, about.
const MOST_DIRTY: u64 = 40_000;

/// For how long a cutover waits for that.
const AWAITED: Duration = Duration::from_secs(60);

/// The longest pause before the verifier tries again what failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// With more lag than this the verifier waits.
const MOST_LAG_SECONDS: i64 = 3;

/// A document to be written again by the replicator.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    pub uuid: Uuid,
    /// Stays in hand until it is written.
    pub entry: Entry,
}

/// Shared by the replicator, which marks and repairs, and the verifier's own tasks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) ends: ClusterPair,
    pub(super) notes: Notes,
    pub(super) tracker: ProgressTracker,
    state: Mutex<State>,
    /// Everything of the source up to here is applied.
    pub(super) applied: watch::Sender<Timestamp>,
    /// Whether there is room for verifying.
    pub(super) may_run: watch::Sender<bool>,
    /// Whether a cutover has begun, for which everything is let go at once.
    pub(super) held: watch::Sender<bool>,
    /// For how long an error is waited out that the verifier meets.
    patience: Duration,
    /// How many bytes the dirty set may take.
    most_bytes: u64,
    /// Whether the scan is held up, or has nothing to do.
    pub(super) scan_rests: watch::Sender<bool>,
    /// Something is in doubt.
    pub(super) doubted: tokio::sync::Notify,
    /// Held during a round of looking at dirty documents.
    pub(super) round: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// Where the source's collections are now.
    pub(super) pairs: HashMap<Uuid, CollectionPair>,
    /// Grows with every change of definitions: what was seen across one doesn't count.
    pub(super) definitions: u64,
    /// Whether one is changing just now.
    pub(super) defining: bool,
    /// Collections whose documents expire on the destination while it is replicated to.
    pub(super) expiring: HashSet<Namespace>,
    /// Capped collections whose documents stand in another order than the source's, and which of them.
    pub(super) out_of_order: BTreeMap<Namespace, String>,
    /// Capped collections with a document that isn't the source's.
    pub(super) differing: BTreeSet<Namespace>,
    pub(super) repairs: Vec<Repair>,
    failure: Option<Failure>,
    /// By how many documents the source's own count of a collection is above the destination's although both have the
    /// same: after an unclean end of a server its count may be wrong for good.
    pub(super) miscounted: HashMap<Uuid, i64>,
    /// The same as seen when the pass that is under way began.
    pub(super) to_be_miscounted: HashMap<Uuid, i64>,
}

/// The verifier's own work; ends with it.
pub(crate) struct Tasks(JoinSet<()>);

impl Tasks {
    /// Ends it, and waits until it holds nothing any more.
    pub async fn end(mut self) {
        self.0.shutdown().await;
    }
}

impl Verifier {
    /// The verifier of one migration, its notes those called `id` if they are on this disk. Returns their name too.
    pub fn open(
        ends: ClusterPair,
        dir: &Path,
        id: Option<&str>,
        tracker: &ProgressTracker,
        tuning: &Tuning,
    ) -> Result<(Self, String), Failure> {
        let (notes, id) = Notes::open(dir, id)?;
        let (passes, repairs) = (notes.passes()?, notes.repairs()?);
        tracker.update(|p| (p.verification_passes, p.documents_repaired) = (passes, repairs));
        let inner = Inner {
            ends,
            notes,
            tracker: tracker.clone(),
            state: Mutex::default(),
            applied: watch::Sender::new(Timestamp { time: 0, increment: 0 }),
            may_run: watch::Sender::new(false),
            held: watch::Sender::new(false),
            patience: tuning.patience,
            most_bytes: tuning.spool_disk_bytes / 2,
            scan_rests: watch::Sender::new(true),
            doubted: tokio::sync::Notify::new(),
            round: tokio::sync::Mutex::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, id))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to scan and to look again, as far as [`Self::pace`] lets it.
    pub fn start(&self) -> Tasks {
        // What the tasks of an earlier start left.
        self.inner.notes.dirty.put_all_back();
        self.inner.scan_rests.send_replace(true);
        self.inner.held.send_replace(false);
        {
            let mut state = self.state();
            state.repairs.clear();
            state.failure = None;
        }
        [Component::Scan, Component::Look].into_iter().for_each(|part| self.inner.tracker.clear_failure(part));
        let mut tasks = JoinSet::new();
        let (scanning, looking) = (self.clone(), self.clone());
        tasks.spawn(
            async move {
                let failure = loop {
                    let failure = scanning.scan_loop().await;
                    scanning.inner.scan_rests.send_replace(true);
                    if let Some(lasting) = scanning.wait_out(Component::Scan, failure).await {
                        break lasting;
                    }
                };
                scanning.fail(failure);
            }
            .in_current_span(),
        );
        tasks.spawn(
            async move {
                let failure = loop {
                    let failure = looking.recheck_loop().await;
                    if let Some(lasting) = looking.wait_out(Component::Look, failure).await {
                        break lasting;
                    }
                };
                looking.fail(failure);
            }
            .in_current_span(),
        );
        Tasks(tasks)
    }

    fn fail(&self, failure: Failure) {
        tracing::error!(%failure, "the verifier ended");
        self.inner.scan_rests.send_replace(true);
        self.state().failure.get_or_insert(failure);
    }

    /// Waits before what failed is tried again, and tells why. Returns what is not to be waited out: what the verifier
    /// itself found, a disk that can't be written, and whatever lasts for longer than the patience.
    async fn wait_out(&self, part: Component, failure: Failure) -> Option<Failure> {
        if matches!(failure.code, ErrorCode::VerificationFailed | ErrorCode::LocalStorage | ErrorCode::Fenced) {
            return Some(failure);
        }
        let told = Failure::new(failure.code, format!("the verifier can't continue: {}", failure.message));
        let waited = self.inner.tracker.record_failure(part, &told);
        if waited >= self.inner.patience {
            return Some(failure);
        }
        tracing::warn!(%failure, waited_seconds = waited.as_secs(), "the verifier tries again");
        tokio::time::sleep((waited / 4).clamp(Duration::from_millis(200), LONGEST_PAUSE)).await;
        None
    }

    /// Where everything is now. What an earlier try within this run didn't know is compared as a whole.
    pub fn reload_collections(&self, registry: &mut CollectionMap) -> Result<(), Failure> {
        let former = std::mem::take(&mut self.state().pairs);
        registry.touch_all();
        self.refresh_collections(registry)?;
        if !former.is_empty() {
            let now: Vec<Uuid> = self.state().pairs.keys().copied().collect();
            now.into_iter().filter(|uuid| !former.contains_key(uuid)).try_for_each(|uuid| self.doubt(uuid))?;
        }
        Ok(())
    }

    /// Definitions changed: where that is now which they touched. There may be thousands of others.
    pub fn refresh_collections(&self, registry: &mut CollectionMap) -> Result<(), Failure> {
        registry.take_doubtful().into_iter().try_for_each(|uuid| self.doubt(uuid))?;
        let touched = registry.take_touched();
        let mut state = self.state();
        for uuid in touched {
            let target = registry.by_uuid(uuid);
            match target.filter(|own| registry.by_name(&own.ns).is_some_and(|named| named.uuid == own.uuid)) {
                Some(target) => state.pairs.insert(uuid, CollectionPair::of_target(&target)),
                None => state.pairs.remove(&uuid),
            };
        }
        state.definitions += 1;
        state.defining = false;
        Ok(())
    }

    /// Definitions are about to change; [`Self::learn`] says when they have.
    pub fn definitions_change(&self) {
        self.state().defining = true;
    }

    /// A document was written again: from now on it may be looked at again.
    pub fn repaired(&self, repair: &Repair) -> Result<(), Failure> {
        self.inner.notes.confirm(&repair.entry.key)?;
        self.inner.notes.dirty.conclude(&repair.entry, true).map(drop)
    }

    /// Changes are about to be written.
    pub fn mark<'a>(&self, ops: impl IntoIterator<Item = &'a DocumentWrite>) -> Result<(), Failure> {
        let mut touched = None;
        let mut documents = Vec::new();
        for op in ops {
            let Some(uuid) = op.target.uuid else { continue };
            if touched != Some(uuid) {
                self.inner.notes.touch(uuid)?;
                touched = Some(uuid);
            }
            documents.push((dirty_set::key(uuid, &id_lookup::key(&op.id)), op.id.as_ref()));
        }
        self.inner.notes.dirty.mark_all(documents, now())
    }

    /// A collection was copied again.
    pub fn renewed(&self, uuid: Uuid) -> Result<(), Failure> {
        let mut state = self.state();
        if let Some(pair) = state.pairs.get(&uuid).map(|pair| pair.destination.clone()) {
            state.differing.remove(&pair);
        }
        drop(state);
        self.inner.notes.touch(uuid)
    }

    /// Everything that the source wrote up to `time` is applied.
    pub fn applied(&self, time: Timestamp) {
        self.inner.applied.send_if_modified(|held| std::mem::replace(held, (*held).max(time)) < time);
    }

    /// Waits until everything that the source wrote up to `time` is applied.
    pub async fn wait_for(&self, time: Timestamp) {
        let _ = self.inner.applied.subscribe().wait_for(|applied| *applied >= time).await;
    }

    /// Makes the marks so far outlive a power failure; before the checkpoint passes the changes that they stand for.
    pub fn sync(&self) -> Result<(), Failure> {
        self.inner.notes.dirty.sync()
    }

    /// Tells the lag, so that verifying never adds to it.
    pub fn set_lag(&self, lag_seconds: i64) {
        self.inner.held.send_replace(false);
        let room = lag_seconds <= MOST_LAG_SECONDS;
        self.inner.may_run.send_if_modified(|held| std::mem::replace(held, room) != room);
        let dirty = self.inner.notes.dirty.len();
        self.inner.tracker.update(|p| p.documents_dirty = dirty);
    }

    /// Whether everything was gone over once, since then whatever was in doubt, and little is left to be looked at in a write pause.
    pub fn is_ready(&self) -> Result<bool, Failure> {
        let notes = &self.inner.notes;
        let all_compared = notes.passes()? > 0 && !notes.owes_a_pass()? && !self.is_in_doubt()?;
        Ok(all_compared && notes.dirty.len() <= MOST_DIRTY)
    }

    /// Whether everything has to be compared again before anything can be said.
    pub fn owes_a_pass(&self) -> Result<bool, Failure> {
        self.inner.notes.owes_a_pass()
    }

    /// Whether a cutover that was ordered at `since` is to wait until less is left to look at, so that its write pause
    /// stays short. For a time only: where changes come faster than they are looked at, waiting gains nothing.
    pub fn rest_is_awaited(&self, since: Instant) -> Result<bool, Failure> {
        Ok(!self.is_ready()? && since.elapsed() < AWAITED)
    }

    /// Bytes on the disk of what waits to be looked at; there are bounds to it, beyond which everything is compared
    /// again instead.
    pub fn disk_bytes(&self) -> Result<u64, Failure> {
        let dirty = &self.inner.notes.dirty;
        if dirty.bytes() > self.inner.most_bytes {
            tracing::warn!(documents = dirty.len(), "too many documents wait to be checked: all are compared again");
            self.inner.notes.owe_a_pass()?;
        }
        Ok(dirty.bytes())
    }

    /// How often everything was gone over.
    pub fn passes(&self) -> Result<u64, Failure> {
        self.inner.notes.passes()
    }

    /// What is to be written again; what ended the verifier, if anything did.
    pub fn take_repairs(&self) -> Result<Vec<Repair>, Failure> {
        let mut state = self.state();
        match state.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut state.repairs)),
        }
    }

    /// Documents that are still to be looked at, and how long that takes at the cutover, about.
    pub fn outstanding(&self) -> (u64, Duration) {
        let dirty = self.inner.notes.dirty.len();
        // Measured: about 20,000 documents a second are looked up on both sides.
        (dirty, Duration::from_millis(dirty / 20))
    }

    /// What was found of each collection when it was compared as a whole last.
    pub fn found(&self) -> Result<Vec<(Namespace, Option<Found>)>, Failure> {
        let mut pairs = self.pairs();
        pairs.sort_by(|a, b| a.destination.cmp(&b.destination));
        pairs.into_iter().map(|pair| Ok((pair.destination.clone(), self.inner.notes.found_of(&pair)?))).collect()
    }

    /// The first documents that were repaired.
    pub fn repaired_first(&self) -> Result<Vec<Repaired>, Failure> {
        self.inner.notes.first_repaired(100)
    }

    /// Holds the verifier's own work up, and waits until it rests.
    pub async fn suspend(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.may_run.send_replace(false);
        self.inner.held.send_replace(true);
        let round = self.inner.round.lock().await;
        let _ = self.inner.scan_rests.subscribe().wait_for(|rests| *rests).await;
        round
    }

    /// Every collection that is replicated.
    pub fn pairs(&self) -> Vec<CollectionPair> {
        self.state().pairs.values().cloned().collect()
    }
}

pub(super) fn now() -> u32 {
    (limosa_model::Timestamp::now().0 / 1000) as u32
}
