//! Applies the spool, then the live stream: window by window, each partitioned over the lanes. While windows are written
//! the next one is gathered; the position moves on in their order.

use crate::{
    component::Component,
    copy::batch_writer::CopyBatchWriter,
    destination::{
        checkpoint::CheckpointStore,
        coalesce::{DocumentWrite, WriteKind},
        collection_map::{CollectionMap, Target},
        definition,
    },
    failpoint,
    missing_indexes::Missing,
    mongo::{catalog, cluster::Cluster, raw_bson, raw_value},
    progress::ProgressTracker,
    replication::{
        batch::ChangeBatch,
        ddl,
        late_writes::{Deletions, LateWrites, Recent, Written},
        progress::StreamProgress,
        resync,
        worker_pool::{ApplyWorkerPool, PendingBatch},
        writer::Writer,
    },
    source::{
        event::{self, Event, Kind},
        position::Position,
        spool::{Next, Spool},
    },
    verify::online::{Repair, Verifier},
};
use bson::{Document, RawDocumentBuf, Timestamp};
use limosa_model::{ErrorCode, Failure};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the position is written to the destination.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// The applying side of change replication.
pub(crate) struct Replicator {
    registry: CollectionMap,
    lanes: ApplyWorkerPool,
    spool: Arc<Spool>,
    store: CheckpointStore,
    tracker: ProgressTracker,
    progress: StreamProgress,
    /// An intent that the last run left.
    intent: Option<Document>,
    /// Changes that came after a cutover began.
    late: LateWrites,
    /// What was written to the source lately.
    recent: Recent,
    checkpointed: Instant,
    /// Whatever is written is marked there before.
    verifier: Verifier,
    /// The windows that are being written, in the order of their events.
    in_flight: VecDeque<InFlight>,
    /// A reply of which the rest is still to be gone over, with its number.
    rest: Option<(u64, Arc<RawDocumentBuf>)>,
}

/// What a replicator is made of.
pub(crate) struct ReplicatorConfig {
    pub registry: CollectionMap,
    /// One for each lane.
    pub writers: Vec<Writer>,
    pub spool: Arc<Spool>,
    pub store: CheckpointStore,
    pub tracker: ProgressTracker,
    pub progress: StreamProgress,
    /// An intent that the last run left.
    pub intent: Option<Document>,
    pub verifier: Verifier,
}

/// A window that is being written.
struct InFlight {
    writing: PendingBatch,
    events: u64,
    /// Everything before is applied once it is written.
    read: Position,
    /// Whether the source had nothing more then.
    idle: bool,
}

/// Windows that are written at a time: one, and one that waits behind it, so that no lane waits for another.
const MOST_IN_FLIGHT: usize = 2;

/// How long a step waits for what may never come: orders and readiness are looked at between two steps.
const STEP_WAITS: Duration = Duration::from_millis(500);

impl Replicator {
    pub fn new(config: ReplicatorConfig) -> Self {
        let ReplicatorConfig { registry, writers, spool, store, tracker, progress, intent, verifier } = config;
        Self {
            registry,
            lanes: ApplyWorkerPool::new(writers),
            spool,
            store,
            tracker,
            progress,
            intent,
            late: LateWrites::default(),
            recent: Recent::default(),
            checkpointed: Instant::now(),
            verifier,
            in_flight: VecDeque::new(),
            rest: None,
        }
    }

    /// Brings back what is gone from the destination, and follows the live stream from here on.
    pub async fn begin(&mut self) -> Result<(), Failure> {
        self.restore_lost().await?;
        self.verifier.reload_collections(&mut self.registry)?;
        self.spool.set_live();
        Ok(())
    }

    /// The cluster that is read.
    pub fn source(&self) -> &Cluster {
        self.registry.source()
    }

    /// The cluster that is written.
    pub fn destination(&self) -> &Cluster {
        self.registry.destination()
    }

    /// Which collection of the destination is whose image.
    pub fn registry(&self) -> &CollectionMap {
        &self.registry
    }

    /// The migration's checkpoint.
    pub fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// Events that are read and not yet applied.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Who compares both sides meanwhile.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// How far it is.
    pub fn progress(&self) -> &StreamProgress {
        &self.progress
    }

