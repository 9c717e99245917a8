//! Looks at single documents: those that a change was applied to, once they are quiet, and at the cutover at all that are
//! left.

use crate::{
    component::Component,
    mongo::{
        catalog::{self, Uuid},
        raw_value,
    },
    verify::{
        collection_pair::{ClusterPair, CollectionPair, Place},
        dirty_set::Entry,
        id_lookup,
        online::{Repair, Verifier, now},
        state::Repaired,
    },
};
use bson::RawDocumentBuf;
use limosa_model::{
    ErrorCode, Failure, Namespace,
    verification::{Difference, DifferenceKind},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

/// For how long a document has to be quiet before it is looked at.
const QUIET_SECONDS: u32 = 2;

/// Documents looked at in one round.
const ROUND: usize = 10_000;

/// How often quiet documents are looked for.
const ROUND_EVERY: Duration = Duration::from_millis(250);

/// At what time documents are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    First,
    /// They differed the first time.
    Second,
    /// Everything is applied, and nobody should write to the source.
    AtRest,
}

/// What came of it.
#[derive(Default)]
struct Judged {
    repairs: Vec<Repair>,
    /// They differ, which has to be seen once more. They stay in hand.
    doubtful: Vec<Entry>,
}

impl Verifier {
    /// Looks at everything that is still dirty, however lately it was changed: for when all is applied and the source
    /// rests. Returns what has to be written again; none: all is clean.
    pub async fn verify_remaining(&self) -> Result<Vec<Repair>, Failure> {
        let mut repairs = Vec::new();
        loop {
            let taken = self.inner.notes.dirty.take(ROUND, u32::MAX)?;
            if taken.is_empty() {
                return Ok(repairs);
            }
            let definitions = self.state().definitions;
            let ends = self.inner.ends.at_once();
            for (pair, entries) in self.by_pair(taken)? {
                let source = self.sources(&ends, &pair, &entries).await?;
                repairs
                    .extend(Box::pin(self.judge(&pair, &entries, &source, definitions, Look::AtRest)).await?.repairs);
            }
            if !repairs.is_empty() {
                return Ok(repairs);
            }
        }
    }

    pub(super) async fn recheck_loop(&self) -> Failure {
        let mut tick = tokio::time::interval(ROUND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let _ = self.inner.may_run.subscribe().wait_for(|may| *may).await;
            let _round = self.inner.round.lock().await;
            loop {
                match self.look_at_the_quiet().await {
                    Ok(looked) => {
                        self.inner.tracker.clear_failure(Component::Look);
                        if looked == 0 || !*self.inner.may_run.borrow() {
                            break;
                        }
                    }
                    Err(failure) => return failure,
                }
            }
        }
    }

