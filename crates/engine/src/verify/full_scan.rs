//! The verifier's scan beside replication: pass after pass over everything, held up whenever the lag grows; and the
//! comparisons of whole collections at the cutover.

use crate::{
    component::Component,
    copy::plan,
    mongo::{
        catalog::{self, Uuid},
        cluster::Cluster,
        raw_bson::as_i64,
    },
    retry::Backoff,
    verify::{
        capped_order,
        collection_pair::{self, ClusterPair, CollectionPair, Interval, ScanError, ScanTotals},
        dirty_set, id_lookup,
        online::{Verifier, now},
        state::Range,
    },
};
use bson::{Document, RawDocumentBuf, doc};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use limosa_model::{ErrorCode, Failure, Namespace};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// It rests this many times as long as a pass took, and no less than the second: of the source's time, one fifth at most
/// goes to it, however large the data is.
const REST: u32 = 4;
const LEAST_REST: Duration = Duration::from_secs(2);

/// Collections that are asked for their size at once; no more, since replication continues beside it.
const PLANNED_AT_ONCE: usize = 4;

/// How soon it is asked again whether replication has brought a collection's new name over.
const RENAMED_WITHIN: Duration = Duration::from_millis(200);

/// And for how long.
const BROUGHT_OVER_WITHIN: Duration = Duration::from_secs(60);

/// Collections with no more documents than this are counted in a moment.
const COUNTED_IN_A_MOMENT: i64 = 200_000;

/// How often the servers' own counts are read, at most, until they differ by the same number twice.
const COUNTS_READ: usize = 5;

/// What came of a range.
enum Compared {
    As(ScanTotals),
    /// The collection was dropped or renamed.
    Moved,
}

fn cant_compare(pair: &CollectionPair, why: &str) -> Failure {
    Failure::new(ErrorCode::ServerError, format!("{} can't be compared: {why}", pair.destination))
}

impl Verifier {
    pub(super) async fn scan_loop(&self) -> Failure {
        loop {
            match self.pass().await {
                Ok(took) => {
                    if let Err(failure) = self.rest((took * REST).max(LEAST_REST)).await {
                        return failure;
                    }
                }
                Err(failure) => return failure,
            }
        }
    }

    /// Goes over everything that the last run left, or over everything. Returns the time that it took without waiting.
    async fn pass(&self) -> Result<Duration, Failure> {
        let mut took = Duration::ZERO;
        self.room().await;
        let mut ranges = self.inner.notes.ranges()?;
        // What is in doubt now is compared with everything else; what comes to be in doubt later, out of turn.
        let doubts = if ranges.is_empty() { self.doubts()? } else { Vec::new() };
        if ranges.is_empty() {
            let began = Instant::now();
            // Before anything is read: what is applied from now on may or may not be in what is counted.
            self.inner.notes.begin_pass()?;
            ranges = self.unless_held(|| self.plan()).await?;
            self.inner.notes.plan(&ranges)?;
            took += began.elapsed();
        }
        let number = self.inner.notes.pass()?;
        for range in ranges.iter_mut().filter(|range| range.counted.is_none()) {
            self.compare_doubts(&doubts).await?;
            self.room().await;
            let began = Instant::now();
            if !self.compare(range, number).await? {
                return Ok(Duration::ZERO);
            }
            took += began.elapsed();
        }
        for range in ranges.iter().filter(|range| range.pair.is_capped) {
            self.room().await;
            let began = Instant::now();
            self.unless_held(|| self.look_at_the_order(&range.pair)).await?;
            took += began.elapsed();
        }
        self.inner.scan_rests.send_replace(true);
        let Some(namespaces) = self.inner.notes.end_pass(number)? else { return Ok(Duration::ZERO) };
        let miscounted = std::mem::take(&mut self.state().to_be_miscounted);
        self.state().miscounted = miscounted;
        self.settle_doubts(&doubts)?;
        let passes = self.inner.notes.passes()?;
        self.inner.tracker.update(|p| p.verification_passes = passes);
        self.inner.tracker.clear_failure(Component::Scan);
        tracing::info!(pass = passes, namespaces, "everything was compared");
        Ok(took)
    }

