//! Reads the source's cluster-wide change stream into the spool, and opens it again wherever it breaks.

use crate::{
    component::Component,
    mongo::{cluster::Cluster, incidents::Trouble},
    progress::ProgressTracker,
    retry,
    source::{
        event,
        split_events::{self, Fragments},
        spool::Spool,
        unreadable_event,
    },
};
use bson::{Document, RawDocumentBuf, Timestamp, doc};
use limosa_model::{ErrorCode, Failure};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Events a reply; the server ends it at 16 MB anyway.
const BATCH_EVENTS: u32 = 10_000;

/// How long the server waits for news before it answers with an empty batch, whose token still moves on.
const AWAIT: Duration = Duration::from_millis(200);

/// A stream that has given no answer for so long counts as silent: it answers every [`AWAIT`], news or not.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// How often that is looked at.
const LISTEN_EVERY: Duration = Duration::from_millis(500);

/// A stream that is silent for so long is opened again on another connection. Each time in a row it gets twice as long:
/// a server that has a day of its oplog to go through before the first event needs its time, and would begin again.
const SILENT_FOR_GOOD: Duration = Duration::from_secs(15);
const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// What a reader needs.
pub(crate) struct Reader {
    pub source: Cluster,
    pub spool: Arc<Spool>,
    pub tracker: ProgressTracker,
    pub patience: Duration,
    pub t0: Timestamp,
    pub trouble: Trouble,
}

/// From where and how the stream is opened.
#[derive(Default)]
struct Place {
    token: Option<Document>,
    /// Past a change that the stream couldn't tell, until there is a token behind it.
    from: Option<Timestamp>,
    /// An event ahead is larger than a reply may be.
    oversized: bool,
    /// One event a reply: the stream ends at one of those ahead, and those before it are wanted.
    singly: bool,
}

enum StreamError {
    Stream(mongodb::error::Error),
    Silent(Failure),
    Spool(Failure),
}

impl Reader {
    /// Reads from `token`, or from T0 if there is none, until a failure that waiting can't fix.
    pub async fn read(self, token: Option<Document>) -> Failure {
        let mut place = Place { token, ..Place::default() };
        let mut hearing = Hearing { tracker: self.tracker.clone(), patience: SILENT_FOR_GOOD };
        loop {
            let failure = match self.read_on(&mut place, &mut hearing).await {
                Ok(()) => {
                    (place.oversized, place.singly) = (false, false);
                    continue;
                }
                Err(StreamError::Stream(error)) if !place.oversized && split_events::is_too_large(&error) => {
                    tracing::warn!("an event is too large; its document will be read from the source");
                    place.oversized = true;
                    continue;
                }
                Err(StreamError::Silent(failure)) => failure,
                Err(StreamError::Stream(error)) if !place.singly && unreadable_event::may_be(&self.source, &error) => {
                    tracing::warn!(%error, "the change stream ended; it is read event by event");
                    place.singly = true;
                    continue;
                }
                Err(StreamError::Stream(error)) => match self.step_over(&mut place, &error).await {
                    Ok(true) => continue,
                    Ok(false) => self.source.failure(&error),
                    Err(failure) => failure,
                },
                // The disk's state is only known after opening the spool again.
                Err(StreamError::Spool(failure)) => return failure,
            };
            if let Err(failure) =
                retry::wait_until_fixed(Component::Reader, failure, &self.tracker, self.patience).await
            {
                return failure;
            }
        }
    }

    /// Puts events that tell to read documents again in the place of a change at which the stream ends.
    async fn step_over(&self, place: &mut Place, error: &mongodb::error::Error) -> Result<bool, Failure> {
        if !unreadable_event::may_be(&self.source, error) {
            return Ok(false);
        }
        let token = place.token.as_ref().and_then(|token| RawDocumentBuf::try_from(token).ok());
        let before_t0 = Timestamp { increment: self.t0.increment.saturating_sub(1), ..self.t0 };
        let passed = token.and_then(|token| event::token_time(&token)).unwrap_or(before_t0);
        let found = unreadable_event::replaced(&self.source, passed, place.from, place.token.as_ref(), &self.trouble);
        let Some(replaced) = found.await? else { return Ok(false) };
        self.spool.push(&Arc::new(replaced.reply))?;
        (place.from, place.singly) = (Some(replaced.after), false);
        Ok(true)
    }