    /// Looks at documents that have been quiet; how many there were.
    async fn look_at_the_quiet(&self) -> Result<usize, Failure> {
        let taken = self.inner.notes.dirty.take_some(ROUND, now().saturating_sub(QUIET_SECONDS))?;
        if taken.is_empty() {
            return Ok(0);
        }
        let count = taken.len();
        let definitions = self.state().definitions;
        let mut held = self.inner.held.subscribe();
        let looked = tokio::select! {
            biased;
            _ = held.wait_for(|held| *held) => Ok(false),
            looked = Box::pin(self.look(taken.clone(), definitions)) => looked,
        };
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

    /// `false` if it was held up before everything was judged. A difference counts only if it is there a second time: a
    /// document may have been read again for a change before this one's, and be newer on the destination than what was
    /// read here. By the second time that newer change has been applied, and has left its mark.
    async fn look(&self, taken: Vec<Entry>, definitions: u64) -> Result<bool, Failure> {
        let mut groups = self.by_pair(taken)?;
        for look in [Look::First, Look::Second] {
            let (_, since) = self.inner.ends.source.optimes().await?;
            let ends = self.inner.ends.since(since);
            let mut read = Vec::new();
            for (pair, entries) in groups {
                ends.source.reads.throttle.may_read().await;
                let source = self.sources(&ends, &pair, &entries).await?;
                read.push((pair, entries, source));
            }
            let (_, until) = self.inner.ends.source.optimes().await?;
            let (mut applied, mut may_run) = (self.inner.applied.subscribe(), self.inner.may_run.subscribe());
            tokio::select! {
                _ = applied.wait_for(|applied| *applied >= until) => {}
                _ = may_run.wait_for(|may| !*may) => return Ok(false),
            }
            groups = Vec::new();
            for (pair, entries, source) in read {
                let judged = Box::pin(self.judge(&pair, &entries, &source, definitions, look)).await?;
                self.state().repairs.extend(judged.repairs);
                if !judged.doubtful.is_empty() {
                    groups.push((pair, judged.doubtful));
                }
            }
            if groups.is_empty() {
                break;
            }
        }
        Ok(true)
    }

    /// The documents by collection. Those of a collection that replication doesn't know any more are gone with it.
    fn by_pair(&self, taken: Vec<Entry>) -> Result<Vec<(CollectionPair, Vec<Entry>)>, Failure> {
        let known = self.state().pairs.clone();
        let mut groups: BTreeMap<Uuid, Vec<Entry>> = BTreeMap::new();
        for entry in taken {
            if known.contains_key(&entry.uuid()) {
                groups.entry(entry.uuid()).or_default().push(entry);
            } else {
                self.inner.notes.dirty.conclude(&entry, true)?;
            }
        }
        Ok(groups.into_iter().filter_map(|(uuid, entries)| Some((known.get(&uuid)?.clone(), entries))).collect())
    }

    /// What the source has of these documents; `None` if the collection isn't there under this name.
    async fn sources(
        &self,
        ends: &ClusterPair,
        pair: &CollectionPair,
        entries: &[Entry],
    ) -> Result<Option<HashMap<Vec<u8>, id_lookup::Digest>>, Failure> {
        let source = &ends.source;
        let mut place = ends.source_of(pair);
        for _ in 0..2 {
            let ids: Vec<RawDocumentBuf> = entries.iter().map(|e| e.id.clone()).collect();
            let found = id_lookup::digests(source, &place, &ids).await.map_err(|e| source.failure(&e))?;
            // The name is the destination's; on the source it may have changed already.
            let Some(uuid) = pair.uuid else { return Ok(Some(found)) };
            match catalog::find_by_uuid(source, &place.ns, uuid).await? {
                Some(entry) if entry.ns == place.ns => return Ok(Some(found)),
                Some(entry) => place.ns = entry.ns,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Holds the destination against what was read of the source, and settles each document that nothing touched
    /// meanwhile.
    async fn judge(
        &self,
        pair: &CollectionPair,
        entries: &[Entry],
        source: &Option<HashMap<Vec<u8>, id_lookup::Digest>>,
        definitions: u64,
        look: Look,
    ) -> Result<Judged, Failure> {
        let (destination, dirty) = (&self.inner.ends.destination, &self.inner.notes.dirty);
        let ids: Vec<RawDocumentBuf> = entries.iter().map(|e| e.id.clone()).collect();
        let found = id_lookup::digests(destination, &Place::of(&pair.destination), &ids).await;
        let found = found.map_err(|e| destination.failure(&e))?;
        let across = {
            let state = self.state();
            state.defining || state.definitions != definitions
        };
        let mut judged = Judged::default();
        for entry in entries {
            let key = id_lookup::key(&entry.id);
            let seen = source.as_ref().map(|source| id_lookup::Seen {
                source: source.get(&key).copied(),
                destination: found.get(&key).copied(),
            });
            match seen {
                Some(seen) if !across => match seen.departure() {
                    Some(departure) if !dirty.is_marked(entry) && !self.is_excused(pair, departure, look) => match look
                    {
                        Look::First => judged.doubtful.push(entry.clone()),
                        Look::Second | Look::AtRest => {
                            judged.repairs.push(self.mismatch(pair, entry, departure).await?);
                        }
                    },
                    _ => drop(dirty.conclude(entry, true)?),
                },
                // All is applied, and yet it isn't on the source: it was dropped since, which is a late change by itself.
                None if look == Look::AtRest => drop(dirty.conclude(entry, true)?),
                // Dropped or renamed on the source, or here while it was looked at: once more, later.
                _ => {
                    dirty.conclude(entry, false)?;
                    dirty.mark(entry.key, &entry.id, now())?;
                }
            }
        }
        Ok(judged)
    }

    /// Documents of these collections may go from the destination at any time, by their expiry.
    pub fn allow_expiry(&self, expiring: HashSet<Namespace>) {
        self.state().expiring = expiring;
    }

    /// Before 5.0 a capped collection's oldest documents go without an event, on each side in its own time. Documents that
    /// expire where expiry isn't put off go without an event too.
    fn is_excused(&self, pair: &CollectionPair, departure: DifferenceKind, look: Look) -> bool {
        if pair.is_capped && departure == DifferenceKind::Value && look != Look::AtRest {
            return self.is_put_off(pair);
        }
        let capped = pair.is_capped
            && departure == DifferenceKind::Extra
            && !self.inner.ends.source.can().replicate_capped_deletions();
        let expired = matches!(departure, DifferenceKind::Missing | DifferenceKind::Extra);
        capped || expired && self.state().expiring.contains(&pair.destination)
    }

    /// Before 6.0 a capped collection may have been made where another collection's documents came, which can't change
    /// their size. The cutover compares it as a whole and copies it again; until then it is known to differ.
    fn is_put_off(&self, pair: &CollectionPair) -> bool {
        let is_put_off = !self.inner.ends.source.can().show_expanded_events();
        if is_put_off && self.state().differing.insert(pair.destination.clone()) {
            tracing::warn!(ns = %pair.destination, "a capped collection differs; a cutover copies it again");
        }
        is_put_off
    }

    /// A document that nobody but somebody else can have changed.
    async fn mismatch(
        &self,
        pair: &CollectionPair,
        entry: &Entry,
        departure: DifferenceKind,
    ) -> Result<Repair, Failure> {
        let told = Box::pin(id_lookup::explain(&self.inner.ends, pair, &entry.id)).await.ok().flatten();
        let shown = raw_value::shown_id(&entry.id).into_relaxed_extjson();
        let told = told.unwrap_or(Difference { id: shown, departure, path: None });
        let at = told.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
        let what = format!("{} _id {}{at}: {}", pair.destination, told.id, told.departure.words());
        let repaired = Repaired {
            ns: pair.destination.to_string(),
            difference: bson::serialize_to_document(&told).unwrap_or_default(),
        };
        // Before 6.0 what is written to a time-series collection isn't in the stream: it comes this way alone.
        let unseen =
            !self.inner.ends.source.can().show_time_series_events() && pair.source.coll.starts_with(catalog::BUCKETS);
        if !self.inner.notes.record_repair(&entry.key, &repaired)? && !unseen {
            self.inner.notes.fail()?;
            return Err(Failure::new(
                ErrorCode::VerificationFailed,
                format!("a document differs again after it was repaired: {what}"),
            ));
        }
        tracing::warn!("a document differs and is read again from the source: {what}");
        let repairs = self.inner.notes.repairs()?;
        self.inner.tracker.update(|p| p.documents_repaired = repairs);
        Ok(Repair { uuid: entry.uuid(), entry: entry.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EngineReport, Metrics, Tuning,
        mongo::{cluster::Cluster, side::Side},
        progress::ProgressTracker,
        verify::dirty_set,
    };
    use bson::{Document, Timestamp, doc, rawdoc};
    use limosa_model::Secret;
    use limosa_testkit::ReplicaSet;
    use mongodb::Client;
    use std::{
        future::{Future, poll_fn},
        pin::{Pin, pin},
        task::Poll,
    };

    const ALL: Timestamp = Timestamp { time: u32::MAX, increment: 1 };

    async fn set(client: &Client, value: i32) {
        let coll = client.database("app").collection::<Document>("c");
        coll.update_one(doc! {"_id": 1}, doc! {"$set": {"v": value}}).upsert(true).await.expect("writes");
    }

    /// Continues until the look waits for changes to be applied, or no longer does, or has ended.
    async fn until_it_waits<T>(verifier: &Verifier, waits: bool, mut looking: Pin<&mut impl Future<Output = T>>) {
        poll_fn(|context| {
            let ended = looking.as_mut().poll(context).is_ready();
            assert!(!ended, "it has judged by what it saw once");
            match (verifier.inner.applied.receiver_count() > 0) == waits {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// A window of changes is marked and waits to be written, so that its document counts as quiet. Read again for one of
    /// them, that is then newer than what was looked at on the source.
    #[tokio::test]
    async fn what_a_refetch_saw_of_the_future_is_no_difference() {
        let (a, b) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
        let (a, b) = (a.expect("starts"), b.expect("starts"));
        let (from, to) = (a.client().await, b.client().await);
        set(&from, 1).await;
        set(&to, 1).await;
        let connect = async |side, set: &ReplicaSet| Cluster::connect(side, &Secret::new(set.uri())).await;
        let source = connect(Side::Source, &a).await.expect("connects");
        let ends = ClusterPair::new(source.clone(), connect(Side::Destination, &b).await.expect("connects"));
        let dir = tempfile::tempdir().expect("a directory");
        let tracker = ProgressTracker::new(tokio::sync::watch::Sender::new(EngineReport::begin()), Metrics::default());
        let (verifier, _) = Verifier::open(ends, dir.path(), None, &tracker, &Tuning::default()).expect("opens");
        let entry = catalog::find(&source, &Namespace::new("app", "c")).await.expect("lists").expect("is there");
        let uuid = entry.uuid.expect("has one");
        verifier.state().pairs.insert(uuid, CollectionPair::of(&entry, &entry.ns));
        verifier.set_lag(0);
        let (set_dirty, id) = (&verifier.inner.notes.dirty, rawdoc! {"_id": 1});
        // What a re-fetch did; what somebody else did.
        for (on_the_source, repairs) in [(true, 0), (false, 1)] {
            set_dirty.mark(dirty_set::key(uuid, &id_lookup::key(&id)), &id, 100).expect("marks");
            let taken = set_dirty.take(1, 100).expect("takes");
            assert_eq!(taken.len(), 1);
            let mut looking = pin!(verifier.look(taken, 0));
            until_it_waits(&verifier, true, looking.as_mut()).await;
            let (_, seen) = source.optimes().await.expect("answers");
            if on_the_source {
                set(&from, 2).await;
            }
            set(&to, if on_the_source { 2 } else { 3 }).await;
            verifier.applied(seen);
            until_it_waits(&verifier, false, looking.as_mut()).await;
            assert!(verifier.state().repairs.is_empty(), "it differed once");
            until_it_waits(&verifier, true, looking.as_mut()).await;
            verifier.applied(ALL);
            assert_eq!(looking.await, Ok(true));
            assert_eq!(verifier.state().repairs.len(), repairs);
            verifier.inner.applied.send_replace(seen);
        }
    }
}