    /// What was written to the source lately.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Indexes that the destination doesn't have yet.
    pub fn missing_indexes(&self) -> &Missing {
        &self.tracker.missing
    }

    /// Changes that the stream couldn't carry and that were read again, as the report lists them.
    pub fn reread(&self) -> Vec<String> {
        self.lanes.first().trouble.summary()
    }

    /// From here on a change later than `after` counts as a late write.
    pub fn watch_for_late_writes(&mut self, after: Timestamp) {
        self.late.watch_after(after);
    }

    /// The late writes that came, in words; `None` if none did.
    pub fn late_writes(&self) -> Option<String> {
        self.late.summary()
    }

    /// No cutover is under way any more: no change is late.
    pub fn forget_late_writes(&mut self) {
        self.late = LateWrites::default();
    }

    /// Applies what is at hand, or takes note that something is applied: waits for at least one of both, or for the news
    /// that there is nothing; but not for long, where the source or the destination may never answer.
    pub async fn step(&mut self) -> Result<(), Failure> {
        if self.in_flight.len() >= MOST_IN_FLIGHT && !self.settled_soon().await? {
            return Ok(());
        }
        let mut window = ChangeBatch::new();
        // The position up to which the window holds everything.
        let mut read = self.in_flight.back().map_or(self.progress.position(), |last| &last.read).clone();
        let mut idle = false;
        while !window.is_full() {
            let next = match self.try_next(read.seq)? {
                Some(next) => next,
                None if !self.in_flight.is_empty() => {
                    let spool = Arc::clone(&self.spool);
                    tokio::select! {
                        settled = self.await_oldest_batch() => {
                            settled?;
                            break;
                        }
                        next = spool.next(read.seq) => next?,
                        () = tokio::time::sleep(STEP_WAITS) => break,
                    }
                }
                None if idle || window.events > 0 => break,
                None => {
                    if self.spool.is_on_disk() {
                        // All of it is applied. The reader may be waiting for the room that only a checkpoint makes.
                        self.checkpoint().await?;
                    }
                    match tokio::time::timeout(STEP_WAITS, self.spool.next(read.seq)).await {
                        Ok(next) => next?,
                        Err(_) => break,
                    }
                }
            };
            idle = matches!(next, Next::Idle(_));
            match next {
                Next::Batch(reply) => self.absorb(&reply, &mut window, &mut read).await?,
                Next::Idle(token) => read.token = Some(raw_bson::to_document(&token)),
            }
            // The lanes run beside this task, which by itself would hold on to its thread.
            tokio::task::yield_now().await;
        }
        if idle || window.events > 0 {
            while self.in_flight.len() >= MOST_IN_FLIGHT {
                self.await_oldest_batch().await?;
            }
            self.write(window, read, idle).await?;
        }
        while idle && !self.in_flight.is_empty() && self.settled_soon().await? {}
        if self.checkpointed.elapsed() >= CHECKPOINT_EVERY {
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Waits for the first of the windows in flight; `false` if it isn't written soon.
    async fn settled_soon(&mut self) -> Result<bool, Failure> {
        tokio::time::timeout(STEP_WAITS, self.await_oldest_batch())
            .await
            .map_or(Ok(false), |settled| settled.map(|()| true))
    }

    /// Waits until nothing is being written.
    pub async fn drain(&mut self) -> Result<(), Failure> {
        while !self.in_flight.is_empty() {
            self.await_oldest_batch().await?;
        }
        Ok(())
    }

    /// Waits until the first of the windows in flight is written; everything before its end is applied then. Loses
    /// nothing if it is dropped and called again.
    async fn await_oldest_batch(&mut self) -> Result<(), Failure> {
        let Some(first) = self.in_flight.front_mut() else { return Ok(()) };
        let refetched = first.writing.done().await?;
        if first.events > 0 {
            failpoint::reach(failpoint::WINDOW_ACKNOWLEDGED, &self.store.id()).await;
        }
        let Some(InFlight { events, read, idle, .. }) = self.in_flight.pop_front() else { return Ok(()) };
        self.progress.has_read(refetched);
        self.tracker.clear_failure(Component::Applier);
        self.tracker.update(|p| p.events_applied += events);
        if self.progress.batch_applied(read, idle) {
            self.tracker.applied_to(self.progress.watermark());
        }
        self.spool.applied(self.progress.position());
        self.verifier.applied(self.progress.passed());
        Ok(())
    }

    /// Writes whole collections in the first lane's session; used while nothing is being written.
    fn slot(&self) -> CopyBatchWriter {
        CopyBatchWriter(self.lanes.first().session.clone())
    }

    /// Before a cutover: copies again what differs and can't be changed in place. Tells what, in words.
    pub async fn resync_mismatched(&mut self) -> Result<Vec<String>, Failure> {
        self.drain().await?;
        self.verifier.definitions_change();
        let slot = self.slot();
        let renewed = resync::resync_mismatched(&mut self.registry, &slot, &self.tracker).await?;
        self.verifier.refresh_collections(&mut self.registry)?;
        self.progress.has_read(renewed.ahead);
        let mut told = Vec::new();
        for entry in renewed.collections {
            entry.uuid.map_or(Ok(()), |uuid| self.verifier.renewed(uuid))?;
            let why = if entry.is_capped() { "its documents differed, or their order" } else { "it differed" };
            told.push(format!("{}: copied again, since {why}", entry.ns));
        }
        Ok(told)
    }

    /// Copies again what is noted and isn't on the destination any more. While nothing is written.
    async fn restore_lost(&mut self) -> Result<(), Failure> {
        for place in self.registry.take_contested() {
            tracing::warn!(ns = %place.ns, "two collections of the source claim this one; both are copied again");
            definition::drop_collection(self.registry.destination(), &place).await?;
        }
        let slot = self.slot();
        let named = !self.registry.source().can().show_expanded_events();
        for entry in self.registry.lost().await? {
            let name = match self.registry.by_name(&entry.ns) {
                None => entry.ns.clone(),
                // Events with names alone can't be led elsewhere; those that come bring it back.
                Some(_) if named => continue,
                Some(_) => ddl::parked(&entry.ns, entry.uuid.unwrap_or_default()),
            };
            tracing::warn!(ns = %entry.ns, "a collection is gone from the destination and is copied again");
            let ahead = resync::adopt(&mut self.registry, &slot, &self.tracker, &entry, &name).await?;
            self.progress.has_read(Some(ahead));
            self.registry.doubt(entry.uuid);
        }
        Ok(())
    }

    /// Writes the position down and forgets what is before it.
    pub async fn checkpoint(&mut self) -> Result<(), Failure> {
        self.verifier.sync()?;
        self.store.set_position(self.progress.position()).await?;
        failpoint::reach(failpoint::POSITION_WRITTEN, &self.store.id()).await;
        self.spool.trim(self.progress.position().seq)?;
        self.checkpointed = Instant::now();
        Ok(())
    }

    /// Reply `seq`, or the news that there is nothing yet, if either is at hand.
    fn try_next(&mut self, seq: u64) -> Result<Option<Next>, Failure> {
        match self.rest.take() {
            Some((last, reply)) if last == seq => Ok(Some(Next::Batch(reply))),
            _ => self.spool.try_next(seq),
        }
    }

    /// Puts the events of one reply into the window, as many as it takes; a definition is applied on the way, after all
    /// that is before it.
    async fn absorb(
        &mut self,
        reply: &Arc<RawDocumentBuf>,
        window: &mut ChangeBatch,
        read: &mut Position,
    ) -> Result<(), Failure> {
        let events = event::events_of(reply).ok_or_else(malformed)?;
        let mut kinds: Vec<(&str, u64)> = Vec::new();
        let mut written: HashMap<usize, (Arc<Target>, Written)> = HashMap::new();
        for (index, raw_event) in events.into_iter().enumerate() {
            if (index as u64) < read.index {
                continue;
            }
            if window.is_full() {
                read.index = index as u64;
                self.rest = Some((read.seq, Arc::clone(reply)));
                break;
            }
            let raw_event = raw_event.ok().and_then(|e| e.as_document()).ok_or_else(malformed)?;
            let event = Event::parse(raw_event).ok_or_else(malformed)?;
            window.events += 1;
            match kinds.iter_mut().find(|(operation, _)| *operation == event.operation) {
                Some((_, count)) => *count += 1,
                None => kinds.push((event.operation, 1)),
            }
            match event.kind {
                Kind::Image | Kind::Update | Kind::Delete => {
                    let Some(target) = self.target(&event).await? else { continue };
                    let own = written.entry(Arc::as_ptr(&target) as usize);
                    let (_, own) = own.or_insert_with(|| (Arc::clone(&target), Written::default()));
                    own.changes += u64::from(event.kind != Kind::Delete);
                    own.deletions += u64::from(event.kind == Kind::Delete);
                    self.absorb_change(&event, index as u64, target, reply, window, read).await?;
                }
                Kind::Definition if limosa_model::filter::is_internal(event.db) => {}
                Kind::Definition => {
                    self.write_before(index as u64, window, read).await?;
                    self.define(&event).await?;
                    *read = self.progress.position().clone();
                }
                Kind::Ignored if event.operation == "invalidate" => {
                    return Err(Failure::new(ErrorCode::HistoryLost, "the source's change stream was invalidated"));
                }
                Kind::Ignored => {}
            }
        }
        kinds.into_iter().for_each(|(operation, count)| self.tracker.metrics.events(operation, count));
        written.into_values().for_each(|(target, written)| self.recent.add(&target.ns, written));
        if self.rest.is_none() {
            read.seq += 1;
            read.index = 0;
            if let Some(token) = event::token_of(reply) {
                read.token = Some(raw_bson::to_document(&token));
            }
        }
        Ok(())
    }

    /// Puts the change of one document, event `index` of `reply`, into the window.
    async fn absorb_change(
        &mut self,
        event: &Event<'_>,
        index: u64,
        target: Arc<Target>,
        reply: &RawDocumentBuf,
        window: &mut ChangeBatch,
        read: &mut Position,
    ) -> Result<(), Failure> {
        let time = event.time.ok_or_else(malformed)?;
        let is_delete = event.kind == Kind::Delete;
        if is_delete && self.late.is_late(time) && self.late.is_unjudged(read.seq) {
            // The destination's copies tell what had expired; nothing later may have touched them.
            self.write_before(index, window, read).await?;
            Box::pin(self.judge_deletions(reply, read)).await?;
        }
        window.spans(time);
        let expired = is_delete && event.id.is_some_and(|id| self.late.is_expired(&target, id));
        if !expired {
            self.late.note(time, || target.ns.to_string(), event.id);
        }
        window.push(target, event, time <= self.progress.convergence()).ok_or_else(malformed)
    }

    /// Writes the window, which holds everything before event `index` of the reply that is read, and waits until that is
    /// applied.
    async fn write_before(&mut self, index: u64, window: &mut ChangeBatch, read: &mut Position) -> Result<(), Failure> {
        read.index = index;
        self.write(std::mem::replace(window, ChangeBatch::new()), read.clone(), false).await?;
        self.drain().await
    }

    /// Finds out which deletions among the reply's events from `read` on are of documents that had expired.
    async fn judge_deletions(&mut self, reply: &RawDocumentBuf, read: &Position) -> Result<(), Failure> {
        let mut all: HashMap<usize, Deletions> = HashMap::new();
        for raw in event::events_of(reply).into_iter().flatten().skip(read.index as usize).flatten() {
            let Some(event) = raw.as_document().and_then(Event::parse).filter(|event| event.kind == Kind::Delete)
            else {
                continue;
            };
            let target = match event.uuid {
                Some(uuid) => self.registry.by_uuid(uuid),
                None => self.registry.by_name(&event.ns()),
            };
            // One that isn't UTF-8 can't be looked up this way.
            let id = event.id.filter(|id| id.is_utf8()).map(|id| id.shown());
            let (Some(target), Some(id), Some(time)) = (target, id, event.time) else { continue };
            let source_ns = event.ns();
            let own = all.entry(Arc::as_ptr(&target) as usize);
            let own = own.or_insert_with(|| Deletions { target, source_ns, ids: Vec::new(), time });
            own.ids.push(id);
            own.time = own.time.max(time);
        }
        let (source, destination) = (self.registry.source().clone(), self.registry.destination().clone());
        self.late.judge((&source, &destination), read.seq, all.into_values().collect()).await
    }

    /// Where a document's event belongs; `None` if nowhere.
    async fn target(&mut self, event: &Event<'_>) -> Result<Option<Arc<Target>>, Failure> {
        if let Some(uuid) = event.uuid {
            // One that was never created here is outside of the filter, or gone from the source already.
            let receiver = self.registry.receiver(uuid);
            if let Err(failure) = &receiver {
                tracing::error!(ns = %event.ns(), %failure, "a change is not passed over");
                self.verifier.doubt(uuid)?;
            }
            return receiver;
        }
        if !self.registry.filter().admits(event.db, event.coll) {
            return Ok(None);
        }
        let ns = event.ns();
        if let Some(target) = self.registry.by_name(&ns) {
            return Ok(Some(target));
        }
        // What has the name now may be a view: then the event's collection is gone.
        let found = catalog::find(self.registry.source(), &ns).await?;
        let Some(entry) = found.filter(|entry| entry.kind == catalog::Kind::Collection) else { return Ok(None) };
        self.registry.create(&entry, &ns).await?;
        self.verifier.refresh_collections(&mut self.registry)?;
        Ok(self.registry.by_name(&ns))
    }

    async fn define(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let token = event.token.map(raw_bson::to_document).unwrap_or_default();
        // Left by a run that died while applying just this event.
        let noted = self.intent.take().filter(|intent| intent.get_document("event").is_ok_and(|own| *own == token));
        if noted.is_none() {
            let mut intent = ddl::intent(event, &self.registry).await?;
            intent.insert("event", token);
            self.store.set_intent(self.progress.position(), intent).await?;
        }
        let time = event.time;
        let exact = time.is_some_and(|time| time > self.progress.convergence());
        failpoint::reach(failpoint::INTENT_NOTED, &self.store.id()).await;
        self.verifier.definitions_change();
        let slot = self.slot();
        let ahead = ddl::apply(event, &mut self.registry, &slot, &self.tracker, noted.as_ref(), exact).await?;
        self.progress.has_read(ahead);
        failpoint::reach(failpoint::DEFINITION_APPLIED, &self.store.id()).await;
        self.verifier.refresh_collections(&mut self.registry)?;
        if event.operation == "createIndexes"
            && let Some(target) = event.uuid.and_then(|uuid| self.registry.by_uuid(uuid))
        {
            // The destination may have refused one.
            self.tracker.missing.suspect(&target.ns);
        }
        self.progress.event_applied(event.token.map(raw_bson::to_document));
        self.spool.applied(self.progress.position());
        if let Some(time) = time
            && self.registry.filter().admits(event.db, event.coll)
        {
            self.late.note(time, || format!("{} ({})", event.ns(), event.operation), None);
        }
        self.checkpoint().await
    }

    /// Reads documents again from the source and writes them as they are there.
    pub async fn repair(&mut self, repairs: Vec<Repair>) -> Result<(), Failure> {
        self.drain().await?;
        let mut window = ChangeBatch::new();
        window.spans(self.progress.watermark());
        for repair in &repairs {
            let (Some(target), Some(id)) = (self.registry.by_uuid(repair.uuid), raw_value::id_of(&repair.entry.id))
            else {
                continue;
            };
            let (id, canonical) = (repair.entry.id.clone(), raw_bson::canonical_id(id, target.folds));
            window.add(DocumentWrite { target, id, canonical, change: WriteKind::Refetch });
        }
        self.write(window, self.progress.position().clone(), false).await?;
        self.drain().await?;
        repairs.iter().try_for_each(|repair| self.verifier.repaired(repair))
    }

    /// Marks the window's documents as dirty and has them written; everything before `read` is applied then.
    async fn write(&mut self, window: ChangeBatch, read: Position, idle: bool) -> Result<(), Failure> {
        let ChangeBatch { events, since, until, .. } = window;
        let shares = window.into_shares();
        self.verifier.mark(shares.iter().flatten().map(|(_, op)| op))?;
        if !shares.iter().all(Vec::is_empty) {
            failpoint::reach(failpoint::WINDOW_MARKED, &self.store.id()).await;
        }
        let writing = self.lanes.send(shares, since, until);
        self.in_flight.push_back(InFlight { writing, events, read, idle });
        Ok(())
    }
}

fn malformed() -> Failure {
    Failure::new(ErrorCode::Internal, "a change event can't be read")
}