    async fn read_on(&self, place: &mut Place, hearing: &mut Hearing) -> Result<(), StreamError> {
        let mut stream = doc! {"allChangesForCluster": true};
        if self.source.can().show_expanded_events() {
            stream.extend(doc! {"showExpandedEvents": true, "showSystemEvents": true});
        }
        match (place.from, place.token.as_ref()) {
            (Some(from), _) => stream.insert("startAtOperationTime", from),
            (None, Some(token)) => stream.insert("resumeAfter", token.clone()),
            (None, None) => stream.insert("startAtOperationTime", self.t0),
        };
        let batch_events = if place.singly { 1 } else { BATCH_EVENTS };
        let mut pipeline = vec![doc! {"$changeStream": stream}];
        if place.oversized {
            pipeline.push(split_events::without_documents());
        } else if self.source.can().split_large_events() {
            pipeline.push(doc! {"$changeStreamSplitLargeEvent": {}});
        }
        let command = doc! {
            "aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": batch_events},
            "readConcern": {"level": "majority"},
        };
        let db = self.source.db("admin");
        let opened = db
            .run_cursor_command(command)
            .batch_size(batch_events)
            .max_time(AWAIT)
            .cursor_type(mongodb::options::CursorType::TailableAwait);
        let mut cursor = hearing.of(opened.batch()).await?.map_err(StreamError::Stream)?;
        let mut fragments = Fragments::default();
        while let Some(batch) = hearing.of(cursor.next()).await? {
            let batch = batch.map_err(StreamError::Stream)?;
            self.wait_for_room().await;
            self.spool.written_out().await;
            let reply = fragments.absorb(batch.as_raw_document().to_owned()).map_err(StreamError::Stream)?;
            let Some(reply) = reply.map(Arc::new) else { continue };
            self.spool.push(&reply).map_err(StreamError::Spool)?;
            // Only now: what isn't in the spool must be read again.
            if let Some(after) = event::token_of(&reply) {
                place.token = Some(crate::mongo::raw_bson::to_document(&after));
                place.from = None;
            }
            self.tracker.clear_failure(Component::Reader);
            self.tracker.read(event::events_of(&reply).map_or(0, |events| events.into_iter().count() as u64));
            let spooled = self.spool.bytes();
            self.tracker.update(|p| p.spool_bytes = spooled);
            let empty = event::events_of(&reply).is_none_or(|events| events.is_empty());
            if place.oversized && !empty || place.singly && empty {
                return Ok(()); // what was too large, or something before it, is behind
            }
        }
        Ok(())
    }

    async fn wait_for_room(&self) {
        if self.spool.has_room() {
            return;
        }
        let bytes = self.spool.bytes();
        let full = Failure::new(ErrorCode::SpoolFull, format!("{bytes} bytes of changes wait on this host's disk"));
        tracing::warn!(bytes, "the spool is full; reading the source pauses");
        self.tracker.record_failure(Component::Reader, &full);
        self.spool.room().await;
    }
}

/// Listens to a stream that may say nothing more, on a connection that stays open all the same.
struct Hearing {
    tracker: ProgressTracker,
    /// How long silence is borne.
    patience: Duration,
}

impl Hearing {
    /// What the stream answers; an error when it has been silent for too long.
    async fn of<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, StreamError> {
        let began = Instant::now();
        let mut answer = std::pin::pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(LISTEN_EVERY, &mut answer).await {
                self.patience = SILENT_FOR_GOOD;
                return Ok(answer);
            }
            let silence = began.elapsed();
            if silence < SILENT_AFTER {
                continue;
            }
            let message = format!("source: its change stream has given no answer for {} s", silence.as_secs());
            let failure = Failure::new(ErrorCode::SourceStreamSilent, message);
            self.tracker.record_failure_since(Component::Reader, began, &failure);
            if silence >= self.patience {
                self.patience = (self.patience * 2).min(LONGEST_SILENCE);
                return Err(StreamError::Silent(failure));
            }
        }
    }
}
