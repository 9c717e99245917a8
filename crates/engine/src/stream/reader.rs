//! Reads the source's cluster-wide change stream into the spool, and opens it again wherever it breaks.

use super::{event, spool::Spool};
use crate::{cluster::Cluster, error, retry::Backoff};
use bson::{Document, Timestamp, doc};
use futures::StreamExt;
use limosa_model::Failure;
use std::{sync::Arc, time::Duration};

/// Events a reply; the server ends it at 16 MB by itself.
const BATCH_EVENTS: u32 = 10_000;

/// How long the server waits for news before it answers with an empty batch, whose token still moves on.
const AWAIT: Duration = Duration::from_millis(200);

/// Reads from `token`, or from `t0` if there is none, until an error that doesn't pass.
pub(crate) async fn read(source: Cluster, spool: Arc<Spool>, t0: Timestamp, mut token: Option<Document>) -> Failure {
    let mut backoff = Backoff::default();
    loop {
        let error = match read_on(&source, &spool, t0, &mut token, &mut backoff).await {
            Ok(()) => continue,
            Err(Broken::Stream(error)) => error,
            Err(Broken::Spool(failure)) => return failure,
        };
        if !error::is_transient(&error) || !backoff.wait().await {
            return source.failure(&error);
        }
        tracing::warn!(%error, "opening the change stream again");
    }
}

enum Broken {
    Stream(mongodb::error::Error),
    Spool(Failure),
}

async fn read_on(
    source: &Cluster,
    spool: &Spool,
    t0: Timestamp,
    token: &mut Option<Document>,
    backoff: &mut Backoff,
) -> Result<(), Broken> {
    let mut stream = doc! {"allChangesForCluster": true};
    if source.version >= (6, 0, 0) {
        stream.extend(doc! {"showExpandedEvents": true, "showSystemEvents": true});
    }
    match token.as_ref() {
        Some(token) => stream.insert("resumeAfter", token.clone()),
        None => stream.insert("startAtOperationTime", t0),
    };
    let command = doc! {
        "aggregate": 1, "pipeline": [{"$changeStream": stream}], "cursor": {"batchSize": BATCH_EVENTS},
        "readConcern": {"level": "majority"},
    };
    let db = source.db("admin");
    let opened = db
        .run_cursor_command(command)
        .batch_size(BATCH_EVENTS)
        .max_time(AWAIT)
        .cursor_type(mongodb::options::CursorType::TailableAwait);
    let mut cursor = opened.batch().await.map_err(Broken::Stream)?;
    while let Some(batch) = cursor.next().await {
        let batch = batch.map_err(Broken::Stream)?;
        let reply = batch.as_raw_document().to_owned();
        if let Some(after) = event::token_of(&reply) {
            *token = Some(crate::raw::to_document(&after));
        }
        spool.push(reply).map_err(Broken::Spool)?;
        *backoff = Backoff::default();
    }
    Ok(())
}
