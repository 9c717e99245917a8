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

use super::{
    dirty::{self, Entry},
    lookup,
    notes::{Found, Notes, Repaired},
    scan::{Ends, Pair},
};
use crate::{
    apply::{coalesce::Op, registry::Registry},
    catalog::{self, Uuid},
    progress::Tracker,
};
use bson::{RawDocumentBuf, Timestamp};
use limosa_model::{
    ErrorCode, Failure, Namespace,
    verification::{Departure, Difference},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// For how long a document has to be quiet before it is looked at.
const QUIET_SECONDS: u32 = 2;

/// Documents looked at in one round.
const ROUND: usize = 10_000;

/// How often quiet documents are looked for.
const ROUND_EVERY: Duration = Duration::from_millis(250);

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
    pub(super) ends: Ends,
    pub(super) notes: Notes,
    pub(super) tracker: Tracker,
    state: Mutex<State>,
    /// Everything of the source up to here is applied.
    pub(super) applied: watch::Sender<Timestamp>,
    /// Whether there is room for verifying.
    pub(super) may_run: watch::Sender<bool>,
    /// Whether the scan is held up, or has nothing to do.
    pub(super) scan_rests: watch::Sender<bool>,
    /// Something is in doubt.
    pub(super) doubted: tokio::sync::Notify,
    /// Held during a round of looking at dirty documents.
    round: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// Where the source's collections are now.
    pub(super) pairs: HashMap<Uuid, Pair>,
    /// Grows with every change of definitions: what was seen across one doesn't count.
    definitions: u64,
    /// Whether one is changing just now.
    defining: bool,
    /// Collections that lose documents by themselves.
    expiring: HashSet<Namespace>,
    /// Capped collections whose documents stand in another order than the source's, and which of them.
    pub(super) out_of_order: BTreeMap<Namespace, String>,
    repairs: Vec<Repair>,
    failure: Option<Failure>,
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
    pub fn open(ends: Ends, dir: &Path, id: Option<&str>, tracker: &Tracker) -> Result<(Self, String), Failure> {
        let (notes, id) = Notes::open(dir, id)?;
        let (passes, repairs) = (notes.passes()?, notes.repairs()?);
        tracker.count(|p| (p.verification_passes, p.documents_repaired) = (passes, repairs));
        let inner = Inner {
            ends,
            notes,
            tracker: tracker.clone(),
            state: Mutex::default(),
            applied: watch::Sender::new(Timestamp { time: 0, increment: 0 }),
            may_run: watch::Sender::new(false),
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
        {
            let mut state = self.state();
            state.repairs.clear();
            state.failure = None;
        }
        let mut tasks = JoinSet::new();
        let (scanning, looking) = (self.clone(), self.clone());
        tasks.spawn(async move { scanning.until_it_fails(async |v| v.pass_after_pass().await).await });
        tasks.spawn(async move { looking.until_it_fails(async |v| v.round_after_round().await).await });
        Tasks(tasks)
    }

    async fn until_it_fails(&self, work: impl AsyncFnOnce(&Self) -> Failure) {
        let failure = work(self).await;
        tracing::error!(%failure, "the verifier ended");
        self.inner.scan_rests.send_replace(true);
        self.state().failure.get_or_insert(failure);
    }

    /// Where everything is now. What an earlier try within this run didn't know is compared as a whole.
    pub fn know(&self, registry: &mut Registry) -> Result<(), Failure> {
        let former = std::mem::take(&mut self.state().pairs);
        registry.touch_all();
        self.learn(registry)?;
        if !former.is_empty() {
            let now: Vec<Uuid> = self.state().pairs.keys().copied().collect();
            now.into_iter().filter(|uuid| !former.contains_key(uuid)).try_for_each(|uuid| self.doubt(uuid))?;
        }
        Ok(())
    }

    /// Definitions changed: where that is now which they touched. There may be thousands of others.
    pub fn learn(&self, registry: &mut Registry) -> Result<(), Failure> {
        registry.take_doubtful().into_iter().try_for_each(|uuid| self.doubt(uuid))?;
        let touched = registry.take_touched();
        let mut state = self.state();
        for uuid in touched {
            let target = registry.by_uuid(uuid);
            match target.filter(|own| registry.by_name(&own.ns).is_some_and(|named| named.uuid == own.uuid)) {
                Some(target) => state.pairs.insert(uuid, Pair::of_target(&target)),
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
        self.inner.notes.dirty.settle(&repair.entry, true).map(drop)
    }

    /// Changes are about to be written.
    pub fn mark<'a>(&self, ops: impl IntoIterator<Item = &'a Op>) -> Result<(), Failure> {
        let mut touched = None;
        let mut documents = Vec::new();
        for op in ops {
            let Some(uuid) = op.target.uuid else { continue };
            if touched != Some(uuid) {
                self.inner.notes.touch(uuid)?;
                touched = Some(uuid);
            }
            documents.push((dirty::key(uuid, &lookup::key(&op.id)), op.id.as_ref()));
        }
        self.inner.notes.dirty.mark_all(documents, now())
    }

    /// A collection was copied anew.
    pub fn renewed(&self, uuid: Uuid) -> Result<(), Failure> {
        self.inner.notes.touch(uuid)
    }

    /// Everything that the source wrote up to `time` is applied.
    pub fn applied(&self, time: Timestamp) {
        self.inner.applied.send_if_modified(|held| std::mem::replace(held, (*held).max(time)) < time);
    }

    /// Makes the marks so far outlive a power failure; before the checkpoint passes the changes that they stand for.
    pub fn sync(&self) -> Result<(), Failure> {
        self.inner.notes.dirty.sync()
    }

    /// Tells the lag, so that verifying never adds to it.
    pub fn pace(&self, lag_seconds: i64) {
        let room = lag_seconds <= MOST_LAG_SECONDS;
        self.inner.may_run.send_if_modified(|held| std::mem::replace(held, room) != room);
        let dirty = self.inner.notes.dirty.len();
        self.inner.tracker.count(|p| p.documents_dirty = dirty);
    }

    /// Whether everything was gone over once, and since then whatever was in doubt.
    pub fn has_passed(&self) -> Result<bool, Failure> {
        Ok(self.inner.notes.passes()? > 0 && !self.is_in_doubt()?)
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
    pub async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.may_run.send_replace(false);
        let round = self.inner.round.lock().await;
        let _ = self.inner.scan_rests.subscribe().wait_for(|rests| *rests).await;
        round
    }

    /// Looks at everything that is still dirty, however lately it was changed: for when all is applied and the source
    /// rests. Returns what has to be written again; none: all is clean.
    pub async fn look_at_the_rest(&self) -> Result<Vec<Repair>, Failure> {
        let mut repairs = Vec::new();
        loop {
            let taken = self.inner.notes.dirty.take(ROUND, u32::MAX)?;
            if taken.is_empty() {
                return Ok(repairs);
            }
            let definitions = self.state().definitions;
            for (pair, entries) in self.by_pair(taken)? {
                let source = self.sources(&pair, &entries).await?;
                repairs.extend(self.judge(&pair, &entries, &source, definitions, true).await?);
            }
            if !repairs.is_empty() {
                return Ok(repairs);
            }
        }
    }

    // Looking again.

    async fn round_after_round(&self) -> Failure {
        let mut tick = tokio::time::interval(ROUND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let _ = self.inner.may_run.subscribe().wait_for(|may| *may).await;
            let _round = self.inner.round.lock().await;
            loop {
                match self.look_at_the_quiet().await {
                    Ok(0) => break,
                    Ok(_) if *self.inner.may_run.borrow() => {}
                    Ok(_) => break,
                    Err(failure) if failure.code.is_transient() => {
                        tracing::debug!(%failure, "looking at documents again");
                        break;
                    }
                    Err(failure) => return failure,
                }
            }
        }
    }

    /// Looks at documents that have been quiet; how many there were.
    async fn look_at_the_quiet(&self) -> Result<usize, Failure> {
        let taken = self.inner.notes.dirty.take(ROUND, now().saturating_sub(QUIET_SECONDS))?;
        if taken.is_empty() {
            return Ok(0);
        }
        let count = taken.len();
        let definitions = self.state().definitions;
        let looked = self.look(taken.clone(), definitions).await;
        if !matches!(looked, Ok(true)) {
            for entry in &taken {
                self.inner.notes.dirty.put_back(entry);
            }
        }
        match looked {
            Ok(true) => Ok(count),
            Ok(false) => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// `false` if it was held up before everything was judged.
    async fn look(&self, taken: Vec<Entry>, definitions: u64) -> Result<bool, Failure> {
        let mut read = Vec::new();
        for (pair, entries) in self.by_pair(taken)? {
            let source = self.sources(&pair, &entries).await?;
            read.push((pair, entries, source));
        }
        let (_, until) = self.inner.ends.source.optimes().await?;
        let (mut applied, mut may_run) = (self.inner.applied.subscribe(), self.inner.may_run.subscribe());
        tokio::select! {
            _ = applied.wait_for(|applied| *applied >= until) => {}
            _ = may_run.wait_for(|may| !*may) => return Ok(false),
        }
        for (pair, entries, source) in read {
            let repairs = self.judge(&pair, &entries, &source, definitions, false).await?;
            self.state().repairs.extend(repairs);
        }
        Ok(true)
    }

    /// The documents by collection. Those of a collection that replication doesn't know any more are gone with it.
    fn by_pair(&self, taken: Vec<Entry>) -> Result<Vec<(Pair, Vec<Entry>)>, Failure> {
        let known = self.state().pairs.clone();
        let mut groups: BTreeMap<Uuid, Vec<Entry>> = BTreeMap::new();
        for entry in taken {
            if known.contains_key(&entry.uuid()) {
                groups.entry(entry.uuid()).or_default().push(entry);
            } else {
                self.inner.notes.dirty.settle(&entry, true)?;
            }
        }
        Ok(groups.into_iter().filter_map(|(uuid, entries)| Some((known.get(&uuid)?.clone(), entries))).collect())
    }

    /// What the source has of these documents; `None` if the collection isn't there under this name.
    async fn sources(
        &self,
        pair: &Pair,
        entries: &[Entry],
    ) -> Result<Option<HashMap<Vec<u8>, lookup::Digest>>, Failure> {
        let source = &self.inner.ends.source;
        let mut ns = pair.source.clone();
        for _ in 0..2 {
            let ids: Vec<RawDocumentBuf> = entries.iter().map(|e| e.id.clone()).collect();
            let uuid = self.inner.ends.collection_uuid(pair);
            let found = lookup::digests(source, &ns, uuid, &ids).await.map_err(|e| source.failure(&e))?;
            // The name is the destination's; on the source it may have changed already.
            let Some(uuid) = pair.uuid else { return Ok(Some(found)) };
            match catalog::find_by_uuid(source, &ns, uuid).await? {
                Some(entry) if entry.ns == ns => return Ok(Some(found)),
                Some(entry) => ns = entry.ns,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Holds the destination against what was read of the source, and settles each document that nothing touched
    /// meanwhile. `at_rest`: everything is applied, and nobody should write to the source. Returns what has to be
    /// repaired.
    async fn judge(
        &self,
        pair: &Pair,
        entries: &[Entry],
        source: &Option<HashMap<Vec<u8>, lookup::Digest>>,
        definitions: u64,
        at_rest: bool,
    ) -> Result<Vec<Repair>, Failure> {
        let (destination, dirty) = (&self.inner.ends.destination, &self.inner.notes.dirty);
        let ids: Vec<RawDocumentBuf> = entries.iter().map(|e| e.id.clone()).collect();
        let found = lookup::digests(destination, &pair.destination, None, &ids).await;
        let found = found.map_err(|e| destination.failure(&e))?;
        let across = {
            let state = self.state();
            state.defining || state.definitions != definitions
        };
        let mut repairs = Vec::new();
        for entry in entries {
            let key = lookup::key(&entry.id);
            let seen = source.as_ref().map(|source| lookup::Seen {
                source: source.get(&key).copied(),
                destination: found.get(&key).copied(),
            });
            match seen {
                Some(seen) if !across => match seen.departure() {
                    Some(departure) if !dirty.is_marked(entry) && !self.is_excused(pair, departure) => {
                        repairs.push(self.mismatch(pair, entry, departure).await?);
                    }
                    _ => drop(dirty.settle(entry, true)?),
                },
                // All is applied, and yet it isn't on the source: it was dropped since, which is a late change by itself.
                None if at_rest => drop(dirty.settle(entry, true)?),
                // Dropped or renamed on the source, or here while it was looked at: once more, later.
                _ => {
                    dirty.settle(entry, false)?;
                    dirty.mark(entry.key, &entry.id, now())?;
                }
            }
        }
        Ok(repairs)
    }

    /// Documents of these collections may go from the destination at any time, by their expiry.
    pub fn excuse(&self, expiring: HashSet<Namespace>) {
        self.state().expiring = expiring;
    }

    /// Before 5.0 a capped collection's oldest documents go without an event, on each side in its own time; so do those
    /// that expire where expiry isn't put off.
    fn is_excused(&self, pair: &Pair, departure: Departure) -> bool {
        let capped = pair.is_capped && departure == Departure::Extra && self.inner.ends.source.level < (5, 0);
        let expired = matches!(departure, Departure::Missing | Departure::Extra);
        capped || expired && self.state().expiring.contains(&pair.destination)
    }

    /// A document that nobody but somebody else can have changed.
    async fn mismatch(&self, pair: &Pair, entry: &Entry, departure: Departure) -> Result<Repair, Failure> {
        let told = lookup::explain(&self.inner.ends, pair, &entry.id).await.ok().flatten();
        let shown = bson::Document::try_from(entry.id.as_ref()).unwrap_or_default().remove("_id");
        let shown = shown.unwrap_or(bson::Bson::Null).into_relaxed_extjson();
        let told = told.unwrap_or(Difference { id: shown, departure, path: None });
        let at = told.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
        let what = format!("{} _id {}{at}: {}", pair.destination, told.id, told.departure.words());
        let repaired = Repaired {
            ns: pair.destination.to_string(),
            difference: bson::serialize_to_document(&told).unwrap_or_default(),
        };
        // Before 6.0 what is written to a time-series collection isn't in the stream: it comes this way alone.
        let unseen = self.inner.ends.source.level < (6, 0) && pair.source.coll.starts_with(catalog::BUCKETS);
        if !self.inner.notes.repair(&entry.key, &repaired)? && !unseen {
            self.inner.notes.fail()?;
            return Err(Failure::new(
                ErrorCode::VerificationFailed,
                format!("a document differs again after it was repaired: {what}"),
            ));
        }
        tracing::warn!("a document differs and is read again from the source: {what}");
        let repairs = self.inner.notes.repairs()?;
        self.inner.tracker.count(|p| p.documents_repaired = repairs);
        Ok(Repair { uuid: entry.uuid(), entry: entry.clone() })
    }

    /// Every collection that is replicated.
    pub fn pairs(&self) -> Vec<Pair> {
        self.state().pairs.values().cloned().collect()
    }
}

pub(super) fn now() -> u32 {
    (limosa_model::Timestamp::now().0 / 1000) as u32
}
