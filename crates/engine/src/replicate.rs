//! Applies the spool, then the live stream: window by window, each partitioned over the workers.

use crate::{
    apply::{
        coalesce::{Batch, Change, Op},
        ddl,
        delta::Delta,
        registry::{Registry, Target},
        writer::{Writer, id_document},
    },
    catalog,
    checkpoint::{Position, Store},
    progress::Tracker,
    raw,
    stream::{
        event::{self, Event, Kind},
        spool::{Next, Spool},
    },
};
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp};
use limosa_model::{ErrorCode, Failure};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

/// Workers that write windows; two cores of a destination are kept busy by four.
pub(crate) const WORKERS: usize = 4;

/// A window is written when it has this many events, or when there is nothing more to read at once.
const WINDOW_EVENTS: u64 = 8_000;

/// Bytes of replies that one window may be made of.
const WINDOW_BYTES: usize = 32 * 1024 * 1024;

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
    /// Applies what is at hand, waiting for at least one batch or the news that there is none.
    pub async fn step(&mut self) -> Result<(), Failure> {
        let mut next = Some(self.spool.next(self.position.seq).await?);
        let mut window = Window::new();
        // The position up to which the window holds everything.
        let mut read = self.position.clone();
        let mut bytes = 0;
        while let Some(at_hand) = next {
            match at_hand {
                Next::Batch(batch) => {
                    bytes += batch.as_bytes().len();
                    self.absorb(&batch, &mut window, &mut read).await?;
                }
                Next::Idle(token) => read.token = Some(raw::to_document(&token)),
            }
            let full = window.events >= WINDOW_EVENTS || bytes >= WINDOW_BYTES;
            next = if full { None } else { self.spool.try_next(read.seq)? };
        }
        self.flush(window, read).await?;
        if self.checkpointed.elapsed() >= CHECKPOINT_EVERY {
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Writes the position down and forgets what is before it.
    pub async fn checkpoint(&mut self) -> Result<(), Failure> {
        self.store.set_position(&self.position).await?;
        self.spool.trim(self.position.seq)?;
        self.checkpointed = Instant::now();
        Ok(())
    }

    /// Writes the window; everything before `read` is applied then.
    async fn flush(&mut self, window: Window, read: Position) -> Result<(), Failure> {
        let events = window.events;
        self.write(window).await?;
        self.tracker.count(|p| p.events_applied += events);
        let token = read.token.as_ref().and_then(|token| RawDocumentBuf::try_from(token).ok());
        if let Some(time) = token.and_then(|token| event::token_time(&token)) {
            self.watermark = self.watermark.max(time);
        }
        self.position = read;
        Ok(())
    }

    /// Puts the events of one reply into the window; a definition is applied on the way, after all that is before it.
    async fn absorb(&mut self, reply: &RawDocument, window: &mut Window, read: &mut Position) -> Result<(), Failure> {
        let malformed = || Failure::new(ErrorCode::Internal, "a change event can't be read");
        let events = event::events_of(reply).ok_or_else(malformed)?;
        for (index, raw_event) in events.into_iter().enumerate() {
            if (index as u64) < read.index {
                continue;
            }
            let raw_event = raw_event.ok().and_then(|e| e.as_document()).ok_or_else(malformed)?;
            let event = Event::parse(raw_event).ok_or_else(malformed)?;
            window.events += 1;
            match event.kind {
                Kind::Image | Kind::Update | Kind::Delete => {
                    let Some(target) = self.target(&event).await? else { continue };
                    if let Ok(time) = raw_event.get_timestamp("clusterTime") {
                        window.until = window.until.max(time);
                        self.last_change = Some((time, target.ns.to_string()));
                    }
                    window.push(target, &event).ok_or_else(malformed)?;
                }
                Kind::Definition if limosa_model::filter::is_internal(event.db) => {}
                Kind::Definition => {
                    read.index = index as u64;
                    self.flush(std::mem::replace(window, Window::new()), read.clone()).await?;
                    self.define(&event).await?;
                    *read = self.position.clone();
                }
                Kind::Ignored if event.operation() == "invalidate" => {
                    return Err(Failure::new(ErrorCode::HistoryLost, "the source's change stream was invalidated"));
                }
                Kind::Ignored => {}
            }
        }
        read.seq += 1;
        read.index = 0;
        if let Some(token) = event::token_of(reply) {
            read.token = Some(raw::to_document(&token));
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

    async fn define(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let token = event.token().map(raw::to_document).unwrap_or_default();
        // Left by a run that died while applying just this event.
        let noted = self.intent.take().filter(|intent| intent.get_document("event").is_ok_and(|own| *own == token));
        if noted.is_none() {
            let mut intent = ddl::intent(event, &self.registry).await?;
            intent.insert("event", token);
            self.store.set_intent(&self.position, intent).await?;
        }
        ddl::apply(event, &mut self.registry, noted.as_ref()).await?;
        self.position.index += 1;
        self.position.token = event.token().map(raw::to_document);
        if let Ok(time) = event.raw.get_timestamp("clusterTime")
            && self.registry.filter().admits(event.db, event.coll)
        {
            self.last_change = Some((time, format!("{} ({})", event.ns(), event.operation())));
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
    events: u64,
    until: Timestamp,
}

impl Window {
    fn new() -> Self {
        Self {
            batches: (0..WORKERS).map(|_| Batch::default()).collect(),
            events: 0,
            until: Timestamp { time: 0, increment: 0 },
        }
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
