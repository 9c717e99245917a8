//! The verifier's scan beside replication: pass after pass over everything, held up whenever the lag grows; and the
//! comparisons of whole collections at the cutover.

use super::{
    beside::{Verifier, now},
    dirty, lookup, natural,
    notes::Range,
    scan::{Broken, Counted, Ends, Interval, Pair},
    standalone,
};
use crate::{
    catalog::{self, Uuid},
    cluster::Cluster,
    copy::plan,
    raw::as_i64,
    retry::Backoff,
};
use bson::{Document, RawDocumentBuf, doc};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use limosa_model::{Failure, Namespace};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// It rests this many times as long as a pass took, but not longer than the second.
const REST: (u32, Duration) = (4, Duration::from_secs(600));
const LEAST_REST: Duration = Duration::from_secs(2);

/// Collections that are asked for their size at once; no more, since replication goes on beside it.
const PLANNED_AT_ONCE: usize = 4;

impl Verifier {
    pub(super) async fn pass_after_pass(&self) -> Failure {
        loop {
            match self.pass().await {
                Ok(took) => {
                    if let Err(failure) = self.rest((took * REST.0).clamp(LEAST_REST, REST.1)).await {
                        return failure;
                    }
                }
                Err(failure) => return failure,
            }
        }
    }

    /// Goes over everything that the last run left, or over everything. Returns the time that it took without waiting.
    async fn pass(&self) -> Result<Duration, Failure> {
        self.room().await;
        let mut ranges = self.inner.notes.ranges()?;
        // What is in doubt now is compared with everything else; what comes to be in doubt later, out of turn.
        let doubts = if ranges.is_empty() { self.doubts()? } else { Vec::new() };
        if ranges.is_empty() {
            // Before anything is read: what is applied from now on may or may not be in what is counted.
            self.inner.notes.begin_pass()?;
            ranges = self.plan().await?;
            self.inner.notes.plan(&ranges)?;
        }
        let mut took = Duration::ZERO;
        for range in ranges.iter_mut().filter(|range| range.counted.is_none()) {
            self.compare_doubts(&doubts).await?;
            self.room().await;
            let began = Instant::now();
            range.counted = Some(self.scan_held(&range.pair, &range.interval).await?);
            took += began.elapsed();
            self.inner.notes.done(range)?;
        }
        for range in ranges.iter().filter(|range| range.pair.is_capped) {
            self.room().await;
            let began = Instant::now();
            self.look_at_the_order(&range.pair).await?;
            took += began.elapsed();
        }
        self.inner.scan_rests.send_replace(true);
        let namespaces = self.inner.notes.end_pass()?;
        self.settle_doubts(&doubts)?;
        let passes = self.inner.notes.passes()?;
        self.inner.tracker.count(|p| p.verification_passes = passes);
        tracing::info!(pass = passes, namespaces, "everything was compared");
        Ok(took)
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
        let known: HashMap<Uuid, Pair> = self.state().pairs.clone();
        // What replication doesn't know yet will come through it, each document with its mark.
        let entries = catalog::list(&ends.source, &limosa_model::NamespaceFilter::default()).await?.into_iter();
        let pairs = entries.filter_map(|entry| {
            let at = known.get(&entry.uuid?)?;
            Some(Pair::of(&entry, &at.destination))
        });
        let cut = pairs.map(|pair| async move {
            let size = plan::size(&ends.source, &pair.source).await?;
            let intervals = standalone::intervals(&ends.source, &pair, size).await?;
            Ok::<_, Failure>((pair, size, intervals))
        });
        // Most collections of a cluster that has thousands are in one piece, and only asked for their size.
        let mut cut = futures::stream::iter(cut.collect::<Vec<_>>()).buffered(PLANNED_AT_ONCE);
        let (mut ranges, mut documents) = (Vec::new(), 0);
        while let Some((pair, size, intervals)) = cut.try_next().await? {
            documents += size.documents as u64;
            for interval in intervals {
                ranges.push(Range { n: ranges.len() as u32, pair: pair.clone(), interval, counted: None });
            }
        }
        self.inner.tracker.count(|p| (p.documents_to_verify, p.documents_verified) = (documents, 0));
        Ok(ranges)
    }

