//! Reads the source's cluster-wide change stream into the spool, and opens it again wherever it breaks.

use super::{
    event,
    large::{self, Fragments},
    spool::Spool,
};
use crate::{
    cluster::Cluster,
    progress::{Part, Tracker},
    retry,
};
use bson::{Document, Timestamp, doc};
use futures::StreamExt;
use limosa_model::{ErrorCode, Failure};
use std::{sync::Arc, time::Duration};

/// Events a reply; the server ends it at 16 MB by itself.
const BATCH_EVENTS: u32 = 10_000;

/// How long the server waits for news before it answers with an empty batch, whose token still moves on.
const AWAIT: Duration = Duration::from_millis(200);

/// What a reader needs.
pub(crate) struct Reader {
    pub source: Cluster,
    pub spool: Arc<Spool>,
    pub tracker: Tracker,
    pub patience: Duration,
    pub t0: Timestamp,
}

enum Broken {
    Stream(mongodb::error::Error),
    Spool(Failure),
}

impl Reader {
    /// Reads from `token`, or from T0 if there is none, until a failure that waiting can't mend.
    pub async fn read(self, mut token: Option<Document>) -> Failure {
        // An event ahead is larger than a reply may be.
        let mut oversized = false;
        loop {
            let failure = match self.read_on(&mut token, oversized).await {
                Ok(()) => {
                    oversized = false;
                    continue;
                }
                Err(Broken::Stream(error)) if !oversized && large::is_too_large(&error) => {
                    tracing::warn!("an event is too large; its document will be read from the source");
                    oversized = true;
                    continue;
                }
                Err(Broken::Stream(error)) => self.source.failure(&error),
                // The disk's state is only known after opening the spool again.
                Err(Broken::Spool(failure)) => return failure,
            };
            if let Err(failure) = retry::hold(Part::Reader, failure, &self.tracker, self.patience).await {
                return failure;
            }
        }
    }

    async fn read_on(&self, token: &mut Option<Document>, oversized: bool) -> Result<(), Broken> {
        let mut stream = doc! {"allChangesForCluster": true};
        if self.source.version >= (6, 0, 0) {
            stream.extend(doc! {"showExpandedEvents": true, "showSystemEvents": true});
        }
        match token.as_ref() {
            Some(token) => stream.insert("resumeAfter", token.clone()),
            None => stream.insert("startAtOperationTime", self.t0),
        };
        let mut pipeline = vec![doc! {"$changeStream": stream}];
        if oversized {
            pipeline.push(large::without_documents());
        } else if large::can_split(&self.source) {
            pipeline.push(doc! {"$changeStreamSplitLargeEvent": {}});
        }
        let command = doc! {
            "aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": BATCH_EVENTS},
            "readConcern": {"level": "majority"},
        };
        let db = self.source.db("admin");
        let opened = db
            .run_cursor_command(command)
            .batch_size(BATCH_EVENTS)
            .max_time(AWAIT)
            .cursor_type(mongodb::options::CursorType::TailableAwait);
        let mut cursor = opened.batch().await.map_err(Broken::Stream)?;
        let mut fragments = Fragments::default();
        while let Some(batch) = cursor.next().await {
            let batch = batch.map_err(Broken::Stream)?;
            self.wait_for_room().await;
            self.spool.written_out().await;
            let reply = fragments.absorb(batch.as_raw_document().to_owned()).map_err(Broken::Stream)?;
            let Some(reply) = reply.map(Arc::new) else { continue };
            self.spool.push(&reply).map_err(Broken::Spool)?;
            // Only now: what isn't in the spool must be read again.
            if let Some(after) = event::token_of(&reply) {
                *token = Some(crate::raw::to_document(&after));
            }
            self.tracker.works(Part::Reader);
            let spooled = self.spool.bytes();
            self.tracker.count(|p| p.spool_bytes = spooled);
            if oversized && event::events_of(&reply).is_some_and(|events| !events.is_empty()) {
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
        self.tracker.fails(Part::Reader, &full);
        self.spool.room().await;
    }
}
