//! What the figures are measured against: the server's own means on the same data.

use super::data::{COLL, DB, Loaded, Shape};
use bson::{RawDocumentBuf, Timestamp, doc};
use futures::StreamExt;
use limosa_testkit::{Error, ReplicaSet};
use mongodb::{
    Client,
    options::{Acknowledgment, CursorType, WriteConcern},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How often a state is looked for.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Seconds that a new member of `set` takes from its beginning to being a secondary; it is removed again.
pub(crate) async fn initial_sync(set: &mut ReplicaSet) -> Result<f64, Error> {
    let began = Instant::now();
    let index = set.add_member().await?;
    let took = began.elapsed().as_secs_f64();
    set.remove_member(index).await?;
    Ok(took)
}

/// Seconds to insert what `load` makes from memory with `writers` writers: what no tool that uses the wire can beat.
pub(crate) async fn pure_insert(
    client: &Client,
    shape: Shape,
    seed: u64,
    loaded: Loaded,
    writers: usize,
) -> Result<f64, Error> {
    let per_batch = (8_000_000 * loaded.documents / loaded.bytes.max(1)).clamp(1, 1000);
    // Made in parts, so that not all of it is in memory; the making isn't timed.
    const PART_BYTES: u64 = 512_000_000;
    let per_part = (PART_BYTES * loaded.documents / loaded.bytes.max(1)).max(1);
    let mut spent = Duration::ZERO;
    let mut first = 0;
    while first < loaded.documents {
        let end = loaded.documents.min(first + per_part);
        let documents: Vec<RawDocumentBuf> = (first..end).map(|n| shape.document(seed, n)).collect();
        let batches: Vec<Vec<RawDocumentBuf>> = documents.chunks(per_batch as usize).map(<[_]>::to_vec).collect();
        drop(documents);
        let queue = Arc::new(Mutex::new(batches));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let (client, queue) = (client.clone(), Arc::clone(&queue));
            tasks.spawn(async move {
                let collection = client.database(DB).collection::<RawDocumentBuf>(COLL);
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(batch) = next else { return Ok::<(), Error>(()) };
                    collection
                        .insert_many(batch)
                        .ordered(false)
                        .bypass_document_validation(true)
                        .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
                        .await?;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        spent += began.elapsed();
        first = end;
    }
    Ok(spent.as_secs_f64())
}

/// The source's time now.
pub(crate) async fn time(client: &Client) -> Result<Timestamp, Error> {
    Ok(client.database("admin").run_command(doc! {"ping": 1}).await?.get_timestamp("operationTime")?)
}

/// Seconds to read the next `events` change events since `time` and do nothing with them: what no tool that reads the
/// change stream can beat.
pub(crate) async fn pure_read(client: &Client, time: Timestamp, events: u64) -> Result<f64, Error> {
    const BATCH: u32 = 10_000;
    let stream = doc! {"allChangesForCluster": true, "showExpandedEvents": true, "startAtOperationTime": time};
    let command = doc! {
        "aggregate": 1, "pipeline": [{"$changeStream": stream}], "cursor": {"batchSize": BATCH},
        "readConcern": {"level": "majority"},
    };
    let began = Instant::now();
    let admin = client.database("admin");
    let opened = admin.run_cursor_command(command).batch_size(BATCH).cursor_type(CursorType::TailableAwait);
    let mut batches = opened.batch().await?;
    let mut seen = 0;
    while seen < events {
        let batch = batches.next().await.ok_or("the change stream ended")??;
        seen += batch.doc_slices()?.into_iter().count() as u64;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Waits until the document `_id: id` of the collection `marks` is there.
pub(crate) async fn mark_seen(client: &Client, id: &str) -> Result<Instant, Error> {
    let marks = client.database(DB).collection::<RawDocumentBuf>("marks");
    loop {
        if marks.find_one(doc! {"_id": id}).await?.is_some() {
            return Ok(Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Leaves the document that [`mark_seen`] waits for.
pub(crate) async fn mark(client: &Client, id: &str) -> Result<(), Error> {
    client.database(DB).collection("marks").insert_one(doc! {"_id": id}).await?;
    Ok(())
}