    /// Waits, before each pair of replies, until there is room.
    pub(super) fn held(&self) -> impl Fn() -> BoxFuture<'static, ()> + Send + Sync + use<> {
        let verifier = self.clone();
        move || {
            let verifier = verifier.clone();
            async move { verifier.room().await }.boxed()
        }
    }

    /// Compares one range; a collection that was dropped or renamed meanwhile counts as done: replication brings that
    /// over, and the next pass finds it wherever it is then.
    async fn scan_held(&self, pair: &Pair, interval: &Interval) -> Result<Counted, Failure> {
        let mut backoff = Backoff::default();
        loop {
            match self.scan(pair, interval, &self.held()).await {
                Ok(counted) => {
                    self.inner.tracker.count(|p| p.documents_verified += counted.compared);
                    return Ok(counted);
                }
                Err(broken) if self.inner.ends.again(&broken, &mut backoff).await? => {}
                Err(_) => return Ok(Counted::default()),
            }
        }
    }

    pub(super) async fn scan(
        &self,
        pair: &Pair,
        interval: &Interval,
        go_on: &(dyn Fn() -> BoxFuture<'static, ()> + Send + Sync),
    ) -> Result<Counted, Broken> {
        let (uuid, notes) = (pair.uuid.unwrap_or_default(), &self.inner.notes);
        let mut suspect = |id: RawDocumentBuf| {
            notes.touch(uuid)?;
            notes.dirty.suspect(dirty::key(uuid, &lookup::key(&id)), &id, now())
        };
        self.inner.ends.scan(pair, interval, &mut suspect, go_on).await
    }

    /// Sees whether a capped collection's documents stand in the source's order. The cutover mends it.
    async fn look_at_the_order(&self, pair: &Pair) -> Result<(), Failure> {
        let (ends, mut backoff) = (&self.inner.ends, Backoff::default());
        let swapped = loop {
            match natural::first_swapped(ends, pair, None, &self.held()).await {
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

    /// Whether both sides have the same number of documents: by their own books, and where those differ, by counting.
    pub async fn counts_are_equal(&self, pair: &Pair) -> Result<bool, Failure> {
        let Ends { source, destination } = &self.inner.ends;
        let booked = async |cluster: &Cluster, ns: &Namespace| {
            let count = cluster.db(&ns.db).run_command(doc! {"count": &ns.coll}).await;
            count.map(|reply| as_i64(reply.get("n")).unwrap_or(0)).map_err(|e| cluster.failure(&e))
        };
        let counted = async |cluster: &Cluster, ns: &Namespace| {
            let pipeline = vec![doc! {"$group": {"_id": null, "n": {"$sum": 1}}}];
            let level = doc! {"level": "majority"};
            let command = doc! {"aggregate": &ns.coll, "pipeline": pipeline, "cursor": {}, "readConcern": level};
            let read =
                async { cluster.db(&ns.db).run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
            let found = read.await.map_err(|e| cluster.failure(&e))?;
            Ok::<_, Failure>(found.first().and_then(|group| as_i64(group.get("n"))).unwrap_or(0))
        };
        let (a, b) = tokio::join!(booked(source, &pair.source), booked(destination, &pair.destination));
        if a? == b? {
            return Ok(true);
        }
        let (a, b) = tokio::join!(counted(source, &pair.source), counted(destination, &pair.destination));
        Ok(a? == b?)
    }

    /// Compares a whole collection at once; what differs is dirty then.
    pub async fn scan_now(&self, pair: &Pair) -> Result<(), Failure> {
        let ends = &self.inner.ends;
        let entry = catalog::find(&ends.source, &pair.source).await?;
        let pair = entry.map_or_else(|| pair.clone(), |entry| Pair::of(&entry, &pair.destination));
        let number = self.inner.notes.begin_pass()?;
        let counted = self.scan(&pair, &Interval::default(), &|| std::future::ready(()).boxed()).await;
        let counted = counted.map_err(|broken| ends.failure(&broken))?;
        self.inner.notes.find(&pair, counted, number)
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
