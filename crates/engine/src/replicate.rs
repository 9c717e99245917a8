//! Applies the spool, then the live stream: window by window, each partitioned over the workers.

use crate::{
    apply::{coalesce::{Batch, Change, Op}, ddl, delta::Delta, registry::{Registry, Target}, writer::{Writer, id_document}},
    catalog, checkpoint::{Position, Store},
    progress::Tracker,
    raw,
    stream::{event::{self, Event, Kind}, spool::{Next, Spool}},
};
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp};
use limosa_model::{ErrorCode, Failure};
use std::{sync::Arc, time::{Duration, Instant}};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

/// Workers that write windows; two cores of a destination are kept busy by four.
pub(crate) const WORKERS: usize = 4;

/// How often the position is written to the destination.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// The applying side of change replication.
pub(crate) struct Replicator {
    pub registry: Registry,
    pub writers: Vec<Writer>,
    pub spool: Arc<Spool>,
    pub store: Store,
    pub tracker: Tracker,
    pub position: Position,
    /// An intent that the last run left.
    pub intent: Option<Document>,
    /// Everything up to here is applied.
    pub watermark: Timestamp,
    /// The destination is an exact image only from here on.
    pub convergence: Timestamp,
    /// The cluster time and namespace of the last applied change inside the filter.
    pub last_change: Option<(Timestamp, String)>,
    pub checkpointed: Instant,
}

impl Replicator {
    /// Applies the next batch, or takes note that there is none; returns whether there was one.
    pub async fn step(&mut self) -> Result<bool, Failure> {
        let more = match self.spool.next(self.position.seq).await? {
            Next::Batch(batch) => {
                self.apply(&batch).await?;
                true
            }
            Next::Idle(token) => {
                self.advance(&token);
                self.position.token = Some(raw::to_document(&token));
                false
            }
        };
        if self.checkpointed.elapsed() >= CHECKPOINT_EVERY {
            self.checkpoint().await?;
        }
        Ok(more)
    }

    /// Writes the position down and forgets what is before it.
    pub async fn checkpoint(&mut self) -> Result<(), Failure> {
        self.store.set_position(&self.position).await?;
        self.spool.trim(self.position.seq)?;
        self.checkpointed = Instant::now();
        Ok(())
    }

    fn advance(&mut self, token: &RawDocument) {
        if let Some(time) = event::token_time(token) {
            self.watermark = self.watermark.max(time);
        }
    }

    async fn apply(&mut self, reply: &RawDocument) -> Result<(), Failure> {
        let malformed = || Failure::new(ErrorCode::Internal, "a change event can't be read");
        let events = event::events_of(reply).ok_or_else(malformed)?;
        let mut window = Window::new();
        let mut count = 0_u64;
        for (index, raw_event) in events.into_iter().enumerate() {
            if (index as u64) < self.position.index {
                continue;
            }
            let raw_event = raw_event.ok().and_then(|e| e.as_document()).ok_or_else(malformed)?;
            let event = Event::parse(raw_event).ok_or_else(malformed)?;
            count += 1;
            match event.kind {
                Kind::Image | Kind::Update | Kind::Delete => {
                    let Some(target) = self.target(&event).await? else { continue };
                    if let Ok(time) = raw_event.get_timestamp("clusterTime") {
                        window.until = window.until.max(time);
                        self.last_change = Some((time, target.ns.to_string()));
                    }
                    window.push(target, &event).ok_or_else(malformed)?;
                }
                Kind::Definition => {
                    if limosa_model::filter::is_internal(event.db) {
                        continue;
                    }
                    self.write(std::mem::replace(&mut window, Window::new())).await?;
                    self.define(&event, index as u64).await?;
                }
                Kind::Ignored => {
                    if event.operation() == "invalidate" {
                        return Err(Failure::new(ErrorCode::HistoryLost, "the source's change stream was invalidated"));
                    }
                }
            }
        }
        self.write(window).await?;
        self.tracker.count(|p| p.events_applied += count);
        self.position.seq += 1;
        self.position.index = 0;
        if let Some(token) = event::token_of(reply) {
            self.advance(&token);
            self.position.token = Some(raw::to_document(&token));
        }
        Ok(())
    }