    /// Does `work`, again from its beginning where a cutover came between.
    pub(super) async fn unless_held<T, W: Future<Output = Result<T, Failure>>>(
        &self,
        work: impl Fn() -> W,
    ) -> Result<T, Failure> {
        let mut held = self.inner.held.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = held.wait_for(|held| *held) => {}
                done = Box::pin(work()) => return done,
            }
            self.room().await;
        }
    }

    /// Compares a range, under its collection's new name if it is renamed meanwhile: what goes by the old one counts for
    /// nothing. `false` if the pass is no longer under way.
    async fn compare(&self, range: &mut Range, number: u64) -> Result<bool, Failure> {
        let mut backoff = Backoff::default();
        loop {
            match self.unless_held(|| self.scan_held(&range.pair, &range.interval)).await? {
                Compared::As(counted) => {
                    self.inner.tracker.clear_failure(Component::Scan);
                    range.counted = Some(counted);
                    return self.inner.notes.done(range, number);
                }
                Compared::Moved => match self.where_now(&range.pair).await? {
                    Some(pair) if pair != range.pair => {
                        tracing::debug!(ns = %range.pair.source, now = %pair.source, "compared under its new name");
                        range.pair = pair;
                    }
                    Some(_) if backoff.wait().await => {}
                    Some(pair) => return Err(cant_compare(&pair, "one side has no such collection to read")),
                    None => {
                        self.inner.notes.leave_out(range)?;
                        return Ok(true);
                    }
                },
            }
        }
    }

    /// Where a collection is that is no longer where it was, once replication has brought it there; `None` if it is gone.
    async fn where_now(&self, pair: &CollectionPair) -> Result<Option<CollectionPair>, Failure> {
        let source = &self.inner.ends.source;
        let Some(uuid) = pair.uuid else { return Ok(None) };
        let began = Instant::now();
        while began.elapsed() < BROUGHT_OVER_WITHIN {
            let (known, defining) = {
                let state = self.state();
                (state.pairs.get(&uuid).cloned(), state.defining)
            };
            match known {
                Some(known) => {
                    if let Some(entry) = catalog::find(source, &known.destination).await?
                        && entry.uuid == Some(uuid)
                    {
                        return Ok(Some(CollectionPair::of(&entry, &known.destination)));
                    }
                }
                None if !defining => return Ok(None),
                None => {}
            }
            // The event that tells of it is on its way.
            tokio::time::sleep(RENAMED_WITHIN).await;
            self.room().await;
        }
        Err(cant_compare(pair, "the source has it under another name, and no change event tells of that"))
    }

    pub(super) async fn room(&self) {
        let mut may_run = self.inner.may_run.subscribe();
        loop {
            self.inner.scan_rests.send_replace(true);
            let _ = may_run.wait_for(|may| *may).await;
            self.inner.scan_rests.send_replace(false);
            // Held up in between: whoever did it may have seen the scan at rest.
            if *may_run.borrow() {
                return;
            }
        }
    }

    async fn plan(&self) -> Result<Vec<Range>, Failure> {
        let ends = &self.inner.ends;
        let known: HashMap<Uuid, CollectionPair> = self.state().pairs.clone();
        // What replication doesn't know yet will come through it, each document with its mark.
        let entries = catalog::list(&ends.source, &limosa_model::NamespaceFilter::default()).await?.into_iter();
        let pairs = entries.filter_map(|entry| {
            let at = known.get(&entry.uuid?)?;
            Some(CollectionPair::of(&entry, &at.destination))
        });
        let cut = pairs.map(|pair| async move {
            let size = plan::size(&ends.source, &pair.source).await?;
            let intervals = collection_pair::intervals(&ends.source, &pair, size).await?;
            Ok::<_, Failure>((pair, size, intervals))
        });
        // Most collections of a cluster that has thousands are in one piece, and only asked for their size.
        let mut cut = futures::stream::iter(cut.collect::<Vec<_>>()).buffered(PLANNED_AT_ONCE);
        let (mut ranges, mut documents, mut miscounted) = (Vec::new(), 0, HashMap::new());
        while let Some((pair, size, intervals)) = cut.try_next().await? {
            documents += size.documents as u64;
            if size.documents > COUNTED_IN_A_MOMENT {
                miscounted.extend(self.miscount(&pair).await?);
            }
            for interval in intervals {
                ranges.push(Range { n: ranges.len() as u32, pair: pair.clone(), interval, counted: None });
            }
        }
        self.inner.tracker.update(|p| (p.documents_to_verify, p.documents_verified) = (documents, 0));
        self.state().to_be_miscounted = miscounted;
        Ok(ranges)
    }

    /// By how much the servers' own counts of a collection differ, if they do and it stays the same. Once the pass that
    /// begins now has found the documents equal, that is an error of those counts.
    async fn miscount(&self, pair: &CollectionPair) -> Result<Option<(Uuid, i64)>, Failure> {
        let Some(uuid) = pair.uuid else { return Ok(None) };
        let mut before = None;
        for _ in 0..COUNTS_READ {
            let difference = self.booked_difference(pair).await?;
            if difference == 0 {
                return Ok(None);
            }
            if before.replace(difference) == Some(difference) {
                tracing::debug!(ns = %pair.source, difference, "the servers' own counts differ");
                return Ok(Some((uuid, difference)));
            }
        }
        Ok(None)
    }

    /// Waits, before each pair of replies, until there is room, and for as long as spares the source.
    pub(super) fn held(&self) -> impl Fn() -> BoxFuture<'static, ()> + Send + Sync + use<> {
        let verifier = self.clone();
        let worked_since = Arc::new(Mutex::new(None::<Instant>));
        move || {
            let (verifier, since) = (verifier.clone(), Arc::clone(&worked_since));
            async move {
                let began = since.lock().unwrap_or_else(PoisonError::into_inner).take();
                verifier.room().await;
                verifier.spare(began.map(|began| began.elapsed()).unwrap_or_default()).await;
                *since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            .boxed()
        }
    }

    /// Keeps to the bound on reading the source, and rests as the load level and the clusters' strain ask for.
    async fn spare(&self, worked: Duration) {
        let throttle = &self.inner.ends.source.reads.throttle;
        let mut may_run = self.inner.may_run.subscribe();
        loop {
            tokio::select! {
                () = async {
                    throttle.may_read().await;
                    throttle.rest(worked).await;
                } => return,
                _ = may_run.wait_for(|may| !*may) => {}
            }
            self.room().await;
        }
    }

    async fn scan_held(&self, pair: &CollectionPair, interval: &Interval) -> Result<Compared, Failure> {
        let mut backoff = Backoff::default();
        loop {
            let ends = self.inner.ends.since(*self.inner.applied.borrow());
            match self.scan(&ends, pair, interval, &self.held()).await {
                Ok(_) if !self.is_still_there(pair).await? => return Ok(Compared::Moved),
                Ok(counted) => {
                    self.inner.tracker.update(|p| p.documents_verified += counted.compared);
                    return Ok(Compared::As(counted));
                }
                Err(broken) if ends.again(&broken, &mut backoff).await? => {}
                Err(_) => return Ok(Compared::Moved),
            }
        }
    }

    /// Whether what was read under the source's name was this collection. Where the server can't be asked for a UUID, a
    /// collection that was renamed or dropped just has no documents.
    async fn is_still_there(&self, pair: &CollectionPair) -> Result<bool, Failure> {
        let ends = &self.inner.ends;
        if ends.collection_uuid(pair).is_some() {
            return Ok(true);
        }
        let now = catalog::find(&ends.source, &pair.source).await?;
        Ok(now.is_some_and(|entry| entry.uuid == pair.uuid))
    }

    pub(super) async fn scan(
        &self,
        ends: &ClusterPair,
        pair: &CollectionPair,
        interval: &Interval,
        go_on: &(dyn Fn() -> BoxFuture<'static, ()> + Send + Sync),
    ) -> Result<ScanTotals, ScanError> {
        let (uuid, notes) = (pair.uuid.unwrap_or_default(), &self.inner.notes);
        let mut suspect = |id: RawDocumentBuf| {
            notes.touch(uuid)?;
            notes.dirty.suspect(dirty_set::key(uuid, &id_lookup::key(&id)), &id, now())
        };
        ends.scan(pair, interval, &mut suspect, go_on).await
    }

    /// Sees whether a capped collection's documents stand in the source's order. The cutover fixes it.
    async fn look_at_the_order(&self, pair: &CollectionPair) -> Result<(), Failure> {
        let (ends, mut backoff) = (&self.inner.ends, Backoff::default());
        let swapped = loop {
            match capped_order::first_swapped(ends, pair, None, &self.held()).await {
                Ok(swapped) => break swapped,
                Err(broken) if ends.again(&broken, &mut backoff).await? => {}
                Err(_) => break None,
            }
        };
        let Some(swapped) = swapped else {
            self.state().out_of_order.remove(&pair.destination);
            return Ok(());
        };
        // What is being replicated may stand elsewhere for the moment.
        let (_, until) = ends.source.optimes().await?;
        let (mut applied, mut may_run) = (self.inner.applied.subscribe(), self.inner.may_run.subscribe());
        tokio::select! {
            _ = applied.wait_for(|applied| *applied >= until) => {}
            _ = may_run.wait_for(|may| !*may) => return Ok(()),
        }
        // Where that can't be said just now, the next pass or the cutover sees it.
        if matches!(swapped.is_there(ends, pair).await, Ok(true)) {
            tracing::warn!(ns = %pair.destination, "documents of a capped collection stand in another order: {swapped}");
            self.state().out_of_order.insert(pair.destination.clone(), swapped.to_string());
        }
        Ok(())
    }

    /// Capped collections whose order the last pass found to be another, and which of their documents.
    pub fn out_of_order(&self) -> BTreeMap<Namespace, String> {
        self.state().out_of_order.clone()
    }

    /// Capped collections with a document that isn't the source's and can't be repaired: a cutover copies them again.
    pub fn differing(&self) -> BTreeSet<Namespace> {
        self.state().differing.clone()
    }

    /// By how many documents the source's own count is above the destination's.
    async fn booked_difference(&self, pair: &CollectionPair) -> Result<i64, Failure> {
        let ClusterPair { source, destination, .. } = &self.inner.ends;
        let booked = async |cluster: &Cluster, ns: &Namespace| {
            let count = cluster.db(&ns.db).run_command(doc! {"count": &ns.coll}).await;
            count.map(|reply| as_i64(reply.get("n")).unwrap_or(0)).map_err(|e| cluster.failure(&e))
        };
        let (a, b) = tokio::join!(booked(source, &pair.source), booked(destination, &pair.destination));
        Ok(a? - b?)
    }

    /// Whether both sides have the same number of documents: by their own counts, less what the last pass found to be an
    /// error of those; and where they differ otherwise, by counting.
    pub async fn counts_are_equal(&self, pair: &CollectionPair) -> Result<bool, Failure> {
        let ClusterPair { source, destination, .. } = &self.inner.ends;
        let error = pair.uuid.and_then(|uuid| self.state().miscounted.get(&uuid).copied());
        if self.booked_difference(pair).await? == error.unwrap_or(0) {
            return Ok(true);
        }
        let counted = async |cluster: &Cluster, ns: &Namespace| {
            let pipeline = vec![doc! {"$group": {"_id": null, "n": {"$sum": 1}}}];
            let level = doc! {"level": "majority"};
            let command = doc! {"aggregate": &ns.coll, "pipeline": pipeline, "cursor": {}, "readConcern": level};
            let read =
                async { cluster.db(&ns.db).run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
            let found = read.await.map_err(|e| cluster.failure(&e))?;
            Ok::<_, Failure>(found.first().and_then(|group| as_i64(group.get("n"))).unwrap_or(0))
        };
        let (a, b) = tokio::join!(counted(source, &pair.source), counted(destination, &pair.destination));
        Ok(a? == b?)
    }

    /// Compares a whole collection at once; what differs is dirty then. One that the source no longer has is passed over:
    /// the event of that is a late change, which the cutover tells of.
    pub async fn scan_now(&self, pair: &CollectionPair) -> Result<(), Failure> {
        let ends = self.inner.ends.at_once();
        // Before 6.0 a collection is known by its name.
        let is_it = |entry: &catalog::Entry| ends.collection_uuid(pair).is_none() || entry.uuid == pair.uuid;
        let Some(entry) = catalog::find(&ends.source, &pair.source).await?.filter(is_it) else { return Ok(()) };
        let pair = CollectionPair::of(&entry, &pair.destination);
        let number = self.inner.notes.begin_pass()?;
        let mut backoff = Backoff::default();
        loop {
            match self.scan(&ends, &pair, &Interval::default(), &|| std::future::ready(()).boxed()).await {
                Ok(counted) => return self.inner.notes.record_result(&pair, counted, number),
                Err(broken) if ends.again(&broken, &mut backoff).await? => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// Compares once more as many of the collections that were changed since the last pass as `time` allows, those with
    /// the fewest documents first, so that their numbers and digests are those of the end.
    pub async fn scan_changed(&self, time: Duration) -> Result<(), Failure> {
        let mut changed = Vec::new();
        for pair in self.pairs() {
            let found = self.inner.notes.found_of(&pair)?;
            if found.as_ref().is_none_or(|found| found.changed_since) {
                changed.push((found.map_or(0, |found| found.counted.compared), pair));
            }
        }
        changed.sort_by_key(|(documents, _)| *documents);
        let all = async {
            for (_, pair) in changed {
                self.scan_now(&pair).await?;
            }
            Ok(())
        };
        tokio::time::timeout(time, all).await.unwrap_or(Ok(()))
    }
}