    /// Where a document's event belongs; `None` if nowhere.
    async fn target(&mut self, event: &Event<'_>) -> Result<Option<Arc<Target>>, Failure> {
        if let Some(uuid) = event.uuid {
            if let Some(target) = self.registry.by_uuid(uuid) {
                return Ok(Some(target));
            }
            // A collection that was never created here: outside the filter, or gone from the source already.
            return Ok(None);
        }
        if !self.registry.filter().admits(event.db, event.coll) {
            return Ok(None);
        }
        let ns = event.ns();
        if let Some(target) = self.registry.by_name(&ns) {
            return Ok(Some(target));
        }
        let Some(entry) = catalog::find(self.registry.source(), &ns).await? else { return Ok(None) };
        self.registry.create(&entry, &ns).await?;
        Ok(self.registry.by_name(&ns))
    }

    async fn define(&mut self, event: &Event<'_>, index: u64) -> Result<(), Failure> {
        let here = Position { index, ..self.position.clone() };
        let noted = if here.index == self.position.index { self.intent.take() } else { None };
        if noted.is_none() {
            let intent = ddl::intent(event, &self.registry).await?;
            self.store.set_intent(&here, intent).await?;
        }
        ddl::apply(event, &mut self.registry, noted.as_ref()).await?;
        self.position.index = index + 1;
        self.position.token = event.token().map(raw::to_document);
        if let Ok(time) = event.raw.get_timestamp("clusterTime") {
            if self.registry.filter().admits(event.db, event.coll) {
                self.last_change = Some((time, format!("{} ({})", event.ns(), event.operation())));
            }
        }
        self.checkpoint().await
    }

    async fn write(&mut self, window: Window) -> Result<(), Failure> {
        let until = window.until;
        let mut tasks = JoinSet::new();
        for (batch, writer) in window.batches.into_iter().zip(&self.writers) {
            let (ops, writer) = (batch.into_ops(), writer.clone());
            if !ops.is_empty() {
                tasks.spawn(async move { writer.write(ops, until).await });
            }
        }
        while let Some(done) = tasks.join_next().await {
            let refetched = done.map_err(|e| Failure::new(ErrorCode::Internal, format!("a writer ended: {e}")))??;
            if let Some(time) = refetched {
                self.convergence = self.convergence.max(time);
            }
        }
        Ok(())
    }
}

/// Changes between two barriers.
struct Window {
    batches: Vec<Batch>,
    until: Timestamp,
}

impl Window {
    fn new() -> Self {
        Self { batches: (0..WORKERS).map(|_| Batch::default()).collect(), until: Timestamp { time: 0, increment: 0 } }
    }

    fn push(&mut self, target: Arc<Target>, event: &Event<'_>) -> Option<()> {
        let id = event.id()?;
        let canonical = raw::canonical_id(id);
        let name = target.ns.to_string();
        let worker = match target.one_worker {
            true => xxh3_64(name.as_bytes()),
            false => xxh3_64(&canonical) ^ xxh3_64(name.as_bytes()),
        };
        let change = match event.kind {
            Kind::Delete => Change::Delete,
            Kind::Update => event.update_description().and_then(Delta::exact).map_or(Change::Refetch, Change::Update),
            _ => {
                let document = event.full_document()?.to_owned();
                let operators = document.iter().flatten().any(|(name, _)| name.as_str().starts_with('$'));
                // A replacement can't name such fields; a re-fetch deletes and inserts.
                if operators { Change::Refetch } else { Change::Put { document, fresh: event.operation() == "insert" } }
            }
        };
        let id: RawDocumentBuf = match &change {
            Change::Put { document, .. } => id_document(document)?,
            _ => raw::RawDocBuilder::new().value("_id", id).build().ok()?,
        };
        self.batches[(worker % WORKERS as u64) as usize].push(Op { target, id, canonical, change });
        Some(())
    }
}
